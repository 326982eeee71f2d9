use std::fs;

use super::EngineError;

// include/uapi/linux/capability.h
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Makes sure that the calling thread may change networks, before anything is touched.
pub(super) fn require() -> Result<(), EngineError> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).map_err(|source| EngineError::Read {
        path: path.into(),
        source,
    })?;
    let missing = missing(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(EngineError::NotPermitted(missing.join(" and ")))
    }
}

/// Needed capabilities that are not effective, given the text of `/proc/PID/status`.
fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .into_iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(
            missing("Name:\tx\nCapEff:\t0000000000000000\n"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
        assert_eq!(missing("CapEff:\t0000000000001000\n"), ["CAP_SYS_ADMIN"]);
        assert!(missing("CapEff:\t000001ffffffffff\n").is_empty());
    }
}
