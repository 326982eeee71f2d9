//! Users as the container's own /etc/passwd and /etc/group know them.
//!
//! They are read here and not by the C library, which would load name service plugins out of a
//! root that is not to be trusted.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `USER[:GROUP]`, each a name or a number, as docker's `--user`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Empty for root.
    user: String,
    /// The user's own groups if there is none.
    group: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("USER or USER:GROUP, each a name or a number up to 4294967294")]
pub struct UserError;

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        // The last number means "unchanged" to the kernel.
        let possible = |word: &str| {
            !word.is_empty()
                && !word.contains([':', '\n', '\0'])
                && (!word.bytes().all(|b| b.is_ascii_digit())
                    || word.parse().is_ok_and(|id: u32| id != u32::MAX))
        };
        if possible(user) && group.is_none_or(possible) {
            Ok(Self {
                user: user.to_owned(),
                group: group.map(str::to_owned),
            })
        } else {
            Err(UserError)
        }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.user)?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

/// As whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

impl User {
    /// Looks the user up in the root of this process.
    pub(super) fn look_up(&self) -> Result<Identity, String> {
        let read = |path: &str| read_table(path).map_err(|e| format!("cannot read {path}: {e}"));
        self.find(&read("/etc/passwd")?, &read("/etc/group")?)
    }

    /// Docker's rules: a number needs no entry, and is then of group 0 and at home in `/`.
    fn find(&self, passwd: &str, group: &str) -> Result<Identity, String> {
        let word = if self.user.is_empty() {
            "0"
        } else {
            &self.user
        };
        let known = entries(passwd).find_map(|fields| {
            let [name, _, uid, gid, _, home, ..] = fields[..] else {
                return None;
            };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            (name == word || Ok(uid) == word.parse()).then_some((name, uid, gid, home))
        });
        let mut identity = match (known, word.parse()) {
            (Some((_, uid, gid, home)), _) => Identity {
                uid,
                gid,
                groups: Vec::new(),
                home: home.to_owned(),
            },
            (None, Ok(uid)) => Identity {
                uid,
                gid: 0,
                groups: Vec::new(),
                home: "/".to_owned(),
            },
            (None, Err(_)) => return Err(format!("the container knows no user {word:?}")),
        };
        let groups = || {
            entries(group).filter_map(|fields| match fields[..] {
                [name, _, gid, ref members @ ..] => Some((
                    name,
                    gid.parse::<u32>().ok()?,
                    members.first().copied().unwrap_or_default(),
                )),
                _ => None,
            })
        };
        match (&self.group, known) {
            (Some(word), _) => {
                let found =
                    groups().find(|(name, gid, _)| name == word || Ok(*gid) == word.parse());
                identity.gid = match (found, word.parse()) {
                    (Some((_, gid, _)), _) | (None, Ok(gid)) => gid,
                    (None, Err(_)) => {
                        return Err(format!("the container knows no group {word:?}"));
                    }
                };
            }
            (None, Some((name, ..))) => {
                identity.groups = groups()
                    .filter(|(_, _, members)| members.split(',').any(|member| member == name))
                    .map(|(_, gid, _)| gid)
                    .collect();
            }
            (None, None) => {}
        }
        Ok(identity)
    }
}

fn entries(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().map(|line| line.split(':').collect())
}

/// A table of any sane size; one that is not there is empty. The container may have put
/// anything in its place, which must not hold us up.
fn read_table(path: &str) -> io::Result<String> {
    const MOST: u64 = 1 << 20;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
    {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut table = Vec::new();
    file.take(MOST).read_to_end(&mut table)?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog,web\nweb:x:34:\nlast:x:99:web\n";

    fn find(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let identity = user.parse::<User>().unwrap().find(PASSWD, GROUP)?;
        Ok((identity.uid, identity.gid, identity.groups, identity.home))
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        let root = (0, 0, vec![], "/root".to_owned());
        assert_eq!(
            User::default().find(PASSWD, GROUP).map(|root| root.home),
            Ok("/root".into())
        );
        assert_eq!(find("0"), Ok(root.clone()));
        assert_eq!(find("root"), Ok(root));
        let web = (33, 34, vec![4, 99], "/srv".to_owned());
        assert_eq!(find("web"), Ok(web.clone()));
        assert_eq!(find("33"), Ok(web));
        assert_eq!(find("33:adm"), Ok((33, 4, vec![], "/srv".into())));
        assert_eq!(find("33:7"), Ok((33, 7, vec![], "/srv".into())));
        assert_eq!(find("1000"), Ok((1000, 0, vec![], "/".into())));
        assert_eq!(
            find("nobody"),
            Err("the container knows no user \"nobody\"".into())
        );
        assert_eq!(
            find("0:wheel"),
            Err("the container knows no group \"wheel\"".into())
        );
    }

    #[test]
    fn only_users_that_can_be_are_taken() {
        for wrong in ["", ":", "a:", ":b", "a:b:c", "4294967295", "99999999999"] {
            assert_eq!(wrong.parse::<User>(), Err(UserError), "{wrong:?}");
        }
        for right in ["web", "33:34", "4294967294"] {
            assert_eq!(right.parse::<User>().unwrap().to_string(), right);
        }
    }
}
