//! A machine with a real kernel and the host's own files, for one command.
//!
//! QEMU boots a kernel of the matrix. The host's root is its root, read-only under an overlay in
//! memory: every program of the host is there, nothing can be harmed, and no network card leads
//! anywhere. Control, the command's output and the kernel's log each have a channel of their own,
//! so output comes out as the command wrote it, and the exit status cannot be mistaken.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::{prctl, signal::Signal, termios};
use nix::unistd::{Pid, getpid, getppid};
use signal_hook::consts::SIGWINCH;

use crate::cargo::workspace;
use crate::initramfs;
use crate::kernels::Kernel;
use crate::setup::{VmTools, cache};

/// From power-on to the init's hello: 2 to 4 s under emulation on a machine that is not busy.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// KVM that works boots in well under a second; KVM that does not may hang for ever.
const KVM_DEADLINE: Duration = Duration::from_secs(6);

/// Early boot under emulation can lose a timer tick and die. That is no fault of what is tested, so
/// such a boot is tried again; nothing later is.
const BOOTS: u32 = 3;

/// How much of the kernel's log is kept.
const LOG_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the VM with kernel {kernel} never came up: {reason}\n{log}")]
    NeverUp {
        kernel: String,
        reason: &'static str,
        log: String,
    },
    #[error("the VM with kernel {kernel} died: {reason}\n{log}")]
    Died {
        kernel: String,
        reason: &'static str,
        log: String,
    },
    #[error(transparent)]
    Host(#[from] anyhow::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Host(error.into())
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Error::Host(error.into())
    }
}

/// Which of a command's outputs some bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// A command for a VM, which runs it as root in the host's folder of the same name.
#[derive(Default)]
pub struct Job {
    pub command: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
    /// Folders that come before the rest of PATH.
    pub path: Vec<PathBuf>,
}

pub struct Vm {
    kernel: Kernel,
    initramfs: PathBuf,
    accelerator: &'static str,
    boot_deadline: Duration,
    deadline: Option<Duration>,
}

impl Vm {
    /// A VM that is ready to start. `deadline` bounds a whole run, from power-on.
    pub fn new(kernel: Kernel, deadline: Option<Duration>, _: &VmTools) -> anyhow::Result<Vm> {
        let initramfs = initramfs::ready(&kernel)?;
        let accelerator = "kvm";
        let mut vm = Vm {
            kernel,
            initramfs,
            accelerator,
            boot_deadline: KVM_DEADLINE,
            deadline,
        };
        vm.accelerator = if vm.kvm_works()? {
            "kvm"
        } else {
            // One thread for all CPUs: where each has its own, one can run into an instruction that
            // another is patching, and the kernel dies of it (int3 in netif_rx_internal).
            "tcg,thread=single"
        };
        vm.boot_deadline = BOOT_DEADLINE;
        Ok(vm)
    }

    /// Boots, runs the job with no input, and hands on its output as it comes.
    ///
    /// Returns the job's exit status; a signal's is 128 + its number.
    pub fn run(
        &self,
        job: &Job,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<u8, Error> {
        self.retried(|| self.boot(&self.script(job, None), None, output))
    }

    /// Boots and runs the job on this terminal. Returns its exit status.
    pub fn interactive(&self, job: &Job) -> Result<u8, Error> {
        let mut console = Console::open()?;
        let script = self.script(job, Some(window_size()));
        let mut print = |_, bytes: &[u8]| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        };
        self.retried(|| self.boot(&script, Some(&mut console), &mut print))
    }

    fn retried(&self, mut boot: impl FnMut() -> Result<u8, Error>) -> Result<u8, Error> {
        for _ in 1..BOOTS {
            match boot() {
                Err(Error::NeverUp { kernel, reason, .. }) => {
                    eprintln!("the VM with kernel {kernel} did not come up ({reason}): once more");
                }
                done => return done,
            }
        }
        boot()
    }

