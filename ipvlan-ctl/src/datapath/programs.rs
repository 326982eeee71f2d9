//! Which programs are pinned, and putting others in their place under traffic.
//!
//! The programs of one build are a set: a folder beside the maps, named by version and object.
//! Usually there is one. While one set replaces another there are two, and a killed process may
//! leave it so: whoever finds two completes the replacement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aya::include_bytes_aligned;
use aya::programs::SchedClassifier;
use nix::fcntl::{Flock, FlockArg};
use semver::Version;

use super::hook::{self, Hook};
use super::{Datapath, DatapathError, LOOPBACK, Result, pins};
use crate::kernel::Netns;

static OBJECT: &[u8] = include_bytes_aligned!(env!("IPVLAN_EBPF_OBJECT"));

/// The programs of one build of ipvlan-ctl.
#[derive(Debug, Clone)]
pub struct Programs {
    pub version: Version,
    /// The ELF object.
    pub object: Cow<'static, [u8]>,
}

impl Programs {
    /// Those that this binary was built with.
    pub fn built_in() -> Self {
        Self {
            version: Version::parse(env!("CARGO_PKG_VERSION")).expect("cargo checks it"),
            object: Cow::Borrowed(OBJECT),
        }
    }

    pub fn set(&self) -> Set {
        // The same for each of many attachments.
        static BUILT_IN: LazyLock<u64> = LazyLock::new(|| hash(OBJECT));
        Set {
            version: self.version.clone(),
            hash: match &self.object {
                Cow::Borrowed(object) if std::ptr::eq(*object, OBJECT) => *BUILT_IN,
                object => hash(object),
            },
        }
    }
}

fn hash(object: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(object);
    hasher.finish()
}

/// Names a set of programs: `0.1.0 (9f86d081884c7d65)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set {
    version: Version,
    /// Tells builds of one version apart; it says nothing about which is newer.
    hash: u64,
}

impl Set {
    const PREFIX: &str = "programs-";

    /// A bpffs takes no dots in names, a version no underscores.
    fn folder_name(&self) -> String {
        let version = self.version.to_string().replace('.', "_");
        format!("{}{version}-{:016x}", Self::PREFIX, self.hash)
    }

    fn parse(folder_name: &str) -> Option<Self> {
        let (version, hash) = folder_name.strip_prefix(Self::PREFIX)?.rsplit_once('-')?;
        Some(Self {
            version: Version::parse(&version.replace('_', ".")).ok()?,
            hash: u64::from_str_radix(hash, 16).ok()?,
        })
    }

    pub(super) fn folder(&self, maps: &Path) -> PathBuf {
        maps.join(self.folder_name())
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:016x})", self.version, self.hash)
    }
}

/// The set that should be attached: that of the highest version. Among builds of one version it
/// is ours.
fn wanted<'s>(pinned: &'s [Set], ours: &'s Set) -> &'s Set {
    pinned
        .iter()
        .chain([ours])
        .max_by_key(|set| (&set.version, *set == ours, set.hash))
        .unwrap_or(ours)
}

/// The pinned sets; each is complete.
fn pinned(root: &Path) -> Result<Vec<Set>> {
    let maps = pins::abi_folder(root);
    let mut sets = Vec::new();
    for entry in fs::read_dir(&maps).map_err(pins::io_error("read", &maps))? {
        let name = entry.map_err(pins::io_error("read", &maps))?.file_name();
        sets.extend(name.to_str().and_then(Set::parse));
    }
    Ok(sets)
}

/// The folder of the programs that are to be attached now.
fn current(root: &Path) -> Result<PathBuf> {
    let pinned = pinned(root)?;
    let ours = Programs::built_in().set();
    let set = match wanted(&pinned, &ours) {
        // It is loaded by the next replacement.
        set if !pinned.contains(set) => pinned.iter().max().unwrap_or(set),
        set => set,
    };
    Ok(set.folder(&pins::abi_folder(root)))
}

/// Keeps the set that is attached now the current one, until dropped.
pub(super) fn hold(root: &Path) -> Result<impl Drop> {
    lock(root, FlockArg::LockShared)
}

fn lock(root: &Path, kind: FlockArg) -> Result<Flock<File>> {
    let path = pins::links_folder(root);
    let folder = File::open(&path).map_err(pins::io_error("open", &path))?;
    Flock::lock(folder, kind).map_err(|(_, error)| pins::io_error("lock", &path)(error.into()))
}

/// A device with programs on it. Kernels without TCX have no list of them.
#[derive(Debug)]
pub enum Device {
    /// By name, in the current namespace.
    Parent(String),
    /// That of the current namespace.
    Loopback,
    Endpoint {
        netns: Netns,
        ifname: String,
    },
}

/// A replacement that is due. Nothing is attached meanwhile by others.
#[derive(Debug)]
pub struct Replacement {
    root: PathBuf,
    set: Set,
    _lock: Flock<File>,
}

impl Datapath {
    /// Where the programs are pinned that are attached now, by name.
    pub fn program_folder(&self) -> Result<PathBuf> {
        current(&self.root)
    }

    /// Which programs are attached or about to be, if they are of a newer version than `ours`.
    pub fn newer_programs(&self, ours: &Programs) -> Result<Option<Set>> {
        let newest = pinned(&self.root)?.into_iter().max();
        Ok(newest.filter(|set| set.version > ours.version))
    }

