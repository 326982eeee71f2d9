//! The daemon's HTTP: figures for Prometheus, and a page for people.
//!
//! | path | what |
//! | --- | --- |
//! | `/metrics` | OpenMetrics, or Prometheus's older text format for who does not accept it |
//! | `/` | the page, with its script and style; nothing is loaded from elsewhere |
//! | `/topology.json` | what the page shows |

mod metrics;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use super::DaemonError;
use crate::engine::{EngineError, Topology};

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    Off,
    /// Here, or not at all if another program does: nobody asked for it.
    Usual,
    At(SocketAddr),
}

impl Listen {
    /// Loopback: figures are the host's own business.
    pub const USUAL: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9786);
}

type Answer = Result<Topology, EngineError>;

/// The server, which asks the daemon for what it shows.
#[derive(Debug)]
pub(super) struct Web {
    asked: Option<mpsc::Receiver<oneshot::Sender<Answer>>>,
}

impl Web {
    pub(super) async fn listen(at: Listen) -> Result<Self, DaemonError> {
        let address = match at {
            Listen::Off => return Ok(Self { asked: None }),
            Listen::Usual => Listen::USUAL,
            Listen::At(address) => address,
        };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) if at == Listen::Usual => {
                tracing::warn!(%address, %error, "no metrics and no page: cannot listen");
                return Ok(Self { asked: None });
            }
            Err(error) => return Err(DaemonError::Listen { address, error }),
        };
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!(%address, "serving metrics and the page");
        let (ask, asked) = mpsc::channel(16);
        tokio::spawn(serve(listener, router(ask, address.ip().is_loopback())));
        Ok(Self { asked: Some(asked) })
    }

    /// Who waits for the next answer. May be cancelled.
    pub(super) async fn next(&mut self) -> oneshot::Sender<Answer> {
        match &mut self.asked {
            None => std::future::pending().await,
            Some(asked) => match asked.recv().await {
                Some(reply) => reply,
                None => {
                    self.asked = None;
                    std::future::pending().await
                }
            },
        }
    }
}

/// Connections at a time; whoever comes then waits.
const CONNECTIONS: usize = 64;

/// How long a request's head may take, the next one's on the same connection too.
const PATIENCE: Duration = Duration::from_secs(30);

async fn serve(listener: TcpListener, router: Router) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = free.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection broke");
            }
            drop(permit);
        });
    }
}

fn router(ask: mpsc::Sender<oneshot::Sender<Answer>>, on_loopback: bool) -> Router {
    let router = Router::new()
        .route("/", get(async || page::INDEX))
        .route("/page.css", get(async || page::STYLE))
        .route("/page.js", get(async || page::SCRIPT))
        .route("/topology.json", get(topology))
        .route("/metrics", get(scrape))
        .with_state(ask)
        .layer(middleware::map_response(harden));
    match on_loopback {
        true => router.layer(middleware::from_fn(refuse_other_names)),
        false => router,
    }
}

async fn look(ask: &mpsc::Sender<oneshot::Sender<Answer>>) -> Result<Topology, Failed> {
    let (reply, replied) = oneshot::channel();
    ask.send(reply).await.map_err(|_| Failed::Stopping)?;
    match replied.await {
        Ok(answer) => answer.map_err(Failed::Engine),
        Err(_) => Err(Failed::Stopping),
    }
}

enum Failed {
    Engine(EngineError),
    Stopping,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Engine(error) => {
                tracing::error!(%error, "cannot read the figures");
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
            }
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        }
    }
}

type Ask = State<mpsc::Sender<oneshot::Sender<Answer>>>;

async fn topology(State(ask): Ask) -> Result<Response, Failed> {
    let json = page::data(&look(&ask).await?).to_string();
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn scrape(State(ask): Ask, headers: HeaderMap) -> Result<Response, Failed> {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let format = metrics::Format::of(accepted.filter_map(|value| value.to_str().ok()));
    let text = metrics::text(look(&ask).await?, format);
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// A page of another site may have its name point here (DNS rebinding), and would then read what
/// is for this host only; its name is in `Host`.
async fn refuse_other_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let name = host.and_then(|host| host.to_str().ok()).map(|host| {
        let port = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        port.map_or(host, |at| &host[..at])
    });
    let is_here = |name: &str| {
        let address = name.trim_matches(['[', ']']);
        name == "localhost" || address.parse::<std::net::IpAddr>().is_ok()
    };
    match name {
        Some(name) if !is_here(name) => {
            (StatusCode::FORBIDDEN, "only as localhost or by address\n").into_response()
        }
        _ => next.run(request).await,
    }
}

async fn harden(mut response: Response) -> Response {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