    /// Whether KVM boots this VM, tried once per host kernel.
    fn kvm_works(&self) -> anyhow::Result<bool> {
        if fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Ok(false);
        }
        let known = cache()?.join("kvm");
        let host = nix::sys::utsname::uname()?
            .release()
            .to_string_lossy()
            .into_owned();
        let verdict =
            |works: bool| format!("{} on {host}\n", if works { "works" } else { "fails" });
        let before = fs::read_to_string(&known).unwrap_or_default();
        if let Some(works) = [true, false]
            .into_iter()
            .find(|works| before == verdict(*works))
        {
            return Ok(works);
        }
        eprintln!("==> Trying KVM");
        let job = Job {
            command: vec!["true".into()],
            ..Job::default()
        };
        let done = self.boot(&self.script(&job, None), None, &mut |_, _| Ok(()));
        let works = matches!(done, Ok(0));
        fs::write(known, verdict(works))?;
        eprintln!("    KVM {}", verdict(works).trim_end());
        Ok(works)
    }

    /// What the guest sources: the job, and what its init must know.
    fn script(&self, job: &Job, console: Option<(u16, u16)>) -> Vec<u8> {
        let mut script = Vec::new();
        let mut line = |words: &[&[u8]]| {
            script.extend(words.concat());
            script.push(b'\n');
        };
        let quote = |text: &[u8]| {
            // A NUL cannot be in an argument, a path or an environment variable.
            shlex::bytes::try_quote(text)
                .expect("no NUL in it")
                .into_owned()
        };
        let (rows, columns) = console.unwrap_or_default();
        let settings = format!(
            "CONSOLE={}\nROWS={rows}\nCOLUMNS={columns}\nHOSTNAME=ipvlan-{}",
            console.is_some() as u8,
            self.kernel.line,
        );
        line(&[settings.as_bytes()]);
        line(&[
            b"MODULES=",
            &quote(self.kernel.modules().as_os_str().as_bytes()),
        ]);
        let here = std::env::current_dir().unwrap_or_else(|_| workspace().to_owned());
        let kept: Vec<_> = [
            Some(workspace().to_owned()),
            cache().ok(),
            Some(here.clone()),
        ]
        .into_iter()
        .flatten()
        .chain(job.path.iter().cloned())
        .chain(
            std::env::current_exe()
                .ok()
                .and_then(|exe| Some(exe.parent()?.to_owned())),
        )
        .map(|path| path.into_os_string())
        .collect();
        line(&[b"KEEP=", &quote(kept.join("\n".as_ref()).as_bytes())]);
        line(&[b"job() {"]);
        line(&[b"cd ", &quote(here.as_os_str().as_bytes()), b" || cd /"]);
        for (name, value) in &job.env {
            line(&[b"export ", name.as_bytes(), b"=", &quote(value.as_bytes())]);
        }
        for folder in job.path.iter().rev() {
            line(&[b"PATH=", &quote(folder.as_os_str().as_bytes()), b":$PATH"]);
        }
        let words: Vec<_> = job
            .command
            .iter()
            .map(|word| quote(word.as_bytes()))
            .collect();
        line(&[b"exec ", &words.join(b" ".as_slice())]);
        line(&[b"}"]);
        script
    }

    /// One boot, from power-on to the job's exit status.
    fn boot(
        &self,
        script: &[u8],
        mut console: Option<&mut Console>,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<u8, Error> {
        let mut machine = Machine::start(self)?;
        let began = Instant::now();
        let mut up = false;
        let mut control = Vec::new();
        let mut log = Vec::new();
        let mut typed = Vec::new();
        let died = |up: bool, reason, log: &[u8]| {
            let kernel = self.kernel.release.clone();
            let log = indented_tail(log);
            if up {
                Error::Died {
                    kernel,
                    reason,
                    log,
                }
            } else {
                Error::NeverUp {
                    kernel,
                    reason,
                    log,
                }
            }
        };
        loop {
            let limit = if up {
                self.deadline
            } else {
                Some(self.boot_deadline)
            };
            let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            if left == Some(Duration::ZERO) {
                machine.drain_log(&mut log)?;
                return Err(died(up, "it took too long", &log));
            }
            let ready = machine.wait(left, console.as_deref(), !typed.is_empty())?;

            if ready.log {
                machine.drain_log(&mut log)?;
            }
            if ready.output {
                machine.drain_output(output)?;
            }
            if let Some(console) = console.as_deref_mut() {
                if ready.resized {
                    let (rows, columns) = console.new_size()?;
                    machine
                        .control
                        .write_all(format!("{rows} {columns}\n").as_bytes())?;
                }
                if ready.typed {
                    console.read(&mut typed)?;
                }
            }
            if !typed.is_empty() {
                machine.type_in(&mut typed)?;
            }
            if !ready.control {
                continue;
            }
            if !drain(&machine.control, |bytes| {
                control.extend_from_slice(bytes);
                Ok(())
            })? {
                machine.drain_output(output)?;
                machine.drain_log(&mut log)?;
                return Err(died(up, "its kernel stopped", &log));
            }
            while let Some(end) = control.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = control.drain(..=end).collect();
                match line.trim_ascii() {
                    b"ready" => {
                        let size = format!("{}\n", script.len());
                        machine
                            .control
                            .write_all(&[size.as_bytes(), script].concat())?;
                    }
                    b"hello" => {
                        up = true;
                        if let Some(console) = console.as_deref_mut() {
                            console.take_over()?;
                        }
                        if std::env::var_os("IPVLAN_CTL_VM_TIMES").is_some() {
                            eprintln!("hello after {:.2} s", began.elapsed().as_secs_f32());
                        }
                    }
                    line => {
                        let status = line
                            .strip_prefix(b"exit ")
                            .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok())
                            .context("the guest said something else than its protocol has")?;
                        machine.drain_output(output)?;
                        return Ok(status);
                    }
                }
            }
        }
    }
}

