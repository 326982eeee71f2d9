//! What the programs tell a tracer about a dropped packet, and how seldom.

use crate::DropKey;

/// Bytes of a packet that an event carries: headers, with room for IPv6 extensions.
pub const SNAP: usize = 160;

/// The program that dropped a packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    EndpointEgress = 0,
    EndpointIngress = 1,
    ParentEgress = 2,
    ParentIngress = 3,
    LoopbackEgress = 4,
}

impl Hook {
    const ALL: [Self; 5] = [
        Self::EndpointEgress,
        Self::EndpointIngress,
        Self::ParentEgress,
        Self::ParentIngress,
        Self::LoopbackEgress,
    ];

    /// The hook with this number, as an event carries it.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| *hook as u32 == number)
    }

    /// The program's device: `endpoint`, `parent`, or the host's `loopback`.
    pub const fn device(self) -> &'static str {
        match self {
            Self::EndpointEgress | Self::EndpointIngress => "endpoint",
            Self::ParentEgress | Self::ParentIngress => "parent",
            Self::LoopbackEgress => "loopback",
        }
    }

    /// The packet's way through that device, `egress` or `ingress`.
    pub const fn direction(self) -> &'static str {
        match self {
            Self::EndpointEgress | Self::ParentEgress | Self::LoopbackEgress => "egress",
            Self::EndpointIngress | Self::ParentIngress => "ingress",
        }
    }
}

/// One entry of `EVENTS`, a ring buffer. `repr(C)` without padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    pub key: DropKey,
    /// A [`Hook`].
    pub hook: u32,
    /// Bytes of the packet, with its Ethernet header.
    pub length: u32,
    /// Drops of the same owner and reason before this one that no event told of.
    pub suppressed: u32,
    /// How many of `bytes` are the packet's; the others mean nothing.
    pub captured: u32,
    pub bytes: [u8; SNAP],
}

impl Event {
    /// The beginning of the packet.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..(self.captured as usize).min(SNAP)]
    }
}

/// Value of `TRACE`, an array of one: the time that somebody listens, in nanoseconds of
/// `CLOCK_MONOTONIC`. A tracer extends it again and again, so that the end of its process ends it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub since: u64,
    /// Zero: nobody listens.
    pub until: u64,
}

/// Value of `DROPS`, a per-CPU hash: dropped packets, and how many of them a tracer was told of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub packets: u64,
    pub sample: Sample,
}

impl Dropped {
    pub const NONE: Self = Self {
        packets: 0,
        sample: Sample {
            window: 0,
            sent: 0,
            suppressed: 0,
        },
    };
}

/// Lets [`Sample::PER_SECOND`] events a second pass and counts the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the current second began, in nanoseconds of `CLOCK_MONOTONIC`.
    window: u64,
    sent: u32,
    suppressed: u32,
}

impl Sample {
    /// Events a second, for each endpoint, reason and CPU.
    pub const PER_SECOND: u32 = 10;
    const SECOND: u64 = 1_000_000_000;

    /// May there be an event now, for a tracer that listens since `since`? If so, returns how
    /// many there were not since the last one.
    #[inline(always)]
    pub fn take(&mut self, now: u64, since: u64) -> Option<u32> {
        if self.window < since {
            // Of an earlier tracer, if any.
            *self = Self {
                window: now,
                sent: 0,
                suppressed: 0,
            };
        } else if now.wrapping_sub(self.window) >= Self::SECOND {
            self.window = now;
            self.sent = 0;
        }
        if self.sent >= Self::PER_SECOND {
            self.suppress(self.suppressed);
            return None;
        }
        self.sent += 1;
        let suppressed = self.suppressed;
        self.suppressed = 0;
        Some(suppressed)
    }

    /// Counts one more than `before` that no event told of: the ring was full after all.
    #[inline(always)]
    pub fn suppress(&mut self, before: u32) {
        self.suppressed = before.saturating_add(1);
    }
}

#[cfg(feature = "user")]
mod user {
    use super::*;

    // SAFETY: `repr(C)`, made of integers only, without padding: any bytes are a value.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Trace {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Dropped {}
}
