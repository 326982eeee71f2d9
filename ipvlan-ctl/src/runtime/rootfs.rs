//! The mounts a container sees.
//!
//! What is needed of the host is taken first, as detached mounts held by descriptor; then the
//! new root is pivoted into, and every later path is looked up inside it, so a symlink in it
//! cannot lead to the host's files.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};
use thiserror::Error;

use super::etc;

#[derive(Debug, Error)]
#[error("cannot {step}: {source}")]
pub struct RootfsError {
    step: String,
    source: io::Error,
}

/// Names the step that failed.
trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, RootfsError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, RootfsError> {
        self.map_err(|e| RootfsError {
            step: step(),
            source: e.into(),
        })
    }
}

/// Device nodes taken from the host's /dev; none of them reaches hardware.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Parts of /proc and /sys that tell about or change the host. Root in the container owns
/// these files, so dropped capabilities alone do not guard them.
const HIDDEN: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Gives this process, the first of its new PID and mount namespaces, its root: `rootfs` as it
/// is, or else the host's root read-only with /tmp and /run of its own. Either has /proc, /sys,
/// /dev of its own and the files of [`etc::FILES`] out of `state`.
pub(super) fn enter(rootfs: Option<&Path>, state: &Path) -> Result<(), RootfsError> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step(|| "make mounts private".into())?;

    let root = clone_mount(rootfs.unwrap_or(Path::new("/")), Depth::Tree)?;
    // No device nodes either: without a device cgroup a container's root could make one of the
    // host's disk wherever it may write.
    let read_only = match rootfs {
        Some(_) => 0,
        None => libc::MOUNT_ATTR_RDONLY,
    };
    set_attributes(
        root.as_fd(),
        read_only | libc::MOUNT_ATTR_NODEV,
        Depth::Tree,
    )?;
    let etc_files = etc::FILES
        .map(|name| {
            let file = clone_mount(&state.join(name), Depth::One)?;
            set_attributes(
                file.as_fd(),
                libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID,
                Depth::One,
            )?;
            Ok((Path::new("/etc").join(name), file))
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let devices = DEVICES
        .map(|name| {
            let path = Path::new("/dev").join(name);
            Ok((path.clone(), clone_mount(&path, Depth::One)?))
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;

    // Any folder will do to mount the root on: only this namespace sees it, and not for long.
    pivot_into(root.as_fd(), state)?;
    if rootfs.is_some() {
        make_mount_points()?;
    }

    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_new("proc", "/proc", quiet, "")?;
    // Read-only by mount and not by superblock, which others may share.
    mount_new(
        "sysfs",
        "/sys",
        quiet | MountAttrFlags::MOUNT_ATTR_RDONLY,
        "",
    )?;
    mount_dev(devices)?;
    mount_etc(etc_files)?;
    if rootfs.is_none() {
        let own = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        mount_new("tmpfs", "/tmp", own, "mode=1777")?;
        // The host's /run holds the sockets of its daemons, which read-only does not guard.
        mount_new("tmpfs", "/run", own, "mode=755")?;
    }
    for path in READ_ONLY.map(Path::new) {
        if let Some(mount) = clone_if_there(path)? {
            set_attributes(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, Depth::One)?;
            place(mount.as_fd(), path)?;
        }
    }
    for path in HIDDEN.map(Path::new) {
        hide(path)?;
    }
    Ok(())
}

/// Makes what is mounted on later, where the root lacks it. What is there already and is no
/// folder, [`place`] refuses.
fn make_mount_points() -> Result<(), RootfsError> {
    for path in ["/proc", "/sys", "/dev", "/etc"] {
        match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.step(|| format!("make {path}"))?,
        }
    }
    for name in etc::FILES {
        let path = Path::new("/etc").join(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat2(CWD, &path, flags, Mode::from(0o644), INSIDE) {
            Err(rustix::io::Errno::EXIST) => {}
            other => drop(other.step(|| format!("make {}", path.display()))?),
        }
    }
    Ok(())
}

fn pivot_into(root: BorrowedFd, on: &Path) -> Result<(), RootfsError> {
    place(root, on)?;
    nix::unistd::chdir(on).step(|| format!("enter {}", on.display()))?;
    // The old root ends up on top of the new one, where "." still names it.
    nix::unistd::pivot_root(".", ".").step(|| "pivot into the new root".into())?;
    unmount(".", UnmountFlags::DETACH).step(|| "leave the old root".into())?;
    nix::unistd::chdir("/").step(|| "enter /".into())
}

fn mount_dev(devices: Vec<(PathBuf, OwnedFd)>) -> Result<(), RootfsError> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_new("tmpfs", "/dev", quiet, "mode=755,size=64k")?;
    for (path, device) in devices {
        fs::write(&path, "").step(|| format!("make {}", path.display()))?;
        place(device.as_fd(), &path)?;
    }
    for (target, link) in DEVICE_LINKS {
        symlink(target, link).step(|| format!("make {link}"))?;
    }
    for directory in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        fs::create_dir(directory).step(|| format!("make {directory}"))?;
    }
    mount_new(
        "devpts",
        "/dev/pts",
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    mount_new("tmpfs", "/dev/shm", quiet, "mode=1777,size=64m")?;
    mount_new("mqueue", "/dev/mqueue", quiet, "")
}

/// Lays each file over its path. A symlink is covered itself, wherever it points and whether
/// or not that exists: systems link resolv.conf to files that only some daemon makes.
fn mount_etc(files: Vec<(PathBuf, OwnedFd)>) -> Result<(), RootfsError> {
    let missing: Vec<&Path> = files
        .iter()
        .map(|(path, _)| path.as_path())
        .filter(|path| path.symlink_metadata().is_err())
        .collect();
    if !missing.is_empty() {
        add_to_etc(&missing)?;
    }
    for (path, file) in &files {
        place(file.as_fd(), path)?;
    }
    Ok(())
}

/// Makes empty files in a view of /etc, leaving the one below as it is.
fn add_to_etc(files: &[&Path]) -> Result<(), RootfsError> {
    // The overlay keeps its own hold on the layers: the folder they are made in can go.
    let stage = "/tmp";
    mount_new("tmpfs", stage, MountAttrFlags::MOUNT_ATTR_NODEV, "mode=700")?;
    for layer in ["/tmp/upper", "/tmp/work"] {
        fs::create_dir(layer).step(|| format!("make {layer}"))?;
    }
    for file in files.iter().filter_map(|file| file.file_name()) {
        let path = Path::new("/tmp/upper").join(file);
        fs::write(&path, "").step(|| format!("make {}", path.display()))?;
    }
    mount_new(
        "overlay",
        "/etc",
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY,
        "lowerdir=/etc,upperdir=/tmp/upper,workdir=/tmp/work",
    )?;
    unmount(stage, UnmountFlags::DETACH).step(|| format!("unmount {stage}"))
}

/// Covers a path with nothing; one that this kernel lacks is fine.
fn hide(path: &Path) -> Result<(), RootfsError> {
    match path.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).step(|| format!("hide {}", path.display())),
        Ok(found) if found.is_dir() => {
            let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC
                | MountAttrFlags::MOUNT_ATTR_RDONLY;
            mount_new("tmpfs", path, flags, "mode=755")
        }
        Ok(_) => place(
            clone_mount(Path::new("/dev/null"), Depth::One)?.as_fd(),
            path,
        ),
    }
}