/// The last lines of a kernel's log, set off from our own words.
fn indented_tail(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    let lines: Vec<_> = log.lines().map(str::trim_end).collect();
    let tail = &lines[lines.len().saturating_sub(40)..];
    if tail.is_empty() {
        return "    (its kernel logged nothing)".into();
    }
    tail.iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A running QEMU and our ends of its channels. It ends with this value, and with our process.
struct Machine {
    qemu: Child,
    control: UnixStream,
    out: UnixStream,
    err: UnixStream,
    console: UnixStream,
    log: UnixStream,
}

/// Which channels have something.
struct Ready {
    control: bool,
    output: bool,
    log: bool,
    typed: bool,
    resized: bool,
}

impl Machine {
    fn start(vm: &Vm) -> Result<Machine, Error> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-m", "4096", "-smp", "2", "-cpu", "max", "-nic", "none"])
        .args(["-accel", vm.accelerator])
        .arg("-kernel")
        .arg(vm.kernel.image())
        .arg("-initrd")
        .arg(&vm.initramfs)
        // Whether timer interrupts come is not in doubt, but a busy host can make it seem so.
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check",
        ])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ])
        .args(["-device", "virtio-serial-pci"])
        // Two network cards on one wire. They are no links until their driver is loaded.
        .args(["-netdev", "hubport,id=near,hubid=0"])
        .args(["-device", "e1000,netdev=near,romfile="])
        .args(["-netdev", "hubport,id=far,hubid=0"])
        .args(["-device", "e1000,netdev=far,romfile="]);

        let mut theirs = Vec::new();
        let mut channel = |name: &str, device: &[&str]| -> Result<UnixStream, Error> {
            let (our, their) = UnixStream::pair()?;
            our.set_nonblocking(true)?;
            let fd = their.as_raw_fd();
            qemu.args(["-chardev", &format!("socket,id={name},fd={fd}")])
                .args(device);
            theirs.push(their);
            Ok(our)
        };
        let log = channel("log", &["-serial", "chardev:log"])?;
        let console = channel("console", &["-device", "virtconsole,chardev=console,nr=0"])?;
        let control = channel(
            "control",
            &["-device", "virtserialport,chardev=control,nr=1"],
        )?;
        let out = channel("out", &["-device", "virtserialport,chardev=out,nr=2"])?;
        let err = channel("err", &["-device", "virtserialport,chardev=err,nr=3"])?;

        // What QEMU itself has to say belongs beside the kernel's log.
        let qemu_says = theirs[0].try_clone()?;

        let inherited: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let parent = getpid();
        // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
        unsafe {
            qemu.pre_exec(move || stay_with(parent, &inherited));
        }
        let qemu = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(OwnedFd::from(qemu_says))
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        Ok(Machine {
            qemu,
            control,
            out,
            err,
            console,
            log,
        })
    }

    /// Waits until a channel has something, or for `limit`.
    fn wait(
        &self,
        limit: Option<Duration>,
        console: Option<&Console>,
        typing: bool,
    ) -> Result<Ready, Error> {
        let typed = if typing {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        let mut fds = vec![
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.out.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.err.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.console.as_fd(), typed),
            PollFd::new(self.log.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(console) = console {
            fds.push(PollFd::new(console.resized.as_fd(), PollFlags::POLLIN));
            // What was typed before must be taken first: the guest sets the pace.
            if let Some(stdin) = console.stdin().filter(|_| !typing) {
                fds.push(PollFd::new(stdin, PollFlags::POLLIN));
            }
        }
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            // Rounded up, so that a wait never ends just short of its limit.
            PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        Ok(Ready {
            control: ready(0),
            output: ready(1) || ready(2) || ready(3),
            log: ready(4),
            resized: ready(5),
            typed: ready(6),
        })
    }

    fn drain_output(
        &self,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        drain(&self.out, |bytes| output(Stream::Out, bytes))?;
        drain(&self.console, |bytes| output(Stream::Out, bytes))?;
        drain(&self.err, |bytes| output(Stream::Err, bytes))?;
        Ok(())
    }

    fn drain_log(&self, log: &mut Vec<u8>) -> Result<(), Error> {
        drain(&self.log, |bytes| {
            log.extend_from_slice(bytes);
            log.drain(..log.len().saturating_sub(LOG_BYTES));
            Ok(())
        })?;
        Ok(())
    }

    /// Gives the guest's console as much as it takes now.
    fn type_in(&mut self, typed: &mut Vec<u8>) -> Result<(), Error> {
        match self.console.write(typed) {
            Ok(taken) => drop(typed.drain(..taken)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself already; either way it is gone after the wait.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// In the child: dies with the thread that started it, and keeps the channels over exec.
fn stay_with(parent: Pid, inherited: &[RawFd]) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::Error::other("xtask is gone"));
    }
    for fd in inherited {
        // SAFETY: the parent holds these open until the child has been started.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// Takes all there is. Returns false when the other end has closed.
fn drain(
    mut stream: &UnixStream,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => take(&buffer[..count])?,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(true),
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset => return Ok(false),
                _ => return Err(error),
            },
        }
    }
}

/// Our side of an interactive VM: this process's standard input and its terminal.
struct Console {
    stdin: Option<io::Stdin>,
    resized: UnixStream,
    /// How the terminal was, while it is raw.
    before: Option<termios::Termios>,
}

impl Console {
    fn open() -> Result<Console, Error> {
        let (resized, wake) = UnixStream::pair()?;
        resized.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGWINCH, wake)?;
        Ok(Console {
            stdin: Some(io::stdin()),
            resized,
            before: None,
        })
    }

    fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(AsFd::as_fd)
    }

    /// From here on every key is the guest's. Before, it would be lost.
    fn take_over(&mut self) -> Result<(), Error> {
        self.stdin = Some(io::stdin());
        let stdin = io::stdin();
        if stdin.is_terminal() && self.before.is_none() {
            let before = termios::tcgetattr(&stdin)?;
            let mut raw = before.clone();
            termios::cfmakeraw(&mut raw);
            termios::tcsetattr(&stdin, termios::SetArg::TCSANOW, &raw)?;
            self.before = Some(before);
        }
        Ok(())
    }

    fn read(&mut self, typed: &mut Vec<u8>) -> Result<(), Error> {
        const END_OF_FILE: u8 = 4;
        let mut buffer = [0; 4096];
        let Some(stdin) = &self.stdin else {
            return Ok(());
        };
        match nix::unistd::read(stdin, &mut buffer)? {
            0 => {
                typed.push(END_OF_FILE);
                self.stdin = None;
            }
            count => typed.extend_from_slice(&buffer[..count]),
        }
        Ok(())
    }

    fn new_size(&self) -> Result<(u16, u16), Error> {
        drain(&self.resized, |_| Ok(()))?;
        Ok(window_size())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing is left to do about a terminal that is gone.
            let _ = termios::tcsetattr(io::stdin(), termios::SetArg::TCSANOW, before);
        }
    }
}

/// The terminal's rows and columns.
fn window_size() -> (u16, u16) {
    console::Term::stdout().size_checked().unwrap_or((24, 80))
}
