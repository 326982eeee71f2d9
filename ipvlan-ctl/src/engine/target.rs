use std::path::{Path, PathBuf};

/// The network namespace that a user's word names: a path (it has a slash), a pid, or a name
/// that `ip netns` knows.
pub fn netns_path(target: &str) -> PathBuf {
    let named = || Path::new("/run/netns").join(target);
    if target.contains('/') {
        target.into()
    } else if target.bytes().all(|b| b.is_ascii_digit()) && !named().exists() {
        format!("/proc/{target}/ns/net").into()
    } else {
        named()
    }
}

/// What an endpoint in this namespace is called where the user gave no name: the file's name,
/// or `pid-N` for `/proc/N/ns/net`.
pub fn default_name(netns: &Path) -> String {
    let parts: Vec<_> = netns.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        ["/", "proc", pid, "ns", "net"] => format!("pid-{pid}"),
        [.., name] => name.to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_a_pid_and_a_name() {
        for (target, path, name) in [
            ("/run/netns/web", "/run/netns/web", "web"),
            ("4711", "/proc/4711/ns/net", "pid-4711"),
            ("web", "/run/netns/web", "web"),
            ("/proc/4711/ns/net", "/proc/4711/ns/net", "pid-4711"),
        ] {
            assert_eq!(netns_path(target), Path::new(path));
            assert_eq!(default_name(Path::new(path)), name);
        }
    }
}
