//! The kernel's own types, as far as the programs look into its memory: where a struct keeps a
//! member. The format is that of Documentation/bpf/btf.rst; aya-obj reads it too, but keeps
//! members to itself.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use aya::util::nr_cpus;
use ipvlan_common::KernelLayout;
use thiserror::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: &'static str,
        source: std::io::Error,
    },
    #[error("{VMLINUX} is cut short or of another version")]
    Malformed,
    #[error("{VMLINUX} has no {0}")]
    Missing(String),
}

type Result<T> = std::result::Result<T, BtfError>;

/// The layout of the running kernel.
pub fn kernel_layout() -> Result<KernelLayout> {
    let read = |source| BtfError::Read {
        path: VMLINUX,
        source,
    };
    let bytes = fs::read(Path::new(VMLINUX)).map_err(read)?;
    let types = Types::parse(&bytes).ok_or(BtfError::Malformed)?;
    let byte = |of: &str, member: &str| Ok::<_, BtfError>(types.bit(of, member)? / 8);
    let holds_net = types.bit("sock_common", "skc_net_refcnt")?;
    let max_size = byte("net_device", "gso_max_size")?;
    Ok(KernelLayout {
        skb_socket: byte("sk_buff", "sk")?,
        skb_device: byte("sk_buff", "dev")?,
        skb_route: byte("sk_buff", "_skb_refdst")?,
        skb_sender_cpu: byte("sk_buff", "sender_cpu")?,
        socket_net: byte("sock_common", "skc_net")?,
        socket_holds_net: holds_net / 8,
        socket_holds_net_bit: 1 << (holds_net % 8),
        device_net: byte("net_device", "nd_net")?,
        device_max_segments: byte("net_device", "gso_max_segs")?,
        device_max_size: max_size,
        // Not before Linux 6.3.
        device_max_size_v4: byte("net_device", "gso_ipv4_max_size").unwrap_or(max_size),
        route_device: byte("dst_entry", "dev")?,
        cpus: nr_cpus().map_err(|(path, source)| BtfError::Read { path, source })? as u32,
    })
}

/// `BTF_KIND_*` (linux/btf.h) that matter here or have data behind them.
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
}

/// Deeper than the kernel nests structs without a name.
const NESTED: u32 = 8;

/// The structs and unions of a BTF blob.
struct Types<'a> {
    strings: &'a [u8],
    /// Members by the id of their struct or union.
    members: HashMap<u32, Vec<Member>>,
    /// Ids of structs by the offset of their name.
    structs: HashMap<u32, u32>,
}

struct Member {
    name: u32,
    of: u32,
    /// From the beginning of the struct, in bits.
    bit: u32,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if half(0)? != MAGIC {
            return None;
        }
        let header = |field: usize| word(bytes, 4 + 4 * field);
        let body = bytes.get(header(0)? as usize..)?;
        let section = |at: u32, len: u32| body.get(at as usize..)?.get(..len as usize);
        let mut types = Self {
            strings: section(header(3)?, header(4)?)?,
            members: HashMap::new(),
            structs: HashMap::new(),
        };
        types.read(section(header(1)?, header(2)?)?)?;
        Some(types)
    }

    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let mut at = 0;
        // Id 0 is void.
        let mut id = 1;
        while at < bytes.len() {
            let info = word(bytes, at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let data = at + 12;
            if matches!(kind, kind::STRUCT | kind::UNION) {
                let has_bitfields = info >> 31 != 0;
                let members = (0..count)
                    .map(|n| member(bytes, data + 12 * n, has_bitfields))
                    .collect::<Option<_>>()?;
                self.members.insert(id, members);
                if kind == kind::STRUCT {
                    self.structs.entry(word(bytes, at)?).or_insert(id);
                }
            }
            at = data
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                    kind::ENUM | kind::FUNC_PROTO => 8 * count,
                    0..=kind::ENUM64 => 0,
                    _ => return None,
                };
            id += 1;
        }
        Some(())
    }

    /// Where a struct has a member, in bits; a member of a struct or union without a name inside
    /// counts as its own.
    fn bit(&self, of: &str, member: &str) -> Result<u32> {
        let missing = || BtfError::Missing(format!("{of}.{member}"));
        let id = self
            .structs
            .iter()
            .find(|(name, _)| self.is_named(**name, of))
            .map(|(_, id)| *id)
            .ok_or_else(missing)?;
        self.find(id, member, NESTED).ok_or_else(missing)
    }

    fn find(&self, id: u32, name: &str, depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        self.members.get(&id)?.iter().find_map(|member| {
            if self.is_named(member.name, name) {
                Some(member.bit)
            } else if member.name == 0 {
                Some(member.bit + self.find(member.of, name, depth)?)
            } else {
                None
            }
        })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let bytes = self.strings.get(offset as usize..).unwrap_or_default();
        bytes.strip_prefix(name.as_bytes()).and_then(<[u8]>::first) == Some(&0)
    }
}

fn member(bytes: &[u8], at: usize, has_bitfields: bool) -> Option<Member> {
    let offset = word(bytes, at + 8)?;
    Some(Member {
        name: word(bytes, at)?,
        of: word(bytes, at + 4)?,
        // With bitfields, the upper byte is a width.
        bit: if has_bitfields {
            offset & 0x00ff_ffff
        } else {
            offset
        },
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct s { int a; union { int b; int c:3; }; }`, the type of each member given by id.
    fn example() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0c\0";
        let types: Vec<u32> = [
            // 1: int, with its data
            &[0, kind::INT << 24, 4, 32][..],
            // 2: the union, with bitfields
            &[0, 1 << 31 | kind::UNION << 24 | 2, 4],
            &[5, 1, 0, 7, 1, 3 << 24 | 5],
            // 3: the struct
            &[1, kind::STRUCT << 24 | 2, 8],
            &[3, 1, 0, 0, 2, 32],
        ]
        .concat();
        let length = 4 * types.len() as u32;
        let header = [24, 0, length, length, strings.len() as u32];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in header.into_iter().chain(types) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_within_what_has_no_name() {
        let bytes = example();
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.bit("s", "a").unwrap(), 0);
        assert_eq!(types.bit("s", "b").unwrap(), 32);
        assert_eq!(types.bit("s", "c").unwrap(), 37);
        assert!(types.bit("s", "d").is_err() && types.bit("a", "s").is_err());
    }

    #[test]
    fn the_running_kernel_has_what_is_looked_for() {
        let layout = kernel_layout().unwrap();
        assert_ne!(layout.skb_socket, 0);
        assert_ne!(layout.device_net, layout.route_device);
    }

    proptest! {
        #[test]
        fn what_is_cut_short_is_refused(length in 0..example().len()) {
            let bytes = example();
            prop_assert!(Types::parse(&bytes[..length]).is_none());
        }

        #[test]
        fn parsing_never_panics(at in 0..example().len(), byte: u8) {
            let mut bytes = example();
            bytes[at] = byte;
            if let Some(types) = Types::parse(&bytes) {
                let _ = types.bit("s", "c");
            }
        }
    }
}
