//! The kernels of the test matrix: Debian's images, unpacked into the cache and never installed.

use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::apt::Archive;
use crate::progress::{output, step};
use crate::setup::cache;

/// One line of kernels; the newest that Debian has of it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Line {
    /// Before TCX: clsact only
    #[value(name = "6.1")]
    V6_1,
    /// TCX and netkit
    #[default]
    #[value(name = "6.12")]
    V6_12,
    /// The newest series
    #[value(name = "7", alias = "7.x")]
    V7,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Line::V6_1 => "6.1",
            Line::V6_12 => "6.12",
            Line::V7 => "7",
        })
    }
}

/// Where Debian keeps a line of kernels.
struct Origin {
    suites: &'static [&'static str],
    /// Matches the image packages of the generic flavour, which alone has 9p and ipvlan both.
    pattern: &'static str,
    image: &'static str,
    /// The packages of the modules, where the image has none: the first part of their names.
    modules: &'static [&'static str],
}

impl Line {
    fn origin(self) -> Origin {
        match self {
            Line::V6_1 => Origin {
                suites: &["bookworm", "bookworm-security"],
                pattern: r"^linux-image-6\.1\.0-[0-9]+-amd64$",
                image: "linux-image-",
                modules: &[],
            },
            Line::V6_12 => Origin {
                suites: &["bookworm-backports"],
                pattern: r"^linux-image-6\.12\.[0-9]+\+deb12(\.[0-9]+)?-amd64$",
                image: "linux-image-",
                modules: &[],
            },
            Line::V7 => Origin {
                suites: &["trixie-backports"],
                pattern: r"^linux-binary-7\.[0-9.]+\+deb13(\.[0-9]+)?-amd64$",
                image: "linux-binary-",
                modules: &["linux-modules-", "linux-base-"],
            },
        }
    }
}

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub line: Line,
    /// What `uname -r` says.
    pub release: String,
    pub folder: PathBuf,
}

impl Kernel {
    /// The kernel of a line, downloaded if the cache lacks it.
    pub fn ready(line: Line) -> Result<Kernel> {
        let folder = cache()?.join("kernels").join(line.to_string());
        if !folder.is_dir() {
            download(line, &folder)?;
        }
        let release = fs::read_to_string(folder.join("release"))
            .with_context(|| format!("a broken kernel cache: delete {}", folder.display()))?;
        Ok(Kernel {
            line,
            release,
            folder,
        })
    }

    /// The kernel, decompressed: under emulation, that is most of a boot's early part.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// The files of some modules and of all they need, in an order to load them in.
    pub fn module_files(&self, modules: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in modules {
            let show = output(modprobe().arg("--dirname").arg(&self.folder).args([
                "--set-version",
                &self.release,
                "--show-depends",
                module,
            ]))?;
            for line in show.lines() {
                // A module that this kernel has built in says `builtin NAME`.
                let Some(insmod) = line.strip_prefix("insmod ") else {
                    continue;
                };
                let file = PathBuf::from(insmod.split(' ').next().unwrap_or(insmod));
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// The user's PATH need not have /sbin.
fn modprobe() -> Command {
    Command::new("/sbin/modprobe")
}

fn download(line: Line, folder: &Path) -> Result<()> {
    let origin = line.origin();
    let parent = folder.parent().expect("the folder is in the cache");
    fs::create_dir_all(parent)?;
    // Whatever fails in here leaves nothing that looks like a kernel.
    let work = tempfile::Builder::new()
        .prefix(".download-")
        .tempdir_in(parent)?;
    step(format!("Fetching kernel {line}"), |step| {
        let archive = Archive::open(work.path().join("apt"), origin.suites, step)?;
        let newest = archive
            .names(origin.pattern)?
            .into_iter()
            .max_by_key(|name| numbers(name));
        let newest = newest.with_context(|| format!("Debian has no kernel {line} (anymore)"))?;
        let release = newest
            .strip_prefix(origin.image)
            .expect("the pattern begins with it");

        let root = work.path().join("root");
        archive.unpack(&newest, &root, step)?;
        for modules in origin.modules {
            archive.unpack(&format!("{modules}{release}"), &root, step)?;
        }

        // From kernel 7 on Debian's packages have all under /usr.
        let kernel = work.path().join("kernel");
        let modules = kernel.join("lib/modules").join(release);
        fs::create_dir_all(kernel.join("lib/modules"))?;
        let lib = if root.join("lib").is_dir() {
            root.join("lib")
        } else {
            root.join("usr/lib")
        };
        fs::rename(lib.join("modules").join(release), &modules)?;
        let boot = root.join("boot").join(format!("vmlinuz-{release}"));
        let image = if boot.is_file() {
            boot
        } else {
            modules.join("vmlinuz")
        };
        fs::write(kernel.join("vmlinux"), unpack_image(&fs::read(&image)?)?)?;
        fs::remove_file(image)?;
        if !modules.join("modules.dep").is_file() {
            step.run(
                Command::new("/sbin/depmod")
                    .arg("--basedir")
                    .arg(&kernel)
                    .arg(release),
            )?;
        }
        fs::write(kernel.join("release"), release)?;
        ensure!(
            modules.join("modules.dep").is_file(),
            "depmod wrote no modules.dep"
        );
        fs::rename(&kernel, folder)?;
        Ok(())
    })
}

/// The ELF kernel inside a bzImage, by the fields of its setup header. QEMU starts it at its PVH
/// entry.
///
/// Source: the kernel's Documentation/arch/x86/boot.rst.
fn unpack_image(image: &[u8]) -> Result<Vec<u8>> {
    const SECTOR: usize = 512;
    let number = |at: usize| -> Result<usize> {
        let bytes = image
            .get(at..at + 4)
            .context("a bzImage that ends in its header")?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize)
    };
    ensure!(
        image.get(0x202..0x206) == Some(b"HdrS"),
        "the kernel's image is no bzImage"
    );
    let protected_mode = (usize::from(image[0x1f1]) + 1) * SECTOR;
    let start = protected_mode + number(0x248)?;
    let payload = image
        .get(start..start + number(0x24c)?)
        .context("a truncated bzImage")?;
    // The build appends the length that the kernel has when it is decompressed.
    let (compressed, length) = payload
        .split_last_chunk::<4>()
        .context("an empty bzImage")?;
    let kernel = decompressed(compressed)?;
    ensure!(
        kernel.len() == u32::from_le_bytes(*length) as usize,
        "a bzImage of another length"
    );
    Ok(kernel)
}

/// What a file of xz or zstd holds; other content is returned as it is.
pub fn decompressed(content: &[u8]) -> Result<Vec<u8>> {
    let tool = match content {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return Ok(content.to_vec()),
    };
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    let output = Command::new(tool)
        .args(["--decompress", "--stdout"])
        .stdin(file)
        .output()
        .with_context(|| format!("cannot start `{tool}`"))?;
    ensure!(
        output.status.success(),
        "`{tool}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// The numbers in a package's name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    let version = name.trim_end_matches("-amd64");
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kernels_sort_higher() {
        let newer = |a: &str, b: &str| assert!(numbers(a) > numbers(b), "{a} against {b}");
        newer(
            "linux-image-6.12.107+deb12-amd64",
            "linux-image-6.12.95+deb12-amd64",
        );
        newer(
            "linux-image-6.12.90+deb12.1-amd64",
            "linux-image-6.12.90+deb12-amd64",
        );
        newer("linux-image-6.1.0-51-amd64", "linux-image-6.1.0-9-amd64");
        newer(
            "linux-binary-7.10.1+deb13-amd64",
            "linux-binary-7.3.4+deb13-amd64",
        );
    }
}
