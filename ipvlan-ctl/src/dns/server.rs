//! Sockets in many namespaces, served together.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::answer::LARGEST;
use super::{ADDRESS, Answer, Forward, Outcome, Transport, View, answer};
use crate::kernel::{Netns, NetnsError};

/// Questions of one namespace that may wait for the upstream at a time; the next ones fail at
/// once. What needs no upstream never waits.
const QUESTIONS: usize = 256;

/// TCP connections of one namespace at a time; the next ones wait to be taken.
const CONNECTIONS: usize = 32;

/// How long a connection may be silent (RFC 7766, 6.2.3), or not take its answer.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("cannot start the threads that answer: {0}")]
    Start(io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot listen on {ADDRESS}:53 in {netns}: {error}")]
    Listen { netns: String, error: io::Error },
}

/// Answers in every namespace that it was given, on threads of its own.
#[derive(Debug)]
pub struct Server {
    /// Taken on drop only.
    runtime: Option<Runtime>,
    /// By the cookie of the namespace.
    clients: HashMap<u64, Client>,
}

impl Server {
    pub fn start() -> Result<Self, ServerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dns")
            .enable_all()
            .build()
            .map_err(ServerError::Start)?;
        Ok(Self {
            runtime: Some(runtime),
            clients: HashMap::new(),
        })
    }

    /// Begins to answer in a namespace.
    pub fn serve(&mut self, cookie: u64, netns: &Netns, view: View) -> Result<(), ServerError> {
        let listen = |error| ServerError::Listen {
            netns: netns.path().display().to_string(),
            error,
        };
        let (udp, tcp) = netns.run(open)?.map_err(listen)?;
        let runtime = self.runtime.as_ref().expect("taken on drop only");
        let _inside = runtime.enter();
        let udp = UdpSocket::from_std(udp).map_err(listen)?;
        let tcp = TcpListener::from_std(tcp).map_err(listen)?;
        let shared = Arc::new(Shared {
            view: RwLock::new(view),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        });
        let tasks = [
            runtime.spawn(serve_udp(udp, shared.clone())).abort_handle(),
            runtime.spawn(serve_tcp(tcp, shared.clone())).abort_handle(),
        ];
        self.clients.insert(cookie, Client { shared, tasks });
        Ok(())
    }

    /// Changes what a namespace sees, if it is served.
    pub fn show(&self, cookie: u64, view: View) {
        if let Some(client) = self.clients.get(&cookie) {
            let mut current = client.shared.view.write();
            **current.as_mut().unwrap_or_else(|e| e.get_mut()) = view;
        }
    }

    /// Closes the sockets in all other namespaces, which they hold as any socket does.
    pub fn keep_only(&mut self, wanted: impl Fn(u64) -> bool) {
        self.clients.retain(|cookie, _| wanted(*cookie));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.clients.clear();
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait for its threads within another one.
            runtime.shutdown_background();
        }
    }
}

/// One namespace.
#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[derive(Debug)]
struct Shared {
    view: RwLock<View>,
    questions: Arc<Semaphore>,
}

impl Shared {
    fn answer(&self, packet: &[u8], transport: Transport) -> Answer {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        answer(packet, &view, transport)
    }

    /// Asks the upstream; `None` for one question too many.
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.questions.clone().try_acquire_owned().ok()
    }

    async fn ask(&self, question: Forward) -> Vec<u8> {
        let upstream = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            view.upstream.clone()
        };
        let outcome = match upstream {
            Some(upstream) => upstream.ask(question.query()).await,
            None => Outcome::Failed,
        };
        question.reply(outcome)
    }
}

/// Both sockets, in the namespace of the calling thread.
fn open() -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let address = SocketAddr::from(SocketAddrV4::new(ADDRESS, 53)).into();
    let socket = |kind, protocol| {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // A server of the container's own may take port 53 of all addresses beside us if it
        // says so too.
        socket.set_reuse_address(true)?;
        // `lo` may be down yet.
        socket.set_freebind_v4(true)?;
        socket.bind(&address)?;
        Ok::<_, io::Error>(socket)
    };
    let udp = socket(Type::DGRAM, Protocol::UDP)?;
    let tcp = socket(Type::STREAM, Protocol::TCP)?;
    tcp.listen(128)?;
    Ok((udp.into(), tcp.into()))
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut packet = [0; LARGEST as usize];
    // They end with this task.
    let mut asking = JoinSet::new();
    loop {
        while asking.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let reply = match shared.answer(&packet[..length], Transport::Udp) {
            Answer::Nothing => continue,
            Answer::Now(reply) => reply,
            Answer::Ask(question) => match shared.admit() {
                None => question.reply(Outcome::Failed),
                Some(admitted) => {
                    let (socket, shared) = (socket.clone(), shared.clone());
                    asking.spawn(async move {
                        let reply = shared.ask(question).await;
                        send(&socket, &reply, from).await;
                        drop(admitted);
                    });
                    continue;
                }
            },
        };
        send(&socket, &reply, from).await;
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // It may have gone, or be a port that nothing can be sent to.
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!(%error, "cannot answer");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() == CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &shared).await {
                        tracing::debug!(%error, "a connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one message after the other (RFC 1035, 4.2.2).
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut packet = [0; LARGEST as usize];
    loop {
        let length = match timeout(SILENCE, stream.read_u16()).await? {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        // No question is this long: the connection ends.
        let Some(packet) = packet.get_mut(..length) else {
            return Ok(());
        };
        timeout(SILENCE, stream.read_exact(packet)).await??;
        let reply = match shared.answer(packet, Transport::Tcp) {
            Answer::Nothing => return Ok(()),
            Answer::Now(reply) => reply,
            Answer::Ask(question) => match shared.admit() {
                None => question.reply(Outcome::Failed),
                Some(_admitted) => shared.ask(question).await,
            },
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        timeout(SILENCE, stream.write_all(&framed)).await??;
    }
}
