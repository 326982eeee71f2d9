//! The four TC programs of ipvlan-ctl and their maps.
//!
//! | program | hook | work |
//! | --- | --- | --- |
//! | `endpoint_egress` | slave, egress | source validation, host and internal policy, figures, stamp |
//! | `endpoint_ingress` | slave, ingress | takes only stamped packets; internal and network policy, figures |
//! | `parent_ingress` | parent, ingress | stamps what the wire brings; keeps endpoints from the host's stack |
//! | `parent_egress` | parent, egress | keeps the host, and whatever lacks the stamp, from endpoints |
//!
//! A stamp in `skb->tc_index` is how the programs know each other's verdicts: a packet that
//! reaches an endpoint was passed either by the sender's `endpoint_egress` or by
//! `parent_ingress`, or it is dropped. A container cannot write a stamp, so whatever it removes
//! or adds in its namespace can only take its own packets away.
#![no_std]
#![no_main]

mod maps;
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