/// Mounts a new file system of the named kind, with options as mount(8) takes them.
fn mount_new(
    kind: &str,
    on: impl AsRef<Path>,
    attributes: MountAttrFlags,
    options: &str,
) -> Result<(), RootfsError> {
    let on = on.as_ref();
    let make = || {
        let file_system = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&file_system, key, value)?,
                None => fsconfig_set_flag(&file_system, option)?,
            }
        }
        fsconfig_create(&file_system)?;
        fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let mount = make().step(|| format!("make a {kind} for {}", on.display()))?;
    place(mount.as_fd(), on)
}

#[derive(Clone, Copy, PartialEq)]
enum Depth {
    /// One mount.
    One,
    /// It and all mounts below.
    Tree,
}

/// A detached mount of `path`.
fn clone_mount(path: &Path, depth: Depth) -> Result<OwnedFd, RootfsError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, depth == Depth::Tree);
    open_tree(CWD, path, flags).step(|| format!("clone the mount of {}", path.display()))
}

fn clone_if_there(path: &Path) -> Result<Option<OwnedFd>, RootfsError> {
    match path
        .try_exists()
        .step(|| format!("look at {}", path.display()))?
    {
        true => clone_mount(path, Depth::One).map(Some),
        false => Ok(None),
    }
}

/// How paths that the container may have a hand in are looked up: another one may share its root
/// and change it under us.
const INSIDE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// Attaches a detached mount to `on`, on the way to which no symlink is followed; one that is
/// `on` itself can be covered by a file.
fn place(mount: BorrowedFd, on: &Path) -> Result<(), RootfsError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let attach = || {
        let point = openat2(CWD, on, flags, Mode::empty(), INSIDE)?;
        let empty =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(mount, "", &point, "", empty)
    };
    attach().step(|| format!("mount over {}", on.display()))
}

/// This program, from where nobody can write it: what is executed in a container can be reached
/// from there by /proc/PID/exe, and must not be a way to the host's own file. It takes no
/// `#!/proc/self/exe` more than that to be executed by the container's will.
pub(super) fn own_program() -> Result<OwnedFd, RootfsError> {
    let program = clone_mount(Path::new("/proc/self/exe"), Depth::One)?;
    set_attributes(program.as_fd(), libc::MOUNT_ATTR_RDONLY, Depth::One)?;
    Ok(program)
}

/// Adds `MOUNT_ATTR_*` bits to a mount.
fn set_attributes(mount: BorrowedFd, add: u64, depth: Depth) -> Result<(), RootfsError> {
    let attributes = libc::mount_attr {
        attr_set: add,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = match depth {
        Depth::One => 0,
        Depth::Tree => libc::AT_RECURSIVE,
    };
    // SAFETY: mount_setattr reads an empty string and a mount_attr of the size given, and both
    // live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
    .step(|| "restrict a mount".into())
}
