//! The files of /etc that belong to a container rather than to its root.

use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Their names below /etc and in the container's own folder.
pub(super) const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What `--dns`, `--dns-search` and `--dns-opt` ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The host's if there are none.
    pub servers: Vec<IpAddr>,
    /// The host's if there are none; a lone `.` for none at all.
    pub search: Vec<String>,
    /// The host's if there are none.
    pub options: Vec<String>,
}

/// Writes all [`FILES`]. `resolver` answers in the container's namespace, if anything does.
pub(super) fn write(
    folder: &Path,
    hostname: &str,
    addresses: &[IpAddr],
    dns: &Dns,
    resolver: Option<IpAddr>,
) -> io::Result<()> {
    let of_host = match fs::read_to_string("/etc/resolv.conf") {
        // A resolver then has its own defaults, as on the host.
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let [hosts_file, hostname_file, resolv_conf_file] = FILES;
    for (name, text) in [
        (hosts_file, hosts(hostname, addresses)),
        (hostname_file, format!("{hostname}\n")),
        (resolv_conf_file, resolv_conf(&of_host, dns, resolver)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text)?;
        // Whatever our caller's umask: every user in the container reads them.
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for address in addresses {
        text += &format!("{address}\t{hostname}\n");
    }
    text
}

/// Asks `resolver` alone where there is one. Else the servers of `dns`, or the host's without
/// those on its loopback: from the container's namespace they cannot be reached.
fn resolv_conf(host: &str, dns: &Dns, resolver: Option<IpAddr>) -> String {
    let words_of = |wanted: &[&str]| -> Vec<String> {
        let lines = host.lines().map(|line| line.split_whitespace());
        // Of several lines the last counts.
        let last = lines.rev().find_map(|mut words| {
            let key = words.next()?;
            wanted.contains(&key).then_some(words)
        });
        last.into_iter().flatten().map(str::to_owned).collect()
    };
    let given_or = |given: &[String], of_host: &[&str]| match given {
        [] => words_of(of_host),
        given => given.to_vec(),
    };
    let of_host = || {
        let lines = host.lines().map(|line| line.split_whitespace());
        lines
            .filter_map(|mut words| (words.next()? == "nameserver").then(|| words.next())?)
            .filter_map(|server| server.parse().ok())
            .filter(|server: &IpAddr| !server.is_loopback())
            .collect()
    };
    let servers: Vec<IpAddr> = match (resolver, dns.servers.as_slice()) {
        (Some(resolver), _) => vec![resolver],
        (None, []) => of_host(),
        (None, given) => given.to_vec(),
    };
    let mut search = given_or(&dns.search, &["search", "domain"]);
    search.retain(|domain| domain != ".");
    let mut options = given_or(&dns.options, &["options"]);
    // A container's name has no dot, and must not be tried with a domain first.
    if resolver.is_some() && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers
        .iter()
        .map(|s| format!("nameserver {s}\n"))
        .collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            text += &format!("{key} {}\n", words.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_container_by_each_address() {
        let text = hosts(
            "db",
            &["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        );
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"));
        assert!(text.ends_with("10.1.0.2\tdb\nfd00::2\tdb\n"));
    }

    const HOST: &str = "search old\nnameserver 127.0.0.53\nnameserver ::1\n\
                        search lan home\nnameserver 192.0.2.1\noptions edns0 trust-ad\n";

    #[test]
    fn without_a_resolver_the_servers_that_can_be_reached() {
        assert_eq!(
            resolv_conf(HOST, &Dns::default(), None),
            "nameserver 192.0.2.1\nsearch lan home\noptions edns0 trust-ad\n"
        );
        let dns = Dns {
            servers: vec!["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
            search: vec!["example.org".into()],
            options: vec!["timeout:1".into()],
        };
        assert_eq!(
            resolv_conf(HOST, &dns, None),
            "nameserver 192.0.2.9\nnameserver 2001:db8::9\nsearch example.org\noptions timeout:1\n"
        );
        assert_eq!(resolv_conf("", &Dns::default(), None), "");
    }

    #[test]
    fn a_resolver_is_asked_alone_and_for_names_as_they_are() {
        let resolver = Some(IpAddr::from([127, 0, 0, 11]));
        assert_eq!(
            resolv_conf(HOST, &Dns::default(), resolver),
            "nameserver 127.0.0.11\nsearch lan home\noptions edns0 trust-ad ndots:0\n"
        );
        let dns = Dns {
            servers: vec!["192.0.2.9".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
        };
        assert_eq!(
            resolv_conf(HOST, &dns, resolver),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }
}
