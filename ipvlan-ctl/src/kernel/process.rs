//! Which process a pid means.

use std::fs;
use std::io;

/// When the process began, in clock ticks since boot (proc(5), `/proc/PID/stat`, field 22), which
/// tells it from a later one with its pid; `None` if there is none or it is a zombie.
pub fn started(pid: u32) -> io::Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let stat = match fs::read_to_string(&path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    // Field 2, the command, is in parentheses and may hold anything; 3 follows it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    let ticks = fields.nth(18).and_then(|field| field.parse().ok());
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "no start time");
    ticks.map(Some).ok_or_else(corrupt)
}
