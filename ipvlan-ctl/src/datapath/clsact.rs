//! Kernels before 6.6: the clsact qdisc and its filters, by netlink.

use std::io;
use std::path::Path;

use aya::maps::{HashMap, MapData};
use aya::programs::TcAttachType;
use aya::programs::tc::{self, NlOptions, TcError, TcHandle};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use nix::net::if_::if_nametoindex;

use super::hook::Hook;
use super::{Datapath, DatapathError, Result, absent_is_fine, map_error, pins};

/// Of a clsact qdisc, and of an ingress qdisc (linux/pkt_sched.h).
const QDISC_HANDLE: u32 = 0xffff_0000;

/// First in line and always the same handle, so that attaching twice is refused by the kernel.
pub fn options() -> NlOptions {
    NlOptions {
        priority: 1,
        handle: TcHandle::from(1),
        classid: None,
    }
}

/// Adds the qdisc to `device` where there is none. On a device of the controller's own, which has
/// `index`, it is then ours to remove; that is noted first, so that no kill leaves it unknown.
pub fn ensure_qdisc(root: &Path, index: Option<u32>, device: &str) -> Result<()> {
    if has_qdisc(device)? {
        return Ok(());
    }
    if let Some(index) = index {
        made_by_us(root)?
            .insert(index, 1, 0)
            .map_err(map_error("write", "CLSACT"))?;
    }
    match tc::qdisc_add_clsact(device) {
        Ok(()) => Ok(()),
        // Another process of ours was quicker.
        Err(e) if pins::chain(&e).contains("os error 17") => Ok(()),
        Err(e) => Err(DatapathError::Attach {
            program: "the clsact qdisc",
            device: device.to_owned(),
            why: pins::chain(&e),
        }),
    }
}

/// Is the place of a clsact (or ingress) qdisc taken?
fn has_qdisc(device: &str) -> Result<bool> {
    let request = tc_message(device, |_| {})?;
    let index = request.header.index;
    let replies = exchange(
        RouteNetlinkMessage::GetQueueDiscipline(request),
        NLM_F_REQUEST | NLM_F_DUMP,
    )
    .map_err(|e| detach_error(device, e.to_string()))?;
    let in_place = |message: &TcMessage| {
        message.header.index == index && u32::from(message.header.handle) == QDISC_HANDLE
    };
    Ok(replies.iter().any(in_place))
}

/// The device, and its qdisc with it, is gone.
pub fn forget(root: &Path, index: u32) -> Result<()> {
    absent_is_fine(made_by_us(root)?.remove(&index), "CLSACT")
}

fn made_by_us(root: &Path) -> Result<HashMap<MapData, u32, u32>> {
    Datapath {
        root: root.to_owned(),
    }
    .map("CLSACT")
}

/// Removes our filters and, if we made it and nothing else is on it, the qdisc.
pub fn detach(root: &Path, index: u32, device: &str, hooks: &[Hook]) -> Result<()> {
    let qdisc_is_ours = made_by_us(root)?.get(&index, 0).is_ok();
    if if_nametoindex(device).is_err() {
        return forget(root, index);
    }
    let mut empty = true;
    for hook in hooks {
        match tc::qdisc_detach_program(device, hook.attach_type, kernel_name(hook.program)) {
            Err(TcError::IoError(e)) if e.kind() == io::ErrorKind::NotFound => {}
            // No qdisc at all.
            Err(e) if pins::chain(&e).contains("os error 22") => {}
            result => result.map_err(|e| detach_error(device, pins::chain(&e)))?,
        }
        empty &= filters(device, hook.attach_type)?.is_empty();
    }
    if qdisc_is_ours && empty {
        remove_qdisc(device)?;
    }
    // Last, so that a kill before it leaves no qdisc of ours unknown.
    forget(root, index)
}

/// The name that a program opened by its pin has: the kernel keeps 15 bytes
/// (`BPF_OBJ_NAME_LEN` less the NUL).
fn kernel_name(program: &str) -> &str {
    &program[..program.len().min(15)]
}

/// Ids of the BPF programs attached to `device` of the calling thread's namespace.
pub fn program_ids(device: &str, attach_type: TcAttachType) -> Result<Vec<u32>> {
    Ok(filters(device, attach_type)?
        .into_iter()
        .filter_map(|filter| filter.program_id)
        .collect())
}

/// Is there a filter with this program of ours, of whichever version, in its place?
pub fn is_ours(device: &str, attach_type: TcAttachType, program: &str) -> Result<bool> {
    let place = u32::from(options().handle);
    Ok(filters(device, attach_type)?.iter().any(|filter| {
        filter.handle == place && filter.name.as_deref() == Some(kernel_name(program))
    }))
}

struct Filter {
    handle: u32,
    /// Where it is of kind bpf.
    program_id: Option<u32>,
    name: Option<String>,
}

/// The filters of one direction.
fn filters(device: &str, attach_type: TcAttachType) -> Result<Vec<Filter>> {
    // TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS (linux/pkt_sched.h).
    let parent = match attach_type {
        TcAttachType::Ingress => 0xffff_fff2,
        TcAttachType::Egress => 0xffff_fff3,
        TcAttachType::Custom(parent) => parent,
    };
    let request = tc_message(device, |message| message.header.parent = parent.into())?;
    let replies = exchange(
        RouteNetlinkMessage::GetTrafficFilter(request),
        NLM_F_REQUEST | NLM_F_DUMP,
    )
    .map_err(|e| detach_error(device, e.to_string()))?;
    let filter = |message: TcMessage| {
        let handle = u32::from(message.header.handle);
        let options = message
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                TcAttribute::Options(options) => Some(options),
                _ => None,
            });
        let mut filter = Filter {
            handle,
            program_id: None,
            name: None,
        };
        for option in options.flatten() {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program_id = Some(*id),
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                    filter.name = Some(name.clone());
                }
                _ => {}
            }
        }
        // The dump names each priority's chain first, without a handle.
        (handle != 0).then_some(filter)
    };
    Ok(replies.into_iter().filter_map(filter).collect())
}

fn remove_qdisc(device: &str) -> Result<()> {
    let request = tc_message(device, |message| {
        message.header.parent = 0xffff_fff1.into();
        message.header.handle = QDISC_HANDLE.into();
    })?;
    let removed = exchange(
        RouteNetlinkMessage::DelQueueDiscipline(request),
        NLM_F_REQUEST | NLM_F_ACK,
    );
    match removed {
        // Someone else has removed it: there is none, or an empty place for one.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        Err(e) => Err(detach_error(device, e.to_string())),
        Ok(_) => Ok(()),
    }
}

fn tc_message(device: &str, fill: impl FnOnce(&mut TcMessage)) -> Result<TcMessage> {
    let index = if_nametoindex(device).map_err(|e| detach_error(device, e.to_string()))?;
    let mut message = TcMessage::with_index(index as i32);
    fill(&mut message);
    Ok(message)
}

/// One request and its replies, to the end of the dump or the acknowledgement.
fn exchange(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<TcMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut replies = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = (reply.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(16)..).unwrap_or_default();
            match reply.payload {
                NetlinkPayload::Done(_) => return Ok(replies),
                NetlinkPayload::Error(e) if e.code.is_none() => return Ok(replies),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewTrafficFilter(reply)
                    | RouteNetlinkMessage::NewQueueDiscipline(reply),
                ) => replies.push(reply),
                _ => {}
            }
        }
    }
}

fn detach_error(device: &str, why: String) -> DatapathError {
    DatapathError::Detach {
        device: device.to_owned(),
        why,
    }
}
