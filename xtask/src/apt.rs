//! Debian packages: what is installed, installing what lacks, and unpacking packages of other
//! suites without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::progress::{Step, output, step};
use crate::setup::cache;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Overrides the archive that is read out of the machine's apt sources.
const ARCHIVE_ENV: &str = "IPVLAN_CTL_DEBIAN_ARCHIVE";

/// Installs those of the packages that lack. Says nothing when there are none.
///
/// Errors: names the packages and the command where we may not install them.
pub fn require(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let install = |command: &mut Command| {
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing);
    };
    let Some(as_root) = as_root() else {
        bail!(
            "these Debian packages are missing, and we are neither root nor allowed to use sudo; \
             run: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    };
    step(format!("Installing {}", missing.join(" ")), |step| {
        if !all_known(&missing) {
            step.run(as_root("apt-get").arg("update"))?;
        }
        let mut apt_get = as_root("apt-get");
        install(&mut apt_get);
        if step.run(&mut apt_get).is_ok() {
            return Ok(());
        }
        // Lists that are older than the archive name files that are gone.
        step.run(as_root("apt-get").arg("update"))?;
        let mut apt_get = as_root("apt-get");
        install(&mut apt_get);
        step.run(&mut apt_get)
    })
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let known = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output();
    let known = match known {
        Ok(known) => String::from_utf8_lossy(&known.stdout).into_owned(),
        Err(_) => bail!(
            "this is no Debian machine (no dpkg-query); it needs what Debian calls {}",
            packages.join(" ")
        ),
    };
    let installed = |package: &str| {
        let line = format!("{package} installed");
        known.lines().any(|known| known == line)
    };
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect())
}

fn all_known(packages: &[&str]) -> bool {
    packages.iter().all(|package| {
        let show = output(Command::new("apt-cache").args(["policy", package]));
        show.is_ok_and(|policy| {
            policy
                .lines()
                .any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)"))
        })
    })
}

/// How to make a command that runs as root, if there is a way.
fn as_root() -> Option<fn(&str) -> Command> {
    if geteuid().is_root() {
        return Some(|program| {
            let mut command = Command::new(program);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        });
    }
    // `-v` asks for the password once, now, while no spinner is in the way.
    let may_sudo = Command::new("sudo")
        .arg("-v")
        .status()
        .is_ok_and(|status| status.success());
    may_sudo.then_some(|program| {
        let mut command = Command::new("sudo");
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", program]);
        command
    })
}

/// A folder of the cache with these packages of a suite that need not be the machine's, unpacked
/// and not installed; downloaded if the cache lacks it. `what` is in the folder's name.
pub fn unpacked(what: &str, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = cache()?.join(format!("{what}-{suite}"));
    if !folder.is_dir() {
        // Whatever fails in here leaves nothing that looks like it.
        let work = tempfile::Builder::new()
            .prefix(&format!(".{what}-"))
            .tempdir_in(cache()?)?;
        step(format!("Fetching {what}"), |step| {
            let archive = Archive::open(work.path().join("apt"), &[suite], step)?;
            let root = work.path().join("root");
            for package in packages {
                archive.unpack(package, &root, step)?;
            }
            Ok(fs::rename(root, &folder)?)
        })?;
    }
    Ok(folder)
}

/// Packages of Debian suites that the machine itself does not use, through an apt state of our
/// own. Nothing is installed.
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Reads the package lists of `suites` into `folder`, from the archive that the machine's own
    /// sources name.
    pub fn open(folder: PathBuf, suites: &[&str], step: &Step) -> Result<Archive> {
        for part in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let entries = machine_sources()?;
        let mut sources = String::new();
        for suite in suites {
            let uri = uri_of(suite, &entries)?;
            sources += &format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
        }
        fs::write(folder.join("sources.list"), sources)?;
        let archive = Archive { folder };
        step.run(archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// The names of all packages that match a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = output(
            self.apt("apt-cache")
                .args(["search", "--names-only", pattern]),
        )?;
        Ok(found
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads a package and unpacks it into a folder.
    pub fn unpack(&self, package: &str, into: &Path, step: &Step) -> Result<()> {
        let debs = self.folder.join("debs");
        step.run(
            self.apt("apt-get")
                .args(["download", package])
                .current_dir(&debs),
        )?;
        for deb in fs::read_dir(&debs)? {
            let deb = deb?.path();
            step.run(Command::new("dpkg").arg("--extract").arg(&deb).arg(into))?;
            fs::remove_file(deb)?;
        }
        Ok(())
    }

    fn apt(&self, tool: &str) -> Command {
        let set = |key: &str, path: &str| format!("{key}={}", self.folder.join(path).display());
        let mut apt = Command::new(tool);
        for option in [
            set("Dir::Etc::sourcelist", "sources.list"),
            set("Dir::State::lists", "lists"),
            set("Dir::Cache", "cache"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            // Its own user may not write into the user's cache.
            "APT::Sandbox::User=root".into(),
        ] {
            apt.args(["-o", &option]);
        }
        apt
    }
}

/// One line of the machine's sources: where, and which suites.
#[derive(Debug, PartialEq)]
struct Source {
    uri: String,
    suites: Vec<String>,
}

fn machine_sources() -> Result<Vec<Source>> {
    let mut entries = Vec::new();
    if let Ok(list) = fs::read_to_string("/etc/apt/sources.list") {
        entries.extend(parse_list(&list));
    }
    let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") else {
        return Ok(entries);
    };
    for part in parts {
        let path = part?.path();
        let read =
            || fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => entries.extend(parse_deb822(&read()?)),
            Some("list") => entries.extend(parse_list(&read()?)),
            _ => {}
        }
    }
    Ok(entries)
}

