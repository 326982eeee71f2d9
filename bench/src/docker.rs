//! A Docker daemon with a few running containers.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::door::{program, time};
use crate::sandbox::sh;

const HOME: &str = "/run/dockerd";
/// Of its API.
pub const SOCKET: &str = "/run/dockerd/socket";

/// A container costs seconds, so there are not many.
pub const CONTAINERS: usize = 10;

/// It ends with the value.
#[derive(Debug)]
pub struct Docker(Child);

impl Docker {
    /// Starts one from the root of what is unpacked, and its containers, which are on a network
    /// already.
    pub fn start(root: &Path) -> Result<Self> {
        sh(&format!(
            "mkdir -p {HOME}/image/bin; cp /bin/busybox {HOME}/image/bin/sleep
             tar -C {HOME}/image -c -f {HOME}/tar .
             ip link add first type dummy; ip link set first up"
        ))?;
        let (root, rest) = (root.display(), std::env::var("PATH")?);
        let log = format!("{HOME}/log");
        // It looks for the programs that it starts in PATH.
        let daemon = Command::new("env")
            .arg(format!("PATH={root}/usr/sbin:{root}/usr/bin:{rest}"))
            .arg("dockerd")
            .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
            .args(["--ip6tables=false", "--log-level=warn"])
            .arg(format!("--data-root={HOME}/data"))
            .arg(format!("--exec-root={HOME}/exec"))
            .arg(format!("--pidfile={HOME}/pid"))
            .arg(format!("--host=unix://{SOCKET}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("cannot start dockerd")?;
        let mut docker = Self(daemon);
        let deadline = Instant::now() + Duration::from_secs(120);
        while time(&mut client("version"), "").is_err() {
            ensure!(
                docker.0.try_wait()?.is_none() && Instant::now() < deadline,
                "dockerd does not answer: {}",
                fs::read_to_string(&log)?
            );
            sleep(Duration::from_millis(200));
        }
        let run = |line: &str| time(&mut client(line), "");
        run("network create -d ipvlan --subnet 10.0.0.0/16 -o parent=first first")?;
        run(&format!("import {HOME}/tar image"))?;
        for number in 0..CONTAINERS {
            let name = container(number);
            run(&format!(
                "run -d --name {name} --network first image sleep 36000"
            ))?;
        }
        Ok(docker)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for number in 0..CONTAINERS {
            let _ = time(&mut client(&format!("rm -f {}", container(number))), "");
        }
        // It ends containerd by itself on SIGTERM.
        let _ = sh(&format!("kill {}", self.0.id()));
        let _ = self.0.wait();
    }
}

/// The name of one of the containers; their numbers begin anew after the last.
pub fn container(number: usize) -> String {
    format!("c{}", number % CONTAINERS)
}

/// `docker` with a line's words.
pub fn client(line: &str) -> Command {
    let mut docker = Command::new(program("docker"));
    docker
        .args(line.split_whitespace())
        .env("DOCKER_HOST", format!("unix://{SOCKET}"));
    docker
}

/// Takes a container off a network, in a part of the time that a client takes to start.
pub fn disconnect(network: &str, container: &str) -> Result<()> {
    let body = json!({ "Container": container }).to_string();
    let mut stream = UnixStream::connect(SOCKET)?;
    write!(
        stream,
        "POST /networks/{network}/disconnect HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 "),
        "Docker does not take {container} off {network}: {answer}"
    );
    Ok(())
}
