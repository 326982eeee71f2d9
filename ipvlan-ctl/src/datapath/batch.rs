//! Many values of a per-CPU map in one system call, which aya does not offer.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use aya::maps::{MapData, MapError};
use aya::sys::SyscallError;
use aya::util::nr_cpus;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const LOOKUP_BATCH: libc::c_long = 24;

/// Entries of the first call: enough for most hosts, and small beside what many CPUs make of it.
const CAPACITY: usize = 1024;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A per-CPU map with keys `K` and a value `V` for each CPU.
pub struct PerCpu<K, V> {
    map: MapData,
    cpus: usize,
    kind: PhantomData<(K, V)>,
}

/// What one call found, and where the next goes on; `None` at the map's end.
struct Found<K, V> {
    entries: Vec<(K, Vec<V>)>,
    next: Option<u32>,
}

impl<K: Pod, V: Pod> PerCpu<K, V> {
    pub fn new(map: MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        for (size, expected) in [
            (info.key_size() as usize, size_of::<K>()),
            (info.value_size() as usize, size_of::<V>()),
        ] {
            if size != expected {
                return Err(MapError::InvalidValueSize { size, expected });
            }
        }
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        Ok(Self {
            map,
            cpus,
            kind: PhantomData,
        })
    }

    /// Every entry of a hash map, each with its values by CPU. Entries that come or go meanwhile
    /// may be left out.
    pub fn all(&self) -> Result<Vec<(K, Vec<V>)>, MapError> {
        let mut entries = Vec::new();
        let mut from = None;
        let mut capacity = CAPACITY;
        loop {
            match self.look_up(from, capacity) {
                Ok(found) => {
                    entries.extend(found.entries);
                    from = found.next;
                    if from.is_none() {
                        return Ok(entries);
                    }
                }
                // One bucket holds more.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => capacity *= 2,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Entries are returned from the one after `from`, or from the first. For an array `from`
    /// is an index, for a hash the number of a bucket.
    fn look_up(&self, from: Option<u32>, capacity: usize) -> io::Result<Found<K, V>> {
        // The kernel gives each CPU's value a multiple of eight bytes (`bpf_percpu_array_copy`).
        let stride = size_of::<V>().next_multiple_of(8);
        let mut keys = vec![0u8; capacity * size_of::<K>()];
        let mut values = vec![0u8; capacity * self.cpus * stride];
        let mut next = 0u32;
        let mut attributes = Attributes {
            in_batch: from.as_ref().map_or(0, |from| &raw const *from as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(capacity).map_err(io::Error::other)?,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            ..Attributes::default()
        };
        // SAFETY: the attributes are of the layout and size that the command reads; the buffers
        // hold `capacity` keys and values, and outlive the call, as do both cursors.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let ended = match result {
            0 => false,
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOENT) => true,
                error => return Err(error),
            },
        };
        let entries = keys
            .chunks_exact(size_of::<K>())
            .zip(values.chunks_exact(self.cpus * stride))
            .take(attributes.count as usize)
            .map(|(key, values)| (read(key), values.chunks_exact(stride).map(read).collect()))
            .collect();
        Ok(Found {
            entries,
            next: (!ended).then_some(next),
        })
    }
}

impl<V: Pod> PerCpu<u32, V> {
    /// The entries of an array at these indices, in their order.
    pub fn range(&self, indices: Range<u32>) -> Result<Vec<(u32, Vec<V>)>, MapError> {
        let mut entries = Vec::with_capacity(indices.len());
        let mut next = indices.start;
        while next < indices.end {
            let missing = (indices.end - next) as usize;
            let found = self
                .look_up(next.checked_sub(1), missing.min(CAPACITY))
                .map_err(failed)?;
            if found.entries.is_empty() {
                return Err(MapError::OutOfBounds {
                    index: next,
                    max_entries: next,
                });
            }
            next += found.entries.len() as u32;
            entries.extend(found.entries);
        }
        Ok(entries)
    }
}

fn read<T: Pod>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>());
    // SAFETY: there are as many bytes as a `T` has, and any bytes are a `Pod`.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

fn failed(io_error: io::Error) -> MapError {
    MapError::SyscallError(SyscallError {
        call: "bpf_map_lookup_batch",
        io_error,
    })
}
