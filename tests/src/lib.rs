//! What the kernel tests share. They run as root inside a VM, by `cargo xtask test`.

mod attack;
mod daemon;
mod docker;
mod fault;
mod guide;
mod hostile;
mod lab;
mod neighbours;
mod podman;
mod running;
mod stream;

use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

pub use attack::{Attack, GUARDED, OPEN, attack, datagram, datagram_by, dropped_on, show, tried};
pub use daemon::{Daemon, eventually};
pub use docker::Docker;
pub use fault::killed_before;
pub use guide::Guide;
pub use hostile::{Ear, Raw, mac_of, text_of};
pub use lab::{
    Counters, Figures, Lab, Namespace, Since, detach_all_programs, figures_equal_the_kernels,
    snapshot, traces, wire,
};
pub use neighbours::Neighbours;
pub use podman::Podman;
use pretty_assertions::assert_str_eq;
pub use running::Running;
use serde_json::Value;
pub use stream::Stream;

/// How long the kernel, in a slow machine, may take for what it does in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel that this test runs on, as in the matrix: "6.1", "6.12" or "7".
///
/// Panics where no such kernel was booted: a kernel test that is run elsewhere fails.
pub fn kernel() -> String {
    match std::env::var("IPVLAN_TEST_KERNEL") {
        Ok(kernel) => kernel,
        Err(_) => panic!("a kernel test outside its VM: run it by `cargo xtask test`"),
    }
}

/// Runs a shell script and returns its output; panics where it fails.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("sh starts");
    assert!(
        output.status.success(),
        "`{script}` ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("output is text")
}

/// Does this shell script succeed?
pub fn succeeds(script: &str) -> bool {
    Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("sh starts")
        .status
        .success()
}

/// The program under test, with these words. It starts no daemon on its own: one that outlives
/// its test would repair what the next one breaks.
pub fn ctl_command<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    kernel();
    let program = std::env::var("IPVLAN_CTL").expect("IPVLAN_CTL names the program under test");
    let mut command = Command::new(program);
    command.args(words).env("IPVLAN_CTL_NO_DAEMON", "1");
    command
}

/// What a plugin prints in the end, `null` where that is nothing: its result, or its error.
pub fn result(child: Child) -> Result<Value, Value> {
    let output = child.wait_with_output().expect("the plugin ends");
    let text = String::from_utf8(output.stdout).expect("output is text");
    let value = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).expect("output is JSON"),
    };
    if output.status.success() {
        Ok(value)
    } else {
        Err(value)
    }
}

/// Runs `ipvlan-ctl` with a line's words and returns what it printed; panics where it fails.
pub fn ctl(line: &str) -> String {
    let output = ctl_output(line);
    assert!(
        output.status.success(),
        "`ipvlan-ctl {line}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("output is text")
}

/// Runs `ipvlan-ctl` with a line's words, whatever comes of it.
pub fn ctl_output(line: &str) -> Output {
    ctl_command(line.split_whitespace())
        .output()
        .expect("ipvlan-ctl starts")
}

/// Runs `ipvlan-ctl`, which must refuse with exit code 1, one line on stderr that holds all of
/// `words`, and nothing changed on the host.
pub fn refused(line: &str, words: &[&str]) {
    let before = snapshot();
    refused_on(&traces(), line, words);
    assert_str_eq!(before, snapshot(), "`ipvlan-ctl {line}` changed something");
}

/// [`refused`], in a tenth of the time, on a host whose [`traces`] are at hand.
pub fn refused_on(before: &str, line: &str, words: &[&str]) {
    let output = ctl_output(line);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(1),
        "`ipvlan-ctl {line}`: {message}"
    );
    assert_eq!(
        message.lines().count(),
        1,
        "one line for `ipvlan-ctl {line}`: {message}"
    );
    for word in words {
        assert!(
            message.contains(word),
            "{word:?} in the error of `ipvlan-ctl {line}`: {message}"
        );
    }
    assert_str_eq!(before, traces(), "`ipvlan-ctl {line}` changed something");
}

/// Waits until the host is as `before`, which is what `now` gives; shows how they differ if it
/// never is. The end of a namespace, of a link or of a program reaches all that hangs on it in
/// the background.
pub fn settles_as(before: &str, now: impl Fn() -> String, after: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = now();
    while last != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        last = now();
    }
    assert_str_eq!(before, last, "{after}");
}
