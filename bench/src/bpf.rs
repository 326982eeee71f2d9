//! bpf(2) for what aya has no call for: programs of a few instructions, and runs of any program
//! on a made-up packet. Layouts and numbers are those of `include/uapi/linux/bpf.h`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `TC_ACT_UNSPEC`: on with the next program or filter.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub const DROP: i32 = 2;

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;

const SCHED_CLS: u32 = 3;

/// `struct bpf_insn`; registers: destination in the low, source in the high four bits.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
}

/// A loaded classifier.
pub struct Program(OwnedFd);

impl Program {
    /// A program that returns [`NEXT`] and does nothing else.
    pub fn nothing() -> io::Result<Self> {
        const MOVE_IMMEDIATE: u8 = 0xb7;
        const EXIT: u8 = 0x95;
        let instruction = |code, immediate| Instruction {
            code,
            registers: 0,
            offset: 0,
            immediate,
        };
        let instructions = [instruction(MOVE_IMMEDIATE, NEXT), instruction(EXIT, 0)];
        let license = c"Dual MIT/GPL";
        let mut load = Load {
            program_type: SCHED_CLS,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: the attributes are those of this command, and what they point to lives longer
        // than the call.
        let fd = unsafe { bpf(PROG_LOAD, &mut load) }?;
        // SAFETY: the command returns a new descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn pinned(pin: &Path) -> io::Result<Self> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut get = Get {
            path: path.as_ptr() as u64,
            ..Get::default()
        };
        // SAFETY: as in `nothing`.
        let fd = unsafe { bpf(OBJ_GET, &mut get) }?;
        // SAFETY: the command returns a new descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Runs the program on a frame, `repeat` times, as if `device` (an ifindex of the caller's
    /// namespace) sent or received it. Returns the verdict and the time of one run in whole
    /// nanoseconds, as the kernel measured it.
    pub fn run(&self, frame: &[u8], device: u32, repeat: u32) -> io::Result<(i32, u32)> {
        let mut context = [0_u32; Self::CONTEXT / 4];
        context[Self::IFINDEX / 4] = device;
        let mut run = TestRun {
            program: self.0.as_fd().as_raw_fd() as u32,
            data_in: frame.as_ptr() as u64,
            data_in_size: frame.len() as u32,
            context_in: context.as_ptr() as u64,
            context_in_size: Self::CONTEXT as u32,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: as in `nothing`; no output is asked for.
        unsafe { bpf(PROG_TEST_RUN, &mut run) }?;
        Ok((run.verdict as i32, run.duration))
    }

    /// Size and fields of `struct __sk_buff`.
    const CONTEXT: usize = 192;
    const IFINDEX: usize = 40;
}

/// # Safety
///
/// `attributes` must be those of `command`, and pointers in it valid for what the command does.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's; the kernel takes attributes shorter than its own as padded by zeros.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}