    /// Loads `ours`, unless they are there or a newer version's are; returns what is to be done
    /// then, if the pinned programs are not those that should be attached, or not they alone.
    pub fn upgrade(&self, ours: &Programs) -> Result<Option<Replacement>> {
        self.replacement(ours, |pinned, set| wanted(pinned, set).clone())
    }

    /// As [`Datapath::upgrade`], but puts `ours` also in the place of a newer version's.
    pub fn downgrade(&self, ours: &Programs) -> Result<Option<Replacement>> {
        self.replacement(ours, |_, set| set.clone())
    }

    fn replacement(
        &self,
        ours: &Programs,
        choose: impl Fn(&[Set], &Set) -> Set,
    ) -> Result<Option<Replacement>> {
        let our_set = ours.set();
        let is_due = || {
            let pinned = pinned(&self.root)?;
            let set = choose(&pinned, &our_set);
            Ok::<_, DatapathError>((pinned != [set.clone()]).then_some(set))
        };
        if is_due()?.is_none() {
            return Ok(None);
        }
        let lock = lock(&self.root, FlockArg::LockExclusive)?;
        // Another process may have done it meanwhile.
        let Some(set) = is_due()? else {
            return Ok(None);
        };
        if set == our_set {
            pins::add(&self.root, ours)?;
        }
        Ok(Some(Replacement {
            root: self.root.clone(),
            set,
            _lock: lock,
        }))
    }
}

impl Replacement {
    /// Replaces each attached program in one step of the kernel's, so that no packet passes
    /// without one, and unpins the other sets last. Returns one line that says so.
    pub fn finish(self, devices: &[Device]) -> Result<String> {
        let maps = pins::abi_folder(&self.root);
        let folder = self.set.folder(&maps);
        let mut set = OpenSet::new(folder);
        if hook::has_tcx() {
            hook::relink_all(&self.root, &mut set)?;
        } else {
            for device in devices {
                device.replace(&mut set)?;
            }
        }
        let mut replaced = Vec::new();
        for other in pinned(&self.root)? {
            if other != self.set {
                pins::remove_tree(&other.folder(&maps))?;
                replaced.push(other.to_string());
            }
        }
        Ok(format!(
            "replaced the programs {} by {}",
            replaced.join(", "),
            self.set
        ))
    }
}

impl Device {
    fn replace(&self, set: &mut OpenSet) -> Result<()> {
        match self {
            Self::Parent(name) => hook::replace_filters(&Hook::PARENT, name, set),
            Self::Loopback => hook::replace_filters(&Hook::LOOPBACK, LOOPBACK, set),
            Self::Endpoint { netns, ifname } => {
                netns.run(|| hook::replace_filters(&Hook::ENDPOINT, ifname, set))?
            }
        }
    }
}

/// The programs of one pinned set, each opened once.
pub(super) struct OpenSet {
    folder: PathBuf,
    programs: HashMap<&'static str, SchedClassifier>,
}

impl OpenSet {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            programs: HashMap::new(),
        }
    }

    /// The set whose programs are to be attached now.
    pub fn current(root: &Path) -> Result<Self> {
        current(root).map(Self::new)
    }

    pub fn get(&mut self, hook: &Hook) -> Result<&mut SchedClassifier> {
        match self.programs.entry(hook.program) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let pin = self.folder.join(hook.program);
                let program = SchedClassifier::from_pin(&pin).map_err(|e| {
                    pins::io_error("open", &pin)(std::io::Error::other(pins::chain(&e)))
                })?;
                Ok(entry.insert(program))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(version: &str, hash: u64) -> Set {
        Set {
            version: version.parse().unwrap(),
            hash,
        }
    }

    #[test]
    fn a_folder_names_its_set() {
        for set in [
            set("0.1.0", 0),
            set("12.0.3", u64::MAX),
            set("1.0.0-rc.1", 7),
            set("1.0.0-a-b+c.d", 7),
        ] {
            let name = set.folder_name();
            assert!(!name.contains('.'), "{name}");
            assert_eq!(Set::parse(&name), Some(set));
        }
        for name in ["ENDPOINTS", "programs-", "programs-1_0_0", "programs-x-1"] {
            assert_eq!(Set::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_highest_version_is_wanted_and_ours_among_equals() {
        let ours = set("0.2.0", 5);
        for (pinned, expected) in [
            (vec![], &ours),
            (vec![set("0.1.9", 9)], &ours),
            (vec![set("0.2.0", 9), set("0.2.0", 1)], &ours),
            (vec![set("0.2.0-rc.1", 9)], &ours),
            (vec![set("0.1.0", 1), set("0.10.0", 1)], &set("0.10.0", 1)),
            (vec![set("0.3.0", 1), set("0.3.0", 2)], &set("0.3.0", 2)),
        ] {
            assert_eq!(wanted(&pinned, &ours), expected, "{pinned:?}");
        }
    }

    #[test]
    fn objects_that_differ_are_different_sets() {
        let built_in = Programs::built_in();
        let mut other = built_in.clone();
        other.object.to_mut().push(0);
        assert_ne!(built_in.set(), other.set());
        assert_eq!(built_in.set(), Programs::built_in().set());
    }
}
