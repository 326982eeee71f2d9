//! Docker's own API, which knows what networks and containers are called.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::engine::{Engine, EngineError};
use crate::model::Id;

/// Docker knows an endpoint's container when it is done with the start: soon, or on a busy machine
/// in a minute. The pauses double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const GIVE_UP: Duration = Duration::from_secs(120);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than a network of thousands has.
const LONGEST: usize = 16 << 20;

/// What Docker calls a network and the containers on it.
#[derive(Debug)]
pub struct Names {
    network: Id,
    found: Found,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    name: String,
    #[serde(default)]
    containers: HashMap<String, Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

/// Asks until Docker knows the network, and the endpoint if one is named.
pub async fn ask(socket: PathBuf, network: Id, endpoint: Option<Id>) -> Option<Names> {
    let deadline = Instant::now() + GIVE_UP;
    let mut pause = FIRST_PAUSE;
    while Instant::now() < deadline {
        match timeout(PATIENCE, look(&socket, &network)).await {
            Ok(Ok(Some(found))) => {
                let is_it = |container: &Container| {
                    endpoint
                        .as_ref()
                        .is_none_or(|id| container.endpoint == id.as_str())
                };
                if endpoint.is_none() || found.containers.values().any(is_it) {
                    return Some(Names { network, found });
                }
            }
            Ok(Ok(None)) | Err(_) => {}
            // It may be starting, as we are.
            Ok(Err(error)) => {
                tracing::debug!(socket = %socket.display(), %error, "Docker does not answer");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::warn!(socket = %socket.display(), "Docker does not tell names");
    None
}

/// The network, if Docker knows it by now.
async fn look(socket: &Path, network: &Id) -> io::Result<Option<Found>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::get(format!("/networks/{network}"))
        .header(header::HOST, "docker")
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    if !response.status().is_success() {
        return Ok(None);
    }
    let body = to_bytes(Body::new(response.into_body()), LONGEST)
        .await
        .map_err(io::Error::other)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

impl Names {
    /// Renames what is known here. Returns what was renamed, and how that went.
    pub fn give(&self, engine: &Engine) -> Vec<(String, Result<(), EngineError>)> {
        let network = engine.rename_network(&self.network, &self.found.name);
        let mut done = vec![(format!("network {}", self.network.short()), network)];
        for container in self.found.containers.values() {
            if let Some(id) = Id::parse(&container.endpoint) {
                match engine.rename_endpoint(&id, &container.name) {
                    // It has ended meanwhile.
                    Err(EngineError::NoSuchEndpoint(_)) => {}
                    renamed => done.push((format!("endpoint {}", id.short()), renamed)),
                }
            }
        }
        done
    }
}
