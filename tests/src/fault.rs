//! Ends `ipvlan-ctl` right before one of its steps, whichever of its threads makes it: a debugger
//! sees each of its system calls before the kernel does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::ctl_command;

/// The system calls that may be steps, beside what makes a file and [`BPF_CHANGES`]. No other stops
/// the program.
const CALLS: [i64; 12] = [
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_mount,
];

const O_CREAT: u64 = libc::O_CREAT as u64;

/// Runs `ipvlan-ctl` with a line's words and kills it before its step number `step`, the first
/// being 1. Returns what that step would have been, or `None` if the program has fewer and ended
/// well by itself.
///
/// A step is a system call that changes what outlives the process: a netlink request, a map
/// entry, a pin, an attachment, a file, a kernel switch, the store's log.
pub fn killed_before(step: usize, line: &str) -> Option<String> {
    let stops = stops().expect("a filter");
    let _one_cpu = OneCpu::new();
    let mut traced = ctl_command(line.split_whitespace());
    traced.stdin(Stdio::null()).stdout(Stdio::null());
    let before_exec = move || {
        ptrace::traceme()?;
        seccompiler::apply_filter(&stops).map_err(io::Error::other)
    };
    // SAFETY: between fork and exec it makes three system calls and allocates nothing.
    unsafe { traced.pre_exec(before_exec) };
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for below, as its threads are"
    )]
    let child = traced.spawn().expect("ipvlan-ctl starts");
    let main = Pid::from_raw(child.id() as i32);
    // A traced process stops once it has become the program.
    waitpid(main, Some(WaitPidFlag::__WALL)).expect("wait");
    let options = ptrace::Options::PTRACE_O_TRACESECCOMP
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options).expect("ptrace");
    go_on(main, None);

    let mut steps = Steps::default();
    let mut killed = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)).expect("wait") {
            WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_SECCOMP) => {
                if killed.is_none()
                    && let Some(what) = steps.next(main, thread)
                    && steps.count == step
                {
                    kill(main, Signal::SIGKILL).expect("kill");
                    killed = Some(what);
                }
                go_on(thread, None);
            }
            // As a new thread begins.
            WaitStatus::PtraceEvent(thread, ..) | WaitStatus::Stopped(thread, Signal::SIGSTOP) => {
                go_on(thread, None);
            }
            WaitStatus::Stopped(thread, signal) => go_on(thread, Some(signal)),
            WaitStatus::Exited(thread, status) if thread == main => {
                assert_eq!(status, 0, "`ipvlan-ctl {line}`, traced");
                return None;
            }
            WaitStatus::Signaled(thread, signal, _) if thread == main => {
                assert!(killed.is_some(), "`ipvlan-ctl {line}` ended by {signal}");
                return killed;
            }
            _ => {}
        }
    }
}

/// A filter that stops a traced program before each system call that may be a step.
fn stops() -> Result<BpfProgram, BackendError> {
    let argument = |number: u8, is: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, is, value)?;
        SeccompRule::new(vec![condition])
    };
    let changes = BPF_CHANGES
        .into_iter()
        .map(|(command, _)| argument(0, SeccompCmpOp::Eq, command));
    let makes = argument(2, SeccompCmpOp::MaskedEq(O_CREAT), O_CREAT)?;
    let mut calls: BTreeMap<_, _> = CALLS.into_iter().map(|call| (call, Vec::new())).collect();
    calls.insert(libc::SYS_bpf, changes.collect::<Result<_, _>>()?);
    calls.insert(libc::SYS_openat, vec![makes]);
    SeccompFilter::new(
        calls,
        SeccompAction::Allow,
        SeccompAction::Trace(0),
        TargetArch::x86_64,
    )?
    .try_into()
}

/// A thread that has just been killed is no error: its end is waited for.
fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::cont(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("ptrace: {error}"),
    }
}

#[derive(Default)]
struct Steps {
    count: usize,
    /// The step before was a part of a transaction's log, of which one kill is enough.
    in_log: bool,
}

