//! The daemon's socket: how commands tell it that something changed, and ask how it is.
//!
//! One request and one reply per connection, each one line of JSON.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::{DaemonError, Home, Place};
use crate::adapters::cni;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// The store has changed. Answered when the daemon has followed.
    Refresh,
    Status,
    /// The work of a CNI plugin in this place.
    Cni(Place, Box<cni::Request>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reply {
    Done,
    Status(Status),
    Cni(cni::Answer),
    /// Nothing was done, and is not going to be: it is for the one who asked to do.
    Declined,
    Failed(String),
}

/// How a daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub version: String,
    /// In how many it answers for names.
    pub namespaces: usize,
}

#[derive(Debug, Error)]
pub enum AskError {
    #[error("the daemon does not run; start it with `ipvlan-ctl daemon` or its systemd unit")]
    NotRunning,
    #[error("the daemon gave no answer: {0}")]
    Silent(io::Error),
    #[error("the daemon: {0}")]
    Failed(String),
}

/// How long a command waits: a daemon that is there answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one waits for work of its own: a hundred may be in the queue before it.
const PATIENCE_FOR_WORK: Duration = Duration::from_secs(60);

/// More than any request has: a CNI configuration with its `prevResult` is the longest.
const LONGEST: u64 = 1 << 20;

impl Home {
    /// Tells the daemon that the store has changed, and waits until it has followed.
    pub fn refresh(&self) -> Result<(), AskError> {
        match self.ask(Request::Refresh)? {
            Reply::Failed(why) => Err(AskError::Failed(why)),
            _ => Ok(()),
        }
    }

    pub fn status(&self) -> Result<Status, AskError> {
        match self.ask(Request::Status)? {
            Reply::Status(status) => Ok(status),
            Reply::Failed(why) => Err(AskError::Failed(why)),
            _ => Err(AskError::Silent(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Has the daemon do the work of a CNI plugin. `None` where the caller is to do it: no daemon
    /// of the same place runs, or it ended meanwhile, and what it began is taken back by the next
    /// verb, the caller's.
    ///
    /// Errors: it gave no answer, so that nothing is known of the work.
    pub fn answer_cni(
        &self,
        place: Place,
        request: &cni::Request,
    ) -> Result<Option<cni::Answer>, AskError> {
        // Whoever may not ask hears why from the verb itself.
        let Ok(stream) = UnixStream::connect(self.socket()) else {
            return Ok(None);
        };
        let request = Request::Cni(place, Box::new(request.clone()));
        match exchange(stream, &request, PATIENCE_FOR_WORK) {
            Ok(Reply::Cni(answer)) => Ok(Some(answer)),
            // One of another version may not know the question.
            Ok(_) | Err(AskError::NotRunning) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: Request) -> Result<Reply, AskError> {
        let stream = UnixStream::connect(self.socket()).map_err(|error| match error.kind() {
            // The file of a daemon that was killed stays.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
            _ => AskError::Silent(error),
        })?;
        exchange(stream, &request, PATIENCE)
    }
}

fn exchange(
    mut stream: UnixStream,
    request: &Request,
    patience: Duration,
) -> Result<Reply, AskError> {
    let mut exchange = || -> io::Result<Option<Reply>> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&line(request)?)?;
        let mut reply = String::new();
        BufReader::new(&stream).read_line(&mut reply)?;
        match reply.is_empty() {
            true => Ok(None),
            false => Ok(Some(serde_json::from_str(&reply)?)),
        }
    };
    match exchange() {
        Ok(Some(reply)) => Ok(reply),
        // It has just ended.
        Ok(None) => Err(AskError::NotRunning),
        Err(error) if is_of_an_end(&error) => Err(AskError::NotRunning),
        Err(error) => Err(AskError::Silent(error)),
    }
}

/// A socket that was closed with our request unread in it is reset.
fn is_of_an_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A request and where its reply goes.
pub(super) type Asked = (Request, oneshot::Sender<Reply>);

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Control {
    home: Home,
    asked: mpsc::Receiver<Asked>,
}

impl Control {
    /// Takes the place of a socket that a killed daemon left: only the holder of the lock
    /// calls this.
    pub(super) fn listen(home: &Home) -> Result<Self, DaemonError> {
        let path = home.socket();
        let bind = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(|error| DaemonError::File {
            path: path.clone(),
            error,
        })?;
        let (ask, asked) = mpsc::channel(16);
        tokio::spawn(accept(listener, ask));
        Ok(Self {
            home: home.clone(),
            asked,
        })
    }

    /// The next request. May be cancelled.
    pub(super) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => unreachable!("the accepting task ends with the runtime only"),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A stale file is as good: whoever asks finds nobody listening.
        let _ = fs::remove_file(self.home.socket());
    }
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, ask).await {
                        tracing::debug!(%error, "a command went away");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: not to spin on it.
                tracing::warn!(%error, "cannot accept a command");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: tokio::net::UnixStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut request = String::new();
    let mut read = tokio::io::BufReader::new(read.take(LONGEST));
    tokio::time::timeout(PATIENCE, read.read_line(&mut request)).await??;
    let reply = match serde_json::from_str(&request) {
        Ok(request) => {
            let (reply, replied) = oneshot::channel();
            // Both ends live until the daemon stops.
            if ask.send((request, reply)).await.is_err() {
                return Ok(());
            }
            let replied = tokio::select! {
                replied = replied => replied,
                // Nobody waits for it any more: if it has not begun, it need not.
                _ = read.read_u8() => return Ok(()),
            };
            match replied {
                Ok(reply) => reply,
                Err(_) => return Ok(()),
            }
        }
        Err(error) => Reply::Failed(format!("not a request: {error}")),
    };
    write.write_all(&line(&reply)?).await
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}
