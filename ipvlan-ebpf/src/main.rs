//! The five TC programs of ipvlan-ctl and their maps.
//!
//! | program | hook | work |
//! | --- | --- | --- |
//! | `endpoint_egress` | slave, egress | source validation, host and internal policy, figures, stamp |
//! | `endpoint_ingress` | slave, ingress | takes only stamped packets; judges their sender again; host, internal and network policy, figures |
//! | `parent_ingress` | parent, ingress | stamps what the wire brings; keeps endpoints from the host's stack |
//! | `parent_egress` | parent, egress | judges senders again; keeps the host, and whatever lacks the stamp, from endpoints |
//! | `loopback_egress` | the host's `lo`, egress | keeps endpoints of modes l3 and l3s from the host's stack |
//!
//! A stamp in `skb->cb` is how the programs know each other's verdicts: a packet that reaches an
//! endpoint was passed by its sender's `endpoint_egress` or by `parent_ingress`, or it is dropped.
//! A container cannot write a stamp. It can change a packet that carries one, so whoever takes the
//! packet judges it again, by the record of the endpoint that the stamp names.
#![no_std]
#![no_main]

mod drops;
mod gso;
mod maps;
mod memory;
mod origin;
mod party;
mod programs;
mod skb;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier accepts no program in which this is reachable.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