impl Steps {
    /// What the system call at which `thread` has stopped is, if it is a step.
    fn next(&mut self, main: Pid, thread: Pid) -> Option<String> {
        let registers = ptrace::getregs(thread).ok()?;
        let call = Call {
            process: main,
            number: registers.orig_rax as i64,
            arguments: [registers.rdi, registers.rsi, registers.rdx],
        };
        let what = call.step()?;
        let in_log = call.number == libc::SYS_pwrite64;
        if !(in_log && self.in_log) {
            self.count += 1;
        }
        self.in_log = in_log;
        Some(format!("step {}: {what}", self.count))
    }
}

struct Call {
    process: Pid,
    number: i64,
    arguments: [u64; 3],
}

impl Call {
    fn step(&self) -> Option<String> {
        let [first, second, third] = self.arguments;
        match self.number {
            libc::SYS_sendto => netlink_change(&self.read(second, third)),
            libc::SYS_bpf => bpf_change(first).map(|command| format!("bpf {command}")),
            libc::SYS_write => {
                let file = self.file(first)?;
                file.starts_with("/proc/sys/")
                    .then(|| format!("write to {file}"))
            }
            libc::SYS_pwrite64 => Some(format!("write to {}", self.file(first)?)),
            libc::SYS_fdatasync | libc::SYS_fsync => Some(format!("sync {}", self.file(first)?)),
            libc::SYS_ftruncate => Some(format!("truncate {}", self.file(first)?)),
            libc::SYS_openat => {
                let path = self.text(second);
                (!Path::new(&path).exists()).then(|| format!("make {path}"))
            }
            libc::SYS_unlink | libc::SYS_rmdir => Some(format!("remove {}", self.text(first))),
            libc::SYS_unlinkat => Some(format!("remove {}", self.text(second))),
            libc::SYS_rename => Some(format!("rename {}", self.text(first))),
            libc::SYS_mkdir => Some(format!("make {}", self.text(first))),
            libc::SYS_mount => Some("mount".into()),
            _ => None,
        }
    }

    fn read(&self, address: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length.min(4096) as usize];
        let memory = File::open(format!("/proc/{}/mem", self.process)).expect("a traced process");
        // Up to the end of what is mapped.
        let read = memory.read_at(&mut bytes, address).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    fn text(&self, address: u64) -> String {
        let bytes = self.read(address, 256);
        let end = bytes.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    }

    fn file(&self, descriptor: u64) -> Option<String> {
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.process)).ok()?;
        Some(AsRef::<OsStr>::as_ref(&link).to_string_lossy().into_owned())
    }
}

/// What a netlink request changes. Types come by fours from 16 on: new, delete, get, set
/// (include/uapi/linux/rtnetlink.h).
fn netlink_change(message: &[u8]) -> Option<String> {
    let length = u32::from_ne_bytes(message.get(0..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let is_netlink = length as usize == message.len();
    (is_netlink && kind >= 16 && kind % 4 != 2).then(|| format!("netlink request {kind}"))
}

/// The commands of bpf(2) that change more than the process: what a map, program or link that is
/// neither pinned nor attached is, ends with it (include/uapi/linux/bpf.h).
const BPF_CHANGES: [(u64, &str); 6] = [
    (2, "map update"),
    (3, "map delete"),
    (6, "pin"),
    (8, "attach"),
    (9, "detach"),
    (28, "link"),
];

fn bpf_change(command: u64) -> Option<&'static str> {
    let (_, what) = BPF_CHANGES
        .into_iter()
        .find(|(known, _)| *known == command)?;
    Some(what)
}

/// Keeps this thread, and what it starts, on one CPU: a stop is then a change of tasks. Waking an
/// idle CPU of an emulated machine for it takes ten times as long.
struct OneCpu {
    all: CpuSet,
}

impl OneCpu {
    fn new() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        let first = (0..CpuSet::count())
            .find(|cpu| all.is_set(*cpu).is_ok_and(|set| set))
            .expect("a CPU");
        let mut one = CpuSet::new();
        one.set(first).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &one).expect("affinity");
        Self { all }
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.all).expect("affinity");
    }
}
