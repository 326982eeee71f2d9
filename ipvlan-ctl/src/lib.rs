//! ipvlan-ctl: container networks on Linux ipvlan with an eBPF datapath.
//!
//! The rooms, and who may call whom (downwards only):
//!
//! ```text
//! cli ─► runtime | daemon ─► engine | dns ─► store | kernel | datapath ─► model
//! ```
//!
//! [`model`] is pure; [`store`] remembers, [`kernel`] speaks netlink, [`datapath`] loads the
//! eBPF programs and reads their counters; [`engine`] holds the verbs; [`runtime`] starts
//! processes in endpoints; [`dns`] answers for names, and [`daemon`] has it follow the store and
//! the programs follow the host; [`cli`] translates words into verbs and results into text.

pub mod adapters;
pub mod cli;
pub mod daemon;
pub mod datapath;
pub mod dns;
pub mod engine;
pub mod kernel;
pub mod model;
pub mod runtime;
pub mod store;
