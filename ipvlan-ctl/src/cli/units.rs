//! Numbers for people.

/// Three significant digits and a prefix of the SI, such as `0`, `999`, `1.23k` or `45.6M`.
pub(super) fn si(value: f64) -> String {
    let mut value = value.max(0.0);
    let mut prefixes = ["k", "M", "G", "T", "P", "E"].into_iter();
    let mut prefix = "";
    // What would be rounded up to 1000 takes the next prefix.
    while value >= 999.5
        && let Some(next) = prefixes.next()
    {
        value /= 1000.0;
        prefix = next;
    }
    let digits = match value {
        _ if prefix.is_empty() && (value.fract() == 0.0 || value >= 99.95) => 0,
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{prefix}")
}

/// A count of bytes, such as `1.23kB`.
pub(super) fn bytes(count: u64) -> String {
    format!("{}B", si(count as f64))
}

/// Bytes per second as bits per second.
pub(super) fn bits(bytes_per_second: f64) -> String {
    si(bytes_per_second * 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_say_enough() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.50"),
            (7.0, "7"),
            (99.97, "100"),
            (999.4, "999"),
            (999.5, "1.00k"),
            (1234.0, "1.23k"),
            (45_600_000.0, "45.6M"),
            (999_999.0, "1.00M"),
            (u64::MAX as f64, "18.4E"),
        ] {
            assert_eq!(si(value), text, "{value}");
        }
        assert_eq!(bytes(1500), "1.50kB");
        assert_eq!(bits(125.0), "1.00k");
    }
}
