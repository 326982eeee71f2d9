//! Dropped packets as `ipvlan-ctl trace` tells them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ipvlan_tests::{Figures, Lab, Namespace, Running, ctl, ctl_command, ctl_output, refused, sh};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running `trace --json` that listens.
struct Tracer {
    process: Running,
    lines: Receiver<String>,
}

impl Tracer {
    fn start(words: &str) -> Self {
        let mut trace = ctl_command(format!("trace --json {words}").split_whitespace());
        trace.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Running::start(&mut trace);
        let child = &mut process.0;
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("stderr is piped"))
            .read_line(&mut said)
            .expect("a line on stderr");
        assert!(said.contains("tracing"), "{said}");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for read in stdout.lines() {
                if line.send(read.expect("text")).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    /// Does something again and again until a drop is told for which `wanted` holds.
    fn sees(&self, provoke: impl Fn(), wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            provoke();
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                let event: Value = serde_json::from_str(&line).expect("one JSON object per line");
                if wanted(&event) {
                    return event;
                }
                seen.push(line);
            }
        }
        panic!("not told, but: {seen:#?}");
    }

    /// Sends a signal, and returns the exit code if there is one.
    fn end(mut self, signal: &str) -> Option<i32> {
        self.process.end_by(signal).code()
    }
}

/// A network with `ipv1` (.10), which has given itself .99 too and sends from it, and `ipv2`.
fn spoofing() -> (Lab, Namespace, Namespace) {
    let lab = Lab::new();
    let one = Namespace::new("ipv1");
    let two = Namespace::new("ipv2");
    ctl("network create --ipv6 --subnet 192.168.1.0/24 --subnet fd00:9::/64 -o parent=eth9 db_net");
    ctl("network connect --ip 192.168.1.10 --ip6 fd00:9::10 db_net ipv1");
    ctl("network connect --ip 192.168.1.11 --ip6 fd00:9::11 db_net ipv2");
    one.sh("ip addr add 192.168.1.99/24 dev eth0
            ip addr add fd00:9::99/64 dev eth0 nodad
            ip route add 192.168.1.11 dev eth0 src 192.168.1.99
            ip neigh add 192.168.1.11 dev eth0 lladdr $(cat /sys/class/net/eth0/address)");
    (lab, one, two)
}

fn spoof(namespace: &Namespace) {
    namespace.sh("bash -c \"echo hello > /dev/udp/192.168.1.11/53\"");
}

#[test]
fn a_trace_tells_whose_where_why_and_what() {
    let (_lab, one, _two) = spoofing();
    let tracer = Tracer::start("");
    let event = tracer.sees(
        || spoof(&one),
        |event| event["reason"] == "spoofed-source" && event["protocol"] == 17,
    );
    let expected = [
        ("endpoint", "ipv1"),
        ("network", "db_net"),
        ("parent", "eth9"),
        ("device", "endpoint"),
        ("direction", "egress"),
        ("family", "ipv4"),
        ("source", "192.168.1.99"),
        ("destination", "192.168.1.11"),
    ];
    for (field, value) in expected {
        assert_eq!(event[field], value, "{field} of {event}");
    }
    assert_eq!(event["destination_port"], 53);
    assert!(event["source_port"].as_u64().expect("a port") > 0);
    assert_eq!(event["length"], 14 + 20 + 8 + 6);

    let event = tracer.sees(
        || _ = one.succeeds("ping -n -q -c 1 -W 1 192.168.1.2"),
        |event| event["reason"] == "endpoint-to-host",
    );
    assert_eq!(
        event["summary"],
        "ARP who-has 192.168.1.2 tell 192.168.1.10"
    );

    let event = tracer.sees(
        || _ = one.succeeds("ping -n -q -c 1 -W 1 -I fd00:9::99 fd00:9::11"),
        |event| event["family"] == "ipv6" && event["reason"] == "spoofed-source",
    );
    assert_eq!(event["source"], "fd00:9::99");
    assert_eq!(event["target"], "fd00:9::11", "{event}");

    // From the host's side, at the parent.
    let event = tracer.sees(
        || _ = sh("ping -n -q -c 1 -W 1 192.168.1.10 || true"),
        |event| event["reason"] == "host-to-endpoint",
    );
    assert_eq!(event["endpoint"], "ipv1");
    assert_eq!(
        (&event["device"], &event["direction"]),
        (&"parent".into(), &"egress".into())
    );
    assert_eq!(tracer.end("INT"), Some(0), "Ctrl-C is a good end");
}

#[test]
fn a_trace_samples_a_flood_and_counts_it() {
    let (_lab, one, _two) = spoofing();
    let tracer = Tracer::start("ipv1 --reason spoofed-source");
    let event = tracer.sees(
        || _ = one.succeeds("ping -n -q -c 200 -i 0.002 -W 1 192.168.1.11"),
        |event| event["suppressed"].as_u64().expect("a number") > 0,
    );
    drop(tracer);
    let dropped = Figures::of("ipv1").dropped("spoofed-source");
    assert!(event["suppressed"].as_u64().expect("a number") < dropped);
}

#[test]
fn a_trace_is_filtered_and_ended_by_its_count() {
    let (_lab, one, two) = spoofing();
    let mut tracer = Tracer::start("--count 3 --network db_net --reason spoofed-source ipv1");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        // Noise of another endpoint and of another reason.
        let _ = two.succeeds("ping -n -q -c 1 -W 1 192.168.1.2");
        let _ = one.succeeds("ping -n -q -c 1 -W 1 192.168.1.2");
        spoof(&one);
        if let Some(status) = tracer.process.0.try_wait().expect("wait") {
            break status;
        }
        assert!(Instant::now() < deadline, "three drops and no end");
    };
    assert!(status.success());
    let events: Vec<Value> = tracer
        .lines
        .iter()
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    assert_eq!(events.len(), 3, "{events:#?}");
    for event in events {
        assert_eq!(event["endpoint"], "ipv1");
        assert_eq!(event["reason"], "spoofed-source");
    }

    refused("trace nobody", &["nobody"]);
    refused("trace --network nowhere", &["nowhere"]);
    let output = ctl_output("trace --reason bad-luck");
    assert_eq!(output.status.code(), Some(2), "these words make no command");
    let output = ctl_output("trace --count 0");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_trace_is_the_only_one() {
    let (_lab, one, _two) = spoofing();
    let first = Tracer::start("");
    refused("trace", &["another", "one"]);
    assert_eq!(first.end("KILL"), None);

    let mut second = Tracer::start("");
    second.sees(|| spoof(&one), |event| event["protocol"] == 17);
    // The last network takes the programs with it, and the tracer ends.
    ctl("network disconnect db_net ipv1");
    ctl("network disconnect db_net ipv2");
    ctl("network rm db_net");
    let deadline = Instant::now() + PATIENCE;
    while second.process.0.try_wait().expect("wait").is_none() {
        assert!(Instant::now() < deadline, "it listens to nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(second.process.0.wait().expect("wait").code(), Some(1));
    refused("trace", &["nothing to trace"]);
}
