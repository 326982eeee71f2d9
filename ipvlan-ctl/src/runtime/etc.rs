//! The files of /etc that belong to a container rather than to its root.

use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Their names below /etc and in the container's own folder.
pub(super) const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Writes all [`FILES`].
pub(super) fn write(folder: &Path, hostname: &str, addresses: &[IpAddr]) -> io::Result<()> {
    let of_host = match fs::read_to_string("/etc/resolv.conf") {
        // A resolver then has its own defaults, as on the host.
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let [hosts_file, hostname_file, resolv_conf_file] = FILES;
    for (name, text) in [
        (hosts_file, hosts(hostname, addresses)),
        (hostname_file, format!("{hostname}\n")),
        (resolv_conf_file, resolv_conf(&of_host)),
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

/// The host's file without name servers on the host's loopback: from the container's
/// namespace they cannot be reached.
fn resolv_conf(host: &str) -> String {
    let on_loopback = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver")
            && words
                .next()
                .and_then(|server| server.parse::<IpAddr>().ok())
                .is_some_and(|server| server.is_loopback())
    };
    host.lines()
        .filter(|line| !on_loopback(line))
        .flat_map(|line| [line, "\n"])
        .collect()
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

    #[test]
    fn resolv_conf_drops_only_loopback_servers() {
        let host = "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\noptions edns0";
        assert_eq!(
            resolv_conf(host),
            "search lan\nnameserver 192.0.2.1\noptions edns0\n"
        );
    }
}
