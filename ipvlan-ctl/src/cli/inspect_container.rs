//! `ipvlan-ctl inspect`: containers, and networks, as JSON with docker's field names.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::inspect::{inspection, timestamp};
use super::{Places, print, report};
use crate::engine::{Engine, EngineError, NetworkView};
use crate::model::FindError;
use crate::runtime::{Record, RecordError, Status};
use crate::store::EndpointRow;

/// Show containers or networks in detail, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl inspect ipv1")]
pub(super) struct Inspect {
    /// Names, ids or beginnings of ids; a container goes before a network
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        let mut found = Vec::new();
        let mut code = ExitCode::SUCCESS;
        for name in &self.names {
            match places.with_engine(async |engine| inspect(places, engine, name).await) {
                Ok(value) => found.push(value),
                Err(error) => {
                    report(&error);
                    code = ExitCode::FAILURE;
                }
            }
        }
        print(&format!("{:#}\n", Value::Array(found)))?;
        Ok(code)
    }
}

async fn inspect(places: &Places, engine: &Engine, name: &str) -> anyhow::Result<Value> {
    match places.run_dir().find(name) {
        Ok(record) => Ok(of_container(&record, &endpoints(engine, &record).await?)),
        Err(RecordError::NotFound(_)) => match engine.inspect(name).await {
            Ok(view) => Ok(inspection(&view)),
            Err(EngineError::Find(FindError::NotFound { word })) => {
                anyhow::bail!("no such container or network: {word}")
            }
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// What a container has on each network now, whether `run` or `network connect` gave it that.
async fn endpoints(
    engine: &Engine,
    record: &Record,
) -> anyhow::Result<Vec<(NetworkView, EndpointRow)>> {
    let Some(netns) = record.netns() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for network in engine.networks()? {
        let view = engine.inspect(network.id.as_str()).await?;
        let own = view.endpoints.iter().find(|row| row.netns == netns);
        if let Some(row) = own.cloned() {
            found.push((view, row));
        }
    }
    found.sort_by(|(_, a), (_, b)| a.ifname.cmp(&b.ifname));
    Ok(found)
}

fn of_container(record: &Record, endpoints: &[(NetworkView, EndpointRow)]) -> Value {
    let container = &record.container;
    let spec = &container.spec;
    let task = &spec.task;
    let status = record.status();
    let running = status == Status::Running;
    let (exit_code, finished, oom_killed) = match &status {
        Status::Exited(end) => (end.status, timestamp(end.finished), end.oom_killed),
        Status::Dead => (137, NEVER.to_owned(), false),
        Status::Created | Status::Running => (0, NEVER.to_owned(), false),
    };
    let file = |name: &str| record.path().join(name);
    let env: Vec<String> = task
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let networks: Map<String, Value> = endpoints
        .iter()
        .map(|(view, row)| (view.network.name.clone(), of_endpoint(view, row)))
        .collect();
    json!({
        "Id": spec.id,
        "Created": timestamp(container.created),
        "Path": task.command.first(),
        "Args": task.command.get(1..),
        "State": {
            "Status": status.name(),
            "Running": running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": oom_killed,
            "Dead": status == Status::Dead,
            "Pid": match (running, container.init) {
                (true, Some(init)) => init.pid,
                _ => 0,
            },
            "ExitCode": exit_code,
            "Error": match status {
                Status::Dead => "its supervisor was killed",
                _ => "",
            },
            "StartedAt": container.started.map_or_else(|| NEVER.to_owned(), timestamp),
            "FinishedAt": finished,
        },
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": file("log"),
        "Name": format!("/{}", spec.name),
        "Driver": match spec.rootfs {
            Some(_) => "rootfs",
            None => "host",
        },
        "HostConfig": {
            "NetworkMode": spec.networks.first().map_or("none", String::as_str),
            "AutoRemove": spec.remove,
            "ReadonlyRootfs": spec.rootfs.is_none(),
            "Memory": spec.limits.memory.unwrap_or(0),
            "NanoCpus": spec.limits.nano_cpus.unwrap_or(0),
        },
        "Config": {
            "Hostname": spec.hostname,
            "User": task.user.to_string(),
            "Tty": task.tty,
            "OpenStdin": task.interactive,
            "Env": env,
            "Cmd": task.command,
            "WorkingDir": task.workdir,
        },
        "NetworkSettings": {
            "SandboxKey": record.netns(),
            "Networks": networks,
        },
        // Ours.
        "IpvlanCtl": {
            "Rootfs": spec.rootfs,
            "Capabilities": task.capabilities,
            "Supervisor": container.supervisor.pid,
        },
    })
}

/// A time that has not come, as docker writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn of_endpoint(view: &NetworkView, row: &EndpointRow) -> Value {
    let ip = |address: Option<IpNetwork>| address.map_or(String::new(), |a| a.ip().to_string());
    let prefix = |address: Option<IpNetwork>| address.map_or(0, |address| address.prefix());
    let gateway = |address: Option<IpNetwork>| {
        let gateway: Option<IpAddr> = address.and_then(|address| {
            let pools = &view.network.pools;
            let pool = pools
                .iter()
                .find(|pool| pool.subnet.contains(address.ip()))?;
            pool.gateway
        });
        gateway.map_or(String::new(), |gateway| gateway.to_string())
    };
    let (v4, v6) = (row.addresses.v4, row.addresses.v6);
    json!({
        "Aliases": row.aliases,
        "NetworkID": view.network.id,
        "EndpointID": row.id,
        "Gateway": gateway(v4),
        "GwPriority": row.addresses.gw_priority,
        "IPAddress": ip(v4),
        "IPPrefixLen": prefix(v4),
        "IPv6Gateway": gateway(v6),
        "GlobalIPv6Address": ip(v6),
        "GlobalIPv6PrefixLen": prefix(v6),
        // A slave has its parent's; docker leaves it out too.
        "MacAddress": "",
        // Ours.
        "Interface": row.ifname,
    })
}
