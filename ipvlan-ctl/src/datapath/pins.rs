//! Loading, and the pins that make it happen once per host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::{Array, MapData};
use aya::programs::Program;
use ipvlan_common::{ABI, KernelLayout, StampKey};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::programs::Programs;
use super::{DatapathError, Result, btf, map_error, open_map};

const BPFFS: &str = "/sys/fs/bpf";
const ABI_PREFIX: &str = "abi";

/// Maps of this ABI, with the sets of programs in folders of their own. The folder and each set
/// are complete whenever they exist.
pub fn abi_folder(root: &Path) -> PathBuf {
    root.join(format!("{ABI_PREFIX}{ABI}"))
}

pub fn links_folder(root: &Path) -> PathBuf {
    root.join("links")
}

pub fn exist(root: &Path) -> bool {
    abi_folder(root).is_dir()
}

/// Loads and pins everything, unless it is there.
pub fn ensure(root: &Path) -> Result<()> {
    let done = abi_folder(root);
    if !done.is_dir() {
        ensure_bpffs(root)?;
        refuse_other_abi(root)?;
        let programs = Programs::built_in();
        let set = programs.set();
        by_draft(root, &done, |draft| {
            load(draft, &programs, &set.folder(draft))
        })?;
    }
    let links = links_folder(root);
    if links.is_dir() {
        Ok(())
    } else {
        create(&links)
    }
}

/// A folder of this process that nothing is opened from; see [`remove_orphaned_drafts`].
fn draft(root: &Path) -> PathBuf {
    root.join(format!(
        "draft-{}-{:x}",
        std::process::id(),
        rand::random::<u64>()
    ))
}

/// Loads a set of programs for the pinned maps, unless it is there.
pub fn add(root: &Path, programs: &Programs) -> Result<()> {
    let maps = abi_folder(root);
    let done = programs.set().folder(&maps);
    if done.is_dir() {
        return Ok(());
    }
    by_draft(root, &done, |draft| load(&maps, programs, draft))
}

/// Prepares a folder under a name of its own and then renames it, which only one of many
/// concurrent callers can win.
fn by_draft(root: &Path, done: &Path, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    remove_orphaned_drafts(root)?;
    let draft = draft(root);
    create(&draft)?;
    let prepared = prepare(&draft).and_then(|()| match fs::rename(&draft, done) {
        Err(_) if done.is_dir() => remove_tree(&draft),
        result => result.map_err(io_error("rename", &draft)),
    });
    if let Err(error) = prepared {
        remove_tree(&draft)?;
        return Err(error);
    }
    Ok(())
}

/// Programs on devices use the maps of their own ABI; two do not mix.
fn refuse_other_abi(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(io_error("read", root))? {
        let name = entry.map_err(io_error("read", root))?.file_name();
        let abi = name.to_str().and_then(|name| name.strip_prefix(ABI_PREFIX));
        if let Some(abi) = abi.filter(|abi| *abi != ABI.to_string()) {
            return Err(DatapathError::OtherAbi {
                root: root.to_owned(),
                found: abi.to_owned(),
            });
        }
    }
    Ok(())
}

/// Removes the drafts of processes that were killed while loading or removing.
pub fn remove_orphaned_drafts(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(io_error("read", root))? {
        let path = entry.map_err(io_error("read", root))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid = name
            .strip_prefix("draft-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Loads with a look into the kernel's memory where that can be had, and else without. The maps
/// pinned in `maps` are used, and made if they are not there; the programs are pinned in `folder`.
fn load(maps: &Path, programs: &Programs, folder: &Path) -> Result<()> {
    let without = |why: String| {
        eprintln!(
            "ipvlan-ctl: a container's own second ipvlan interface is not kept from the wire: {why}"
        );
        load_with(maps, programs, folder, KernelLayout::UNKNOWN)
    };
    match btf::kernel_layout() {
        Ok(layout) => match load_with(maps, programs, folder, layout) {
            Err(DatapathError::Load(why)) => {
                // What it pinned so far; the maps are as good for the other attempt.
                remove_tree(folder)?;
                without(why)
            }
            other => other,
        },
        Err(error) => without(error.to_string()),
    }
}

fn load_with(maps: &Path, programs: &Programs, folder: &Path, layout: KernelLayout) -> Result<()> {
    create(folder)?;
    let failed = |e: &dyn std::error::Error| DatapathError::Load(chain(e));
    let known = known_key(maps)?;
    let key = known.unwrap_or_else(new_key).words();
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(maps)
        .override_global("STAMP_KEY", &key, true)
        .override_global("KERNEL_LAYOUT", &layout, true)
        .load(&programs.object)
        .map_err(|e| failed(&e))?;
    for (name, program) in ebpf.programs_mut() {
        let Program::SchedClassifier(program) = program else {
            return Err(DatapathError::Load(format!("{name} is not a classifier")));
        };
        program.load().map_err(|e| failed(&e))?;
        program.pin(folder.join(name)).map_err(|e| failed(&e))?;
    }
    if known.is_none() {
        open_map::<Array<MapData, [u32; 2]>>(maps, KEY)?
            .set(0, key, 0)
            .map_err(map_error("write", KEY))?;
    }
    Ok(())
}

/// Map of the stamp key that all sets of programs share: they understand each other's stamps
/// while one replaces the other.
const KEY: &str = "KEY";

/// The key in the map, if there is one by now: the map is made before it is written.
fn known_key(maps: &Path) -> Result<Option<StampKey>> {
    if !maps.join(KEY).exists() {
        return Ok(None);
    }
    let keys: Array<MapData, [u32; 2]> = open_map(maps, KEY)?;
    let words = keys.get(&0, 0).map_err(map_error("read", KEY))?;
    Ok(StampKey::new(words))
}

fn new_key() -> StampKey {
    loop {
        if let Some(key) = StampKey::new(rand::random()) {
            return key;
        }
    }
}

/// Makes sure that `root` exists on a bpffs, mounting the usual one where nothing is mounted.
fn ensure_bpffs(root: &Path) -> Result<()> {
    let is_bpffs = |path: &Path| statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
    let existing = |path: &Path| path.ancestors().find(|a| a.is_dir()).map(Path::to_owned);
    if root.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .map_err(|e| io_error("mount a bpffs on", Path::new(BPFFS))(e.into()))?;
    }
    if !existing(root).is_some_and(|ancestor| is_bpffs(&ancestor)) {
        return Err(DatapathError::NotBpffs {
            path: root.to_owned(),
        });
    }
    create(root)
}

/// Removes everything. The programs' folder gets another name first: under its own it is
/// complete, also when this is interrupted.
pub fn remove_all(root: &Path) -> Result<()> {
    let (done, draft) = (abi_folder(root), draft(root));
    match fs::rename(&done, draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("rename", &done)(e)),
        _ => remove_tree(root),
    }
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))
}

pub fn remove_tree(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder)(e)),
        _ => Ok(()),
    }
}

pub fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::Io { what, path, source }
}

/// An error with its sources in one line; the verifier's log would be pages.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