/// The one-line format of sources.list(5).
fn parse_list(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line
            .split('#')
            .next()?
            .trim()
            .strip_prefix("deb ")?
            .trim_start();
        let rest = match line.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => line,
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            uri: words.next()?,
            suites: vec![words.next()?],
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The stanza format of sources.list(5).
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let without_comments: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in without_comments.join("\n").split("\n\n") {
        let field = |name: &str| -> Vec<String> {
            let mut lines = stanza.lines().skip_while(|line| {
                !line
                    .split_once(':')
                    .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
            });
            let Some((_, first)) = lines.next().and_then(|line| line.split_once(':')) else {
                return Vec::new();
            };
            let more = lines.take_while(|line| line.starts_with([' ', '\t']));
            let words = std::iter::once(first)
                .chain(more)
                .flat_map(str::split_whitespace);
            words.map(str::to_owned).collect()
        };
        let off = field("Enabled").first().is_some_and(|value| value == "no");
        if off || !field("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let suites = field("Suites");
        sources.extend(field("URIs").into_iter().map(|uri| Source {
            uri,
            suites: suites.clone(),
        }));
    }
    sources
}

/// The archive that holds a suite: the one that the machine reads the suite from, or else its
/// archive of the same kind (security or not).
fn uri_of(suite: &str, entries: &[Source]) -> Result<String> {
    const RELEASES: [&str; 9] = [
        "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable",
    ];
    let is_security = |suite: &str| suite.contains("-security");
    let is_debian = |suite: &str| {
        RELEASES.iter().any(|name| {
            suite
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
        })
    };
    if !is_security(suite)
        && let Ok(uri) = std::env::var(ARCHIVE_ENV)
    {
        return Ok(uri);
    }
    let exact = entries
        .iter()
        .find(|source| source.suites.iter().any(|own| own == suite));
    let same_kind = || {
        entries.iter().find(|source| {
            let mut suites = source.suites.iter();
            suites.any(|own| is_debian(own) && is_security(own) == is_security(suite))
        })
    };
    match exact.or_else(same_kind) {
        Some(source) => Ok(source.uri.clone()),
        None => bail!(
            "the machine's apt sources name no Debian archive for {suite}; \
             name one by {ARCHIVE_ENV}=URI"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suites: &[&str]) -> Source {
        Source {
            uri: uri.into(),
            suites: suites.iter().map(|suite| suite.to_string()).collect(),
        }
    }

    #[test]
    fn reads_both_formats_of_apt_sources() {
        let list = "# deb file:/no x main\n\
                    deb [arch=amd64 signed-by=/k.gpg] file:/a bookworm main # why\n\
                    deb-src file:/a bookworm main\n\
                    deb file:/b bookworm-security main\n";
        assert_eq!(
            parse_list(list),
            [
                source("file:/a", &["bookworm"]),
                source("file:/b", &["bookworm-security"])
            ]
        );

        let stanzas = "Types: deb\n# a comment\nURIs: file:/a\nSuites: bookworm\n bookworm-updates\n\
                       Components: main\n\n\
                       Types: deb-src\nURIs: file:/s\nSuites: bookworm\n\n\
                       Types: deb deb-src\nEnabled: no\nURIs: file:/n\nSuites: bookworm\n\n\
                       types: deb\nuris: file:/b\nsuites: bookworm-security\n";
        assert_eq!(
            parse_deb822(stanzas),
            [
                source("file:/a", &["bookworm", "bookworm-updates"]),
                source("file:/b", &["bookworm-security"])
            ]
        );
    }

    #[test]
    fn another_suite_comes_from_the_archive_of_its_kind() {
        let entries = [
            source("file:/other", &["nodistro"]),
            source("file:/security", &["bookworm-security"]),
            source("file:/main", &["bookworm", "bookworm-updates"]),
        ];
        assert_eq!(uri_of("trixie-backports", &entries).unwrap(), "file:/main");
        assert_eq!(
            uri_of("trixie-security", &entries).unwrap(),
            "file:/security"
        );
        assert!(uri_of("trixie", &entries[..2]).is_err());
    }
}
