//! The archive a VM boots from: busybox, the modules that reach the host's root, and ipvlan's.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::kernels::{Kernel, decompressed};
use crate::progress::step;

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
const GUEST: &str = include_str!("guest.sh");

/// Loaded before anything runs. All others come by modprobe, as on any host.
const MODULES: [&str; 12] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "ipvlan",
    "dummy",
    "8021q",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
];

/// The archive for a kernel, made if the cache has none of this content.
pub fn ready(kernel: &Kernel) -> Result<PathBuf> {
    let busybox = fs::metadata(BUSYBOX).context("busybox-static")?;
    let mut hasher = DefaultHasher::new();
    (&kernel.release, INIT, GUEST, MODULES).hash(&mut hasher);
    (busybox.len(), busybox.modified()?).hash(&mut hasher);
    let archive = kernel
        .folder
        .join(format!("initramfs-{:016x}", hasher.finish()));
    if !archive.is_file() {
        step(
            format!("Making the initramfs of kernel {}", kernel.line),
            |_| make(kernel, &archive),
        )?;
    }
    Ok(archive)
}

fn make(kernel: &Kernel, archive: &Path) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix(".initramfs-")
        .tempdir_in(&kernel.folder)?;
    let root = work.path().join("root");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("modules"))?;
    fs::copy(BUSYBOX, root.join("bin/busybox"))?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("guest.sh"), GUEST)?;

    let mut order = String::new();
    for file in kernel.module_files(&MODULES)? {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .context("a module's name")?;
        let plain = name.split(".ko").next().expect("split has a first part");
        fs::write(
            root.join("modules").join(plain),
            decompressed(&fs::read(&file)?)?,
        )?;
        // The driver of dummy makes a link by itself unless told not to.
        let parameters = if plain == "dummy" {
            " numdummies=0"
        } else {
            ""
        };
        order += &format!("{plain}{parameters}\n");
    }
    fs::write(root.join("modules/order"), order)?;

    let new = work.path().join("archive");
    let mut find = Command::new("find")
        .arg(".")
        .current_dir(&root)
        .stdout(Stdio::piped())
        .spawn()?;
    let cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(&root)
        .stdin(find.stdout.take().expect("stdout is piped"))
        .stdout(fs::File::create(&new)?)
        .status()?;
    ensure!(
        find.wait()?.success() && cpio.success(),
        "cpio failed on the initramfs"
    );

    for old in fs::read_dir(&kernel.folder)? {
        let old = old?;
        if old.file_name().to_string_lossy().starts_with("initramfs-") {
            fs::remove_file(old.path())?;
        }
    }
    fs::rename(new, archive)?;
    Ok(())
}
