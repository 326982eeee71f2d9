//! Listening to the programs: events of dropped packets, as long as somebody wants them.

use std::fs::File;
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use ipvlan_common::{Event, Trace};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Datapath, DatapathError, Result, map_error, pins};

/// How long the programs send events after the last sign of life.
const LEASE: Duration = Duration::from_secs(5);
const RENEWAL: Duration = Duration::from_secs(1);

/// The host's only listener. The programs fall silent when it is dropped, or soon after its
/// process was killed.
pub struct Tracer {
    lease: Lease,
    ring: AsyncFd<RingBuf<MapData>>,
}

struct Lease {
    datapath: Datapath,
    trace: Array<MapData, Trace>,
    since: u64,
    renewal: Interval,
    /// The locked folder of the maps: it also tells whether they are still the pinned ones.
    folder: Flock<File>,
}

impl Datapath {
    /// Starts to listen. There is one ring for all drops, so a second listener is refused.
    /// Needs a tokio runtime.
    pub fn trace(self) -> Result<Tracer> {
        let folder = lock(&self)?;
        let mut ring: RingBuf<MapData> = self.map("EVENTS")?;
        // What an earlier listener did not read is old.
        while ring.next().is_some() {}
        // SAFETY: the ring owns its descriptor, which is the same as long as the ring lives.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(|error| pins::io_error("poll", &self.root)(error.into_parts().1))?;
        let mut renewal = interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lease = Lease {
            trace: self.map("TRACE")?,
            since: monotonic()?,
            datapath: self,
            renewal,
            folder,
        };
        lease.renew()?;
        Ok(Tracer { lease, ring })
    }
}

fn lock(datapath: &Datapath) -> Result<Flock<File>> {
    let path = pins::abi_folder(&datapath.root);
    let folder = File::open(&path).map_err(pins::io_error("open", &path))?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => DatapathError::Traced,
        error => pins::io_error("lock", &path)(error.into()),
    })
}

impl Tracer {
    /// The next event, in the order of their drops. May be cancelled without losing one.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let mut ready = tokio::select! {
                biased;
                _ = self.lease.renewal.tick() => {
                    self.lease.renew()?;
                    continue;
                }
                ready = self.ring.readable_mut() => {
                    ready.map_err(pins::io_error("poll", &self.lease.datapath.root))?
                }
            };
            if let Some(item) = ready.get_inner_mut().next() {
                if item.len() == size_of::<Event>() {
                    // SAFETY: an event is made of integers, and as many bytes are there.
                    return Ok(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
                }
                // Of another length than this map ABI has; the programs send no such thing.
                continue;
            }
            ready.clear_ready();
        }
    }
}

impl Lease {
    fn renew(&mut self) -> Result<()> {
        if !self.is_pinned()? {
            return Err(DatapathError::Unloaded);
        }
        let until = monotonic()? + LEASE.as_nanos() as u64;
        self.write(Trace {
            since: self.since,
            until,
        })
    }

    /// Are these maps still the ones that are in use? The last network takes them with it.
    fn is_pinned(&self) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;

        let path = pins::abi_folder(&self.datapath.root);
        let inode = |file: std::io::Result<std::fs::Metadata>| file.map(|file| file.ino());
        match inode(std::fs::metadata(&path)) {
            Ok(now) => {
                Ok(now == inode(self.folder.metadata()).map_err(pins::io_error("read", &path))?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(pins::io_error("read", &path)(e)),
        }
    }

    fn write(&mut self, trace: Trace) -> Result<()> {
        self.trace
            .set(0, trace, 0)
            .map_err(map_error("write", "TRACE"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Where this fails, the lease ends by itself.
        let _ = self.write(Trace { since: 0, until: 0 });
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, as the programs tell the time.
fn monotonic() -> Result<u64> {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|e| DatapathError::Clock(e.into()))?;
    Ok(Duration::from(now).as_nanos() as u64)
}
