use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;
use thiserror::Error;

use super::netns::own_cookie;
use super::{Netns, NetnsError, NetnsIdentity};

#[derive(Debug, Error)]
pub enum KernelError {
    #[error("cannot open a netlink socket: {0}")]
    Socket(std::io::Error),
    #[error("cannot {operation} {device}: {}", .errno.desc())]
    Refused {
        operation: &'static str,
        device: String,
        errno: Errno,
    },
    #[error("cannot {operation} {device}: {why}")]
    Unexpected {
        operation: &'static str,
        device: String,
        why: String,
    },
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

impl KernelError {
    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(super) fn io(
        operation: &'static str,
        device: impl Into<String>,
        error: std::io::Error,
    ) -> Self {
        let device = device.into();
        match error.raw_os_error() {
            Some(code) => Self::Refused {
                operation,
                device,
                errno: Errno::from_raw(code),
            },
            None => Self::Unexpected {
                operation,
                device,
                why: error.to_string(),
            },
        }
    }
}

/// A route netlink socket of one network namespace. Needs a tokio runtime, whose thread may be
/// in another namespace: a socket stays where it was opened.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(KernelError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Opens a socket in `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        Ok(Self::open_and(netns, || ())?.0)
    }

    /// As [`Netlink::open_in`], with the namespace's identity: to enter it costs a thread.
    pub fn open_known(netns: &Netns) -> Result<(Self, NetnsIdentity), KernelError> {
        let (inside, cookie) = Self::open_and(netns, own_cookie)?;
        Ok((inside, netns.identity_by(cookie)?))
    }

    /// Opens a socket in `netns` and does something else there.
    fn open_and<T: Send>(
        netns: &Netns,
        also: impl FnOnce() -> T + Send,
    ) -> Result<(Self, T), KernelError> {
        let runtime = tokio::runtime::Handle::current();
        let (opened, also) = netns.run(|| {
            let _inside = runtime.enter();
            (Self::open(), also())
        })?;
        Ok((opened?, also))
    }

    /// Sends a request and waits until the kernel has done it. Returns its answers, if any.
    pub(super) async fn request(
        &self,
        operation: &'static str,
        device: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.exchange(operation, device, message, NLM_F_ACK | flags)
            .await
    }

    pub(super) async fn dump(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.exchange("list", what, message, NLM_F_DUMP).await
    }

    async fn exchange(
        &self,
        operation: &'static str,
        device: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let unexpected = |why: String| KernelError::Unexpected {
            operation,
            device: device.to_owned(),
            why,
        };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut replies = self
            .handle
            .clone()
            .request(request)
            .map_err(|e| unexpected(e.to_string()))?;
        let mut messages = Vec::new();
        while let Some(reply) = replies.next().await {
            match reply.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Error(error) => {
                    // No code is an acknowledgement.
                    if let Some(code) = error.code {
                        return Err(KernelError::Refused {
                            operation,
                            device: device.to_owned(),
                            errno: Errno::from_raw(code.get().abs()),
                        });
                    }
                }
                NetlinkPayload::Overrun(_) => {
                    return Err(unexpected("the socket's buffer overran".into()));
                }
                _ => {}
            }
        }
        Ok(messages)
    }
}
