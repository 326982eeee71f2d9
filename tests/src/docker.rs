//! A real Docker daemon, to compare with and to plug into.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Namespace, Running, sh, succeeds};

const ROOT: &str = "/run/dockerd";
const HOST: &str = "unix:///run/dockerd/socket";

/// It is up in five seconds where the machine has nothing else to do.
const START: Duration = Duration::from_secs(180);

/// A daemon with no network of its own and one image, `busybox`. It ends with the value.
#[derive(Debug)]
pub struct Docker {
    daemon: Running,
}

impl Docker {
    /// The socket of its API.
    pub const API: &str = "/run/dockerd/socket";

    /// Starts one and waits until it answers; panics with its log where it never does.
    pub fn start() -> Self {
        Self::start_by(Command::new("env"))
    }

    /// As [`Docker::start`], for a daemon whose host's links are those of `host`.
    pub fn start_on(host: &Namespace) -> Self {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net=/run/netns/{}", host.name));
        nsenter.arg("env");
        Self::start_by(nsenter)
    }

    /// `env` is that command, perhaps by way of another.
    fn start_by(env: Command) -> Self {
        sh(&format!(
            "mkdir -p {ROOT}; mount -t tmpfs docker {ROOT}; mkdir -p {ROOT}/image/bin
             cp /bin/busybox {ROOT}/image/bin
             for name in sh ip ping sleep cat nslookup; do
                 ln -s busybox {ROOT}/image/bin/$name
             done"
        ));
        let docker = Self {
            daemon: serve(env, &[]),
        };
        docker.sh(&format!(
            "tar -C {ROOT}/image -c . | docker import - busybox"
        ));
        docker
    }

    /// Sends the daemon a signal that ends it, and starts it anew, with these options more, on
    /// what it left. In between there is none, which is when `meanwhile` is called.
    pub fn restart_by(&mut self, signal: &str, options: &[&str], meanwhile: impl FnOnce()) {
        self.daemon.end_by(signal);
        meanwhile();
        self.daemon = serve(Command::new("env"), options);
    }

    /// Runs a shell script in which `docker` talks to this daemon, and returns its output; panics
    /// where it fails.
    pub fn sh(&self, script: &str) -> String {
        sh(&format!("{}\n{script}", client()))
    }

    /// Asks the daemon itself, which takes a tenth of the time that its client takes to start.
    pub fn api(&self, method: &str, path: &str, body: &Value) {
        self.sh(&format!(
            "curl --silent --show-error --fail-with-body --unix-socket {ROOT}/socket \\
             --request {method} --header 'Content-Type: application/json' --data '{body}' \\
             http://docker/{path}"
        ));
    }

    /// Starts a container that does nothing, with these options of `docker run`.
    pub fn run(&self, name: &str, options: &str) {
        self.sh(&format!(
            "docker run -d --name={name} {options} busybox sleep 3600"
        ));
    }

    /// Runs a command in a container and returns its output.
    pub fn exec(&self, container: &str, command: &str) -> String {
        self.sh(&format!("docker exec {container} {command}"))
    }

    /// The network namespace of a running container.
    pub fn netns(&self, container: &str) -> PathBuf {
        let pid = self.sh(&format!(
            "docker inspect -f '{{{{.State.Pid}}}}' {container}"
        ));
        format!("/proc/{}/ns/net", pid.trim()).into()
    }
}

/// Starts the daemon by `env` and waits until it answers; panics where it never does.
fn serve(mut env: Command, options: &[&str]) -> Running {
    let log = File::options()
        .create(true)
        .append(true)
        .open(format!("{ROOT}/log"))
        .expect("a log");
    env.arg(format!("PATH={}", path()))
        .arg("dockerd")
        .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
        .args(["--ip6tables=false", "--log-level=warn"])
        .arg(format!("--data-root={ROOT}/data"))
        .arg(format!("--exec-root={ROOT}/exec"))
        .arg(format!("--pidfile={ROOT}/pid"))
        .arg(format!("--host={HOST}"))
        .args(options)
        .stdout(Stdio::null())
        .stderr(log);
    let mut daemon = Running::start(&mut env);
    let deadline = Instant::now() + START;
    while !succeeds(&format!("{}\ndocker version", client())) {
        let ended = daemon.0.try_wait().expect("wait");
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "dockerd does not answer"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon
}

/// PATH with Docker's programs.
fn path() -> String {
    let docker = std::env::var("IPVLAN_TEST_DOCKER").expect("IPVLAN_TEST_DOCKER names its folder");
    let rest = std::env::var("PATH").expect("a PATH");
    format!("{docker}/usr/sbin:{docker}/usr/bin:{rest}")
}

/// What a script says before it calls `docker`, which then does not ask each time which version
/// it is to speak.
fn client() -> String {
    format!(
        "export PATH='{}' DOCKER_HOST={HOST} DOCKER_API_VERSION=1.45",
        path()
    )
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = "docker ps -aq | xargs -r docker rm -f";
        if std::thread::panicking() {
            let log = fs::read_to_string(format!("{ROOT}/log")).unwrap_or_default();
            eprintln!("the log of dockerd:\n{log}");
            // What a plugin was asked for is Docker's to take away, or every later test meets it.
            let cleaned = succeeds(&format!(
                "{}\n{containers} && docker network prune -f",
                client()
            ));
            if !cleaned {
                eprintln!("dockerd did not take away what the test left");
            }
        } else {
            self.sh(containers);
        }
        // It ends containerd by itself on SIGTERM.
        let _ = Command::new("kill")
            .arg(self.daemon.0.id().to_string())
            .status();
        let _ = self.daemon.0.wait();
        let _ = Command::new("umount").args(["-l", ROOT]).status();
    }
}
