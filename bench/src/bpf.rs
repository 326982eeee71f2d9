//! bpf(2) for what aya has no call for: programs of a few instructions, and runs of any program
//! on a made-up packet. Layouts and numbers are those of `include/uapi/linux/bpf.h`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `TC_ACT_UNSPEC`: on with the next program or filter.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub const DROP: i32 = 2;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

const SCHED_CLS: u32 = 3;
const PROG_ARRAY: u32 = 3;

/// `struct bpf_insn`; registers: destination in the low, source in the high four bits.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const MOVE_IMMEDIATE: u8 = 0xb7;
    /// `*(u32 *)(destination + offset) = source`.
    const STORE_WORD: u8 = 0x63;
    /// The first half of a 64-bit immediate; the second has no code.
    const LOAD_DOUBLE: u8 = 0x18;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;

    const fn new(code: u8, registers: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// `register = immediate`.
    const fn set(register: u8, immediate: i32) -> Self {
        Self::new(Self::MOVE_IMMEDIATE, register, 0, immediate)
    }

    const fn exit() -> Self {
        Self::new(Self::EXIT, 0, 0, 0)
    }
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
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
struct LinkCreate {
    program: u32,
    device: u32,
    hook: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// `BPF_TCX_*`: hooks of a device, since Linux 6.6.
#[derive(Clone, Copy)]
pub enum Hook {
    Ingress = 46,
    Egress = 47,
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
pub struct Program {
    fd: OwnedFd,
    /// The array through which it goes on; one that no process holds forgets its programs.
    _next: Option<OwnedFd>,
}

impl Program {
    /// A program that returns [`NEXT`] and does nothing else.
    pub fn nothing() -> io::Result<Self> {
        Self::load(&[Instruction::set(0, NEXT), Instruction::exit()])
    }

    /// A program that writes these words where stamps are (`cb[3]` and `cb[4]`), and goes on as
    /// `next`. `next` may take the stamp off, so each of many runs has to begin with it anew.
    pub fn stamped(next: &Self, words: [u32; 2]) -> io::Result<Self> {
        const CB_3: i16 = 60;
        const CB_4: i16 = 64;
        const TAIL_CALL: i32 = 12;
        /// A source register that says that the immediate is a map's descriptor.
        const MAP_FD: u8 = 1 << 4;
        let map = program_array(next)?;
        let program = Self::load(&[
            Instruction::set(2, words[0] as i32),
            Instruction::new(Instruction::STORE_WORD, 0x21, CB_3, 0),
            Instruction::set(2, words[1] as i32),
            Instruction::new(Instruction::STORE_WORD, 0x21, CB_4, 0),
            Instruction::new(Instruction::LOAD_DOUBLE, MAP_FD | 2, 0, map.as_raw_fd()),
            Instruction::new(0, 0, 0, 0),
            Instruction::set(3, 0),
            Instruction::new(Instruction::CALL, 0, 0, TAIL_CALL),
            // Reached only where the call failed: no verdict that anybody expects.
            Instruction::set(0, i32::MAX),
            Instruction::exit(),
        ])?;
        Ok(Self {
            _next: Some(map),
            ..program
        })
    }

    /// `fd` is a new descriptor, as the command returned it.
    fn new(fd: i32) -> Self {
        Self {
            // SAFETY: nobody else has it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            _next: None,
        }
    }

    fn load(instructions: &[Instruction]) -> io::Result<Self> {
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
        Ok(Self::new(fd))
    }

    pub fn pinned(pin: &Path) -> io::Result<Self> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut get = Get {
            path: path.as_ptr() as u64,
            ..Get::default()
        };
        // SAFETY: as in `load`.
        let fd = unsafe { bpf(OBJ_GET, &mut get) }?;
        Ok(Self::new(fd))
    }

    /// Has a device, an ifindex of the caller's namespace, run the program until the link is closed.
    pub fn attach(&self, device: u32, hook: Hook) -> io::Result<OwnedFd> {
        let mut create = LinkCreate {
            program: self.fd.as_raw_fd() as u32,
            device,
            hook: hook as u32,
            ..LinkCreate::default()
        };
        // SAFETY: as in `load`.
        let link = unsafe { bpf(LINK_CREATE, &mut create) }?;
        // SAFETY: the command returns a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }

    /// Runs the program on a frame, `repeat` times, as if `device` (an ifindex of the caller's
    /// namespace) sent or received it. Returns the verdict and the time of one run in whole
    /// nanoseconds, as the kernel measured it.
    pub fn run(&self, frame: &[u8], device: u32, repeat: u32) -> io::Result<(i32, u32)> {
        let mut context = [0_u32; Self::CONTEXT / 4];
        context[Self::IFINDEX / 4] = device;
        let mut run = TestRun {
            program: self.fd.as_raw_fd() as u32,
            data_in: frame.as_ptr() as u64,
            data_in_size: frame.len() as u32,
            context_in: context.as_ptr() as u64,
            context_in_size: Self::CONTEXT as u32,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: as in `load`; no output is asked for.
        unsafe { bpf(PROG_TEST_RUN, &mut run) }?;
        Ok((run.verdict as i32, run.duration))
    }

    /// Size and fields of `struct __sk_buff`.
    const CONTEXT: usize = 192;
    const IFINDEX: usize = 40;
}

/// A map for tail calls, with this program as its only one.
fn program_array(program: &Program) -> io::Result<OwnedFd> {
    let mut create = MapCreate {
        map_type: PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..MapCreate::default()
    };
    // SAFETY: as in `Program::load`.
    let map = unsafe { bpf(MAP_CREATE, &mut create) }?;
    // SAFETY: the command returns a new descriptor.
    let map = unsafe { OwnedFd::from_raw_fd(map) };
    let key = 0_u32;
    let value = program.fd.as_raw_fd() as u32;
    let mut update = MapUpdate {
        map: map.as_raw_fd() as u32,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        ..MapUpdate::default()
    };
    // SAFETY: as in `Program::load`.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut update) }?;
    Ok(map)
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
