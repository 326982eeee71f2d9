//! Docker's remote network and IPAM drivers (moby, `libnetwork/docs/remote.md`): calls of dockerd
//! by HTTP on a plugin socket, which the daemon serves.
//!
//! A network and an endpoint of Docker's are ours with the same ids, so nothing is kept here.
//! Docker asks an IPAM for the addresses, its own or ours, and carries the endpoint's link into the
//! container's namespace by itself. It does not tell names: those are asked for at its own socket.

mod api;
mod driver;
mod ipam;
mod messages;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, EngineError};
use crate::model::Id;
use messages::NetworkOnly;

/// Where dockerd and we meet.
#[derive(Debug, Clone)]
pub struct Sockets {
    pub plugin: Listen,
    /// Docker's own, to ask for names.
    pub api: PathBuf,
}

/// Where our socket is; dockerd finds the driver by the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Off,
    /// At [`Listen::USUAL`], or not at all if that cannot be: nobody asked for it.
    Usual,
    At(PathBuf),
}

impl Listen {
    /// Where dockerd looks.
    pub const USUAL: &str = "/run/docker/plugins/ipvlan-ctl.sock";
}

/// A call of dockerd's.
#[derive(Debug)]
pub struct Call {
    /// Such as `NetworkDriver.Join`.
    method: String,
    body: Bytes,
}

impl Call {
    /// The network that the call makes.
    pub fn made_network(&self) -> Option<Id> {
        let is_making = self.method == "NetworkDriver.CreateNetwork";
        let made: NetworkOnly = is_making.then(|| self.read())?.ok()?;
        Id::parse(&made.network)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{}: {error}", self.method))
    }

    fn unknown(&self) -> String {
        format!("invalid method {:?}: this plugin has no such", self.method)
    }
}

/// Does what dockerd asks for.
pub async fn answer(engine: &Engine, call: &Call) -> Answer {
    match call.method.split_once('.') {
        Some(("Plugin", "Activate")) => {
            Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] }))
        }
        Some(("IpamDriver", _)) => ipam::answer(engine, call).await,
        _ => driver::answer(engine, call).await,
    }
}

fn told(error: EngineError) -> String {
    error.to_string().replace('\n', " ")
}

/// What a call comes to: the answer, or why there is none.
pub type Answer = Result<Value, String>;

#[derive(Debug)]
pub enum Event {
    Call(Call, oneshot::Sender<Answer>),
    Names(api::Names),
}

/// The plugin socket, and what dockerd is being asked. The file goes with the value.
#[derive(Debug)]
pub struct Docker {
    api: PathBuf,
    tell: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    /// Our socket, if we serve one.
    plugin: Option<PathBuf>,
}

impl Docker {
    /// Serves the plugin socket. Needs a tokio runtime.
    pub fn listen(sockets: Sockets) -> io::Result<Self> {
        let (tell, events) = mpsc::channel(16);
        let path = match &sockets.plugin {
            Listen::Off => None,
            Listen::Usual => Some(PathBuf::from(Listen::USUAL)),
            Listen::At(path) => Some(path.clone()),
        };
        let plugin = match path.map(|path| serve(path, tell.clone())) {
            Some(Err(error)) if sockets.plugin == Listen::Usual => {
                tracing::warn!(path = Listen::USUAL, %error, "no driver of Docker's: cannot listen");
                None
            }
            other => other.transpose()?,
        };
        Ok(Self {
            api: sockets.api,
            tell,
            events,
            plugin,
        })
    }

    /// The next call, or answer of dockerd's. May be cancelled.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => unreachable!("`tell` is held"),
        }
    }

    /// Asks dockerd what it calls a network, and the container of an endpoint: it can answer
    /// only when it is done with the call or the move that it is at.
    pub fn ask_names(&self, network: &Id, endpoint: Option<&Id>) {
        let asked = api::ask(self.api.clone(), network.clone(), endpoint.cloned());
        let tell = self.tell.clone();
        tokio::spawn(async move {
            if let Some(names) = asked.await {
                // The daemon is ending.
                let _ = tell.send(Event::Names(names)).await;
            }
        });
    }

    /// Gives our networks and endpoints the names that dockerd told.
    pub fn take_names(&self, engine: &Engine, names: &api::Names) {
        for (what, renamed) in names.give(engine) {
            if let Err(error) = renamed {
                tracing::warn!(%error, "{what} keeps its id as its name");
            }
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(path) = &self.plugin {
            // A stale file is as good: whoever calls finds nobody listening.
            let _ = fs::remove_file(path);
        }
    }
}

/// Serves at `path`, in the place of a socket that a killed daemon left.
fn serve(path: PathBuf, tell: mpsc::Sender<Event>) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(&path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let router = Router::new().fallback(take).with_state(tell);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the plugin socket failed");
        }
    });
    Ok(path)
}

async fn take(State(tell): State<mpsc::Sender<Event>>, uri: Uri, body: Bytes) -> Response {
    let method = uri.path().trim_start_matches('/').to_owned();
    let (reply, replied) = oneshot::channel();
    let call = Event::Call(Call { method, body }, reply);
    let answer = match tell.send(call).await {
        Ok(()) => replied.await.ok(),
        Err(_) => None,
    };
    let (status, body) = match answer {
        Some(Ok(body)) => (StatusCode::OK, body),
        Some(Err(why)) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "Err": why })),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "Err": "ipvlan-ctl daemon is ending" }),
        ),
    };
    let kind = "application/vnd.docker.plugins.v1.2+json";
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_file_names_the_usual_socket() {
        let spec = include_str!("../../../../contrib/docker/ipvlan-ctl.spec");
        assert_eq!(spec, format!("unix://{}\n", Listen::USUAL));
    }
}
