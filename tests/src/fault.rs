//! Ends `ipvlan-ctl` right before one of its steps, whichever of its threads makes it: a debugger
//! sees each of its system calls before the kernel does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::ctl_command;

/// Runs `ipvlan-ctl` with a line's words and kills it before its step number `step`, the first
/// being 1. Returns what that step would have been, or `None` if the program has fewer and ended
/// well by itself.
///
/// A step is a system call that changes what outlives the process: a netlink request, a map
/// entry, a pin, an attachment, a file, a kernel switch, the store's log.
pub fn killed_before(step: usize, line: &str) -> Option<String> {
    let traced = ctl_command(line.split_whitespace());
    // The shell waits until it is traced, and then becomes the program.
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for below, as its threads are"
    )]
    let mut child = Command::new("sh")
        .args(["-c", "read go; exec \"$@\"", "sh"])
        .arg(traced.get_program())
        .args(traced.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sh starts");
    let main = Pid::from_raw(child.id() as i32);
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("ptrace");
    ptrace::interrupt(main).expect("ptrace");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(b"\n").expect("sh reads");
    drop(stdin);

    let mut steps = Steps::default();
    let mut killed = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)).expect("wait") {
            WaitStatus::PtraceSyscall(thread) => {
                if killed.is_none()
                    && let Some(what) = steps.next(main, thread)
                    && steps.count == step
                {
                    kill(main, Signal::SIGKILL).expect("kill");
                    killed = Some(what);
                }
                go_on(thread, None);
            }
            WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None),
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

/// A thread that has just been killed is no error: its end is waited for.
fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("ptrace: {error}"),
    }
}

#[derive(Default)]
struct Steps {
    count: usize,
    /// The step before was a part of a transaction's log, of which one kill is enough.
    in_log: bool,
    /// The shell has become the program.
    started: bool,
}

impl Steps {
    /// What the system call at which `thread` has stopped is, if it is a step.
    fn next(&mut self, main: Pid, thread: Pid) -> Option<String> {
        let stop = ptrace::syscall_info(thread).ok()?;
        let registers = ptrace::getregs(thread).ok()?;
        if stop.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            self.started |= registers.orig_rax as i64 == libc::SYS_execve && registers.rax == 0;
            return None;
        }
        if !self.started {
            return None;
        }
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
fn bpf_change(command: u64) -> Option<&'static str> {
    match command {
        2 => Some("map update"),
        3 => Some("map delete"),
        6 => Some("pin"),
        8 => Some("attach"),
        9 => Some("detach"),
        28 => Some("link"),
        _ => None,
    }
}
