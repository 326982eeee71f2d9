//! What is done with a container that is there: exec, ps, stop, kill, rm, logs, wait.

mod host;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;

use host::{BINARY, Host, marked_sleep, running, stderr, stdout, wait_for_line, wait_until};

impl Host {
    /// Runs a command on a terminal of its own; what is expected there must come in time.
    fn on_terminal(&self, words: &[&str]) -> PtySession {
        spawn_command(self.ctl(words), Some(20_000)).unwrap()
    }

    /// Starts a container in the background.
    fn start(&self, name: &str, options: &[&str], command: &[&str]) {
        stdout(self.run(&[&["-d", "--name", name], options].concat(), command));
    }

    /// The status of a container, as `ps` has it.
    fn state(&self, name: &str) -> Option<String> {
        let lines = self.stdout(&["ps", "-a", "--json"]);
        lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|row| row["Names"] == name)
            .map(|row| row["State"].as_str().unwrap().to_owned())
    }

    fn refused(&self, words: &[&str], status: i32, complaint: &str) {
        let refused = self.output(words);
        assert_eq!(
            refused.status.code(),
            Some(status),
            "{words:?}: {refused:?}"
        );
        assert_eq!(
            stderr(&refused),
            format!("ipvlan-ctl: {complaint}\n"),
            "{words:?}"
        );
    }
}

/// An alpine-like root out of Debian's busybox, which is static.
fn busybox_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "home", "etc"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).expect("busybox-static");
    for applet in [
        "sh", "cat", "id", "ls", "pwd", "touch", "stat", "sleep", "grep", "ps",
    ] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/home:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.path().join("etc/group"), "web:x:34:\nadm:x:4:web\n").unwrap();
    root
}

#[test]
fn a_shell_on_a_terminal() {
    let host = Host::new();
    let mut shell = host.on_terminal(&["run", "--net", "none", "--rm", "-it", "--name", "t", "sh"]);
    shell.exp_string("# ").unwrap();
    shell.send_line("tty; echo $TERM $((6 * 7))").unwrap();
    shell.exp_string("/dev/pts/0").unwrap();
    shell.exp_string("xterm 42").unwrap();
    // Ctrl-C is a key for what runs in the foreground there.
    let sleep = marked_sleep(10);
    shell.send_line(&sleep).unwrap();
    wait_until("it runs", || running(&sleep));
    shell.send_control('c').unwrap();
    shell.send_line("echo status $?").unwrap();
    shell.exp_string("status 130").unwrap();

    let mut second = host.on_terminal(&["exec", "-it", "t", "sh"]);
    second.exp_string("# ").unwrap();
    second.send_line("tty; cat /etc/hostname").unwrap();
    second.exp_string("/dev/pts/1").unwrap();
    second.exp_string("\nt\r").unwrap();
    second.send_line("exit 5").unwrap();
    assert_eq!(exit_code(&second), 5);

    shell.send_line("exit 3").unwrap();
    assert_eq!(exit_code(&shell), 3);
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

fn exit_code(session: &PtySession) -> i32 {
    match session.process().wait().unwrap() {
        rexpect::process::WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

/// Also where the command is killed, or `run` is asked to end.
#[test]
fn the_callers_terminal_is_as_it_was() {
    let host = Host::new();
    // The last is ended from here.
    let script = format!(
        "stty -g > $IPVLAN_CTL_RUN_DIR/before
         {BINARY} run --net none --rm -it sh -c 'echo raw; kill -9 $$' || echo \"ended $?\"
         {BINARY} run --net none --rm -it --name x sh -c 'echo up; sleep 600'
         stty -g > $IPVLAN_CTL_RUN_DIR/after; echo over"
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env("IPVLAN_CTL_RUN_DIR", host.run_dir.path());
    let mut session = spawn_command(command, Some(20_000)).unwrap();
    session.exp_string("ended 137").unwrap();
    session.exp_string("up").unwrap();
    wait_until("it runs", || host.state("x").as_deref() == Some("running"));
    let run = fs::read_to_string(host.records()[0].join("container.json")).unwrap();
    let run: Value = serde_json::from_str(&run).unwrap();
    let run = Pid::from_raw(run["supervisor"]["pid"].as_i64().unwrap() as i32);
    kill(run, Signal::SIGTERM).unwrap();
    session.exp_string("over").unwrap();
    let read = |name: &str| fs::read_to_string(host.run_dir.path().join(name)).unwrap();
    assert_eq!(read("before"), read("after"));
}

#[test]
fn a_terminal_has_the_callers_size_and_follows_it() {
    let host = Host::new();
    let session = host.on_terminal(&[
        "run",
        "--net",
        "none",
        "--rm",
        "-it",
        "sh",
        "-c",
        "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done",
    ]);
    let mut session = session;
    session.exp_string("0 0").unwrap();
    let size = rustix::termios::Winsize {
        ws_row: 33,
        ws_col: 99,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(session.process().get_file_handle().unwrap(), size).unwrap();
    session.exp_string("33 99").unwrap();
    session.send_control('c').unwrap();
    assert_eq!(exit_code(&session), 130);
}

#[test]
fn without_a_terminal_there_is_no_it() {
    let host = Host::new();
    for (words, status) in [
        (&["run", "--net", "none", "--rm", "-it", "true"][..], 125),
        (&["exec", "-it", "x", "true"], 1),
    ] {
        if words[0] == "exec" {
            host.start("x", &[], &["sleep", "600"]);
        }
        host.refused(
            words,
            status,
            "invalid -t \"true\": needs a terminal as standard input; leave -t out",
        );
    }
    host.stdout(&["rm", "-f", "x"]);
}

#[test]
fn exec_runs_as_the_container_does() {
    let host = Host::new();
    host.start(
        "x",
        &["-e", "A=1", "--cap-drop", "NET_RAW"],
        &["sleep", "600"],
    );
    let seen = host.stdout(&[
        "exec",
        "-e",
        "B=2",
        "-w",
        "/usr",
        "x",
        "sh",
        "-c",
        "echo $A $B $HOME; pwd; hostname; cut -c 1-10 /proc/1/cmdline
         grep -E 'NoNewPrivs|SigBlk|CapEff' /proc/self/status; ls /proc/self/fd",
    ]);
    // The last descriptor is the folder that ls reads.
    assert_eq!(
        seen,
        "1 2 /root\n/usr\nx\nipvlan-ctl\nSigBlk:\t0000000000000000\n\
         CapEff:\t00000000a80405fb\nNoNewPrivs:\t1\n0\n1\n2\n3\n"
    );
    // By its id, and its id's beginning.
    let id = host.stdout(&["ps", "-q", "--no-trunc"]);
    for word in [id.trim(), &id[..5]] {
        assert_eq!(host.stdout(&["exec", word, "hostname"]), "x\n");
    }
    for (command, status) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/hosts"], 126),
    ] {
        let words = [&["exec", "x"], command].concat();
        assert_eq!(host.output(&words).status.code(), Some(status), "{words:?}");
    }
    let mut cat = host.ctl(&["exec", "-i", "x", "cat"]);
    let mut cat = cat
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut cat.stdin.take().unwrap(), b"through\n").unwrap();
    assert_eq!(stdout(cat.wait_with_output().unwrap()), "through\n");
    // A child that holds the output open does not hold us up.
    assert_eq!(
        host.stdout(&["exec", "x", "sh", "-c", "sleep 600 & echo done"]),
        "done\n"
    );
    host.stdout(&["rm", "-f", "x"]);
    host.refused(&["exec", "x", "true"], 1, "no such container: x");
}

#[test]
fn what_exec_started_ends_with_it() {
    let host = Host::new();
    host.start("x", &[], &["sleep", "600"]);
    for mark in [11, 12] {
        let sleep = marked_sleep(mark);
        let mut exec = host.ctl(&["exec", "x", "sh", "-c", &format!("echo up; exec {sleep}")]);
        let mut exec = exec.stdout(Stdio::piped()).spawn().unwrap();
        wait_for_line(&mut exec, "up");
        wait_until("it runs", || running(&sleep));
        let pid = Pid::from_raw(exec.id() as i32);
        if mark == 11 {
            kill(pid, Signal::SIGTERM).unwrap();
            assert_eq!(exec.wait().unwrap().code(), Some(143));
        } else {
            kill(pid, Signal::SIGKILL).unwrap();
            exec.wait().unwrap();
        }
        wait_until("it has ended", || !running(&sleep));
    }
    let sleep = marked_sleep(13);
    let mut exec = host.ctl(&["exec", "x", "sh", "-c", &format!("echo up; exec {sleep}")]);
    let mut exec = exec.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut exec, "up");
    host.stdout(&["rm", "-f", "x"]);
    assert_eq!(exec.wait().unwrap().code(), Some(137));
    assert!(!running(&sleep));
}

#[test]
fn stop_asks_and_then_kills() {
    let host = Host::new();
    host.start(
        "good",
        &[],
        &[
            "sh",
            "-c",
            "trap 'exit 9' TERM; while :; do sleep 0.02; done",
        ],
    );
    host.start(
        "deaf",
        &[],
        &["sh", "-c", "trap '' TERM; echo up; sleep 600 & wait"],
    );
    wait_until("it is deaf", || host.stdout(&["logs", "deaf"]) == "up\n");
    assert_eq!(host.stdout(&["stop", "good"]), "good\n");
    assert_eq!(host.stdout(&["wait", "good"]), "9\n");
    assert_eq!(host.stdout(&["stop", "-t", "0", "deaf"]), "deaf\n");
    assert_eq!(host.stdout(&["wait", "deaf"]), "137\n");
    // One that has ended is left as it is.
    assert_eq!(host.stdout(&["stop", "good"]), "good\n");
    host.refused(&["kill", "good"], 1, "container good is not running");
    host.refused(
        &["exec", "good", "true"],
        1,
        "container good is not running",
    );
    assert_eq!(host.stdout(&["rm", "good", "deaf"]), "good\ndeaf\n");
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn signals_reach_the_command_of_kill() {
    let host = Host::new();
    // ABRT would be fatal to an init that did not pass it on.
    for signal in ["USR1", "SIGABRT", "1", "SEGV"] {
        let trapped = signal.trim_start_matches("SIG");
        let script = format!("trap 'exit 44' {trapped}; echo up; while :; do sleep 0.02; done");
        host.start("x", &[], &["sh", "-c", &script]);
        wait_until("it is ready", || host.stdout(&["logs", "x"]) == "up\n");
        assert_eq!(host.stdout(&["kill", "-s", signal, "x"]), "x\n");
        assert_eq!(host.stdout(&["wait", "x"]), "44\n", "{signal}");
        host.stdout(&["rm", "x"]);
    }
    host.start("x", &[], &["sleep", "600"]);
    host.refused(
        &["kill", "-s", "NOSUCH", "x"],
        1,
        "invalid --signal \"NOSUCH\": a signal by name or number from 1 to 31, but not STOP",
    );
    assert_eq!(host.state("x").as_deref(), Some("running"));
    host.stdout(&["kill", "x"]);
    assert_eq!(host.stdout(&["wait", "x"]), "137\n");
}

#[test]
fn the_third_ctrl_c_is_the_last() {
    let host = Host::new();
    let script = "trap 'echo no' INT; echo up; while :; do sleep 0.02; done";
    let mut run = host.command(&["--rm"], &["sh", "-c", script]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(run.stdout.take().unwrap());
    let mut expect = |line: &str| {
        let mut read = String::new();
        std::io::BufRead::read_line(&mut output, &mut read).unwrap();
        assert_eq!(read.trim(), line);
    };
    let interrupt = || kill(Pid::from_raw(run.id() as i32), Signal::SIGINT).unwrap();
    expect("up");
    interrupt();
    expect("no");
    interrupt();
    expect("no");
    interrupt();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn rm_takes_what_runs_by_force_only() {
    let host = Host::new();
    host.start("x", &[], &["sleep", "600"]);
    host.refused(
        &["rm", "x"],
        1,
        "container x is running: stop it first, or remove it by force",
    );
    assert_eq!(host.state("x").as_deref(), Some("running"));
    assert_eq!(host.stdout(&["rm", "-f", "x"]), "x\n");
    assert_eq!(host.records(), Vec::<PathBuf>::new());
    host.refused(&["rm", "x"], 1, "no such container: x");
    let forced = host.output(&["rm", "-f", "x"]);
    assert!(forced.status.success(), "{forced:?}");
}

#[test]
fn a_name_is_one_containers_at_a_time() {
    let host = Host::new();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| host.run(&["-d", "--name", "one"], &["sleep", "600"])))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|run| run.status.success());
    assert_eq!(won.len(), 1, "{outcomes:?}");
    let id = String::from_utf8(won[0].stdout.clone()).unwrap();
    for run in lost {
        assert_eq!(run.status.code(), Some(125));
        assert_eq!(
            stderr(run),
            format!(
                "ipvlan-ctl: the container name \"one\" is in use by container {}: \
                 remove that one first, or take another name\n",
                &id[..12]
            )
        );
    }
    assert_eq!(host.stdout(&["ps", "-q"]), id[..12].to_owned() + "\n");
    assert_eq!(host.records().len(), 1, "{:?}", host.records());
    host.stdout(&["rm", "-f", "one"]);
    // Also one that has ended holds it, until it is removed.
    host.start("one", &[], &["true"]);
    host.stdout(&["wait", "one"]);
    assert_eq!(
        host.run(&["--name", "one"], &["true"]).status.code(),
        Some(125)
    );
    host.stdout(&["rm", "one"]);
    stdout(host.run(&["--rm", "--name", "one"], &["true"]));
}

#[test]
fn ps_lists_and_filters() {
    let host = Host::new();
    assert_eq!(
        host.stdout(&["ps"]),
        "CONTAINER ID   COMMAND   CREATED   STATUS   NETWORKS   NAMES\n"
    );
    host.start("up", &[], &["sleep", "600"]);
    host.start("down", &[], &["sh", "-c", "exit 4"]);
    host.stdout(&["wait", "down"]);
    let names = |words: &[&str]| {
        let lines = host.stdout(&[&["ps", "--format", "json"], words].concat());
        let mut names: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| row["Names"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "up");
    assert_eq!(names(&["-a"]), "down up");
    assert_eq!(names(&["--filter", "status=exited"]), "down");
    assert_eq!(names(&["--filter", "exited=4"]), "down");
    assert_eq!(names(&["--filter", "exited=0"]), "");
    assert_eq!(names(&["-a", "--filter", "name=u"]), "up");
    assert_eq!(
        names(&["-a", "--filter", "name=u", "--filter", "name=w"]),
        "down up"
    );
    assert_eq!(
        names(&["-a", "--filter", "name=u", "--filter", "status=exited"]),
        ""
    );
    let table = host.stdout(&["ps", "-a"]);
    assert!(table.contains("Exited (4) "), "{table}");
    assert!(table.contains("\"sleep 600\""), "{table}");
    host.refused(
        &["ps", "--filter", "image=x"],
        1,
        "invalid --filter \"image=x\": KEY=VALUE, where KEY is exited, id, name, network, status",
    );
    host.stdout(&["rm", "-f", "up", "down"]);
}

#[test]
fn inspect_has_dockers_fields() {
    let host = Host::new();
    host.start("x", &["-e", "A=1", "-w", "/usr"], &["sleep", "600"]);
    let inspect = || -> Value {
        let mut list: Value = serde_json::from_str(&host.stdout(&["inspect", "x"])).unwrap();
        list[0].take()
    };
    let seen = inspect();
    assert_eq!(seen["Name"], "/x");
    assert_eq!(seen["Path"], "sleep");
    assert_eq!(seen["Args"], serde_json::json!(["600"]));
    assert_eq!(seen["State"]["Status"], "running");
    assert_eq!(seen["Config"]["WorkingDir"], "/usr");
    let env = seen["Config"]["Env"].as_array().unwrap();
    assert!(env.contains(&"A=1".into()), "{env:?}");
    let pid = seen["State"]["Pid"].as_i64().unwrap();
    assert_eq!(
        fs::read(format!("/proc/{pid}/cmdline")).unwrap()[..10],
        *b"ipvlan-ctl"
    );
    assert_eq!(
        seen["NetworkSettings"]["SandboxKey"],
        format!("/proc/{pid}/ns/net")
    );
    assert!(Path::new(seen["HostsPath"].as_str().unwrap()).exists());
    host.stdout(&["kill", "x"]);
    host.stdout(&["wait", "x"]);
    let seen = inspect();
    assert_eq!(seen["State"]["Status"], "exited");
    assert_eq!(seen["State"]["ExitCode"], 137);
    assert_eq!(seen["State"]["Pid"], 0);
    host.stdout(&["rm", "x"]);
    let missing = host.output(&["inspect", "x"]);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(missing.stdout, b"[]\n");
    assert_eq!(
        stderr(&missing),
        "ipvlan-ctl: no such container or network: x\n"
    );
}

#[test]
fn logs_are_kept_and_followed() {
    let host = Host::new();
    // What goes to two outputs comes in no certain order.
    let script = "wait_for() { until test -e /tmp/$1; do sleep 0.02; done; }
                  echo two >&2; wait_for begin; echo one; echo three; wait_for end; printf four";
    host.start("x", &[], &["sh", "-c", script]);
    wait_until("it has written", || {
        stderr(&host.output(&["logs", "x"])) == "two\n"
    });
    host.stdout(&["exec", "x", "touch", "/tmp/begin"]);
    wait_until("it has written", || {
        host.stdout(&["logs", "x"]) == "one\nthree\n"
    });
    assert_eq!(host.stdout(&["logs", "--tail", "1", "x"]), "three\n");
    assert_eq!(host.stdout(&["logs", "-n", "0", "x"]), "");
    let stamped = host.stdout(&["logs", "-t", "--tail", "1", "x"]);
    let (time, line) = stamped.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(line, "three\n");
    host.refused(
        &["logs", "--tail", "-1", "x"],
        1,
        "invalid --tail \"-1\": a number of lines, or all",
    );
    let mut follow = host.ctl(&["logs", "-f", "--tail", "1", "x"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut follow, "three");
    host.stdout(&["exec", "x", "touch", "/tmp/end"]);
    assert_eq!(stdout(follow.wait_with_output().unwrap()), "four");
    assert_eq!(host.stdout(&["logs", "-f", "x"]), "one\nthree\nfour");
    host.stdout(&["rm", "x"]);
}

/// Nothing is left on the host that a killed process made, once the next command has run.
#[test]
fn whoever_is_killed_nothing_leaks() {
    let host = Host::new();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for (remove, victim) in [
        (true, "supervisor"),
        (false, "supervisor"),
        (true, "init"),
        (false, "init"),
    ] {
        let options: &[&str] = if remove { &["--rm"] } else { &[] };
        let sleep = marked_sleep(20);
        host.start("x", options, &["sh", "-c", &sleep]);
        wait_until("it runs", || running(&sleep));
        let record = fs::read_to_string(host.records()[0].join("container.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        let pid = record[victim]["pid"].as_i64().unwrap() as i32;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_until("it has ended", || !running(&sleep));
        wait_until("that is seen", || {
            host.state("x").as_deref() != Some("running")
        });
        match (remove, victim) {
            (false, "supervisor") => assert_eq!(host.state("x").as_deref(), Some("dead")),
            (false, _) => assert_eq!(host.stdout(&["wait", "x"]), "137\n"),
            (true, _) => {}
        }
        host.stdout(&["repair"]);
        assert_eq!(host.records().len(), usize::from(!remove), "{victim}");
        if !remove {
            assert_eq!(host.stdout(&["rm", "x"]), "x\n");
        }
        assert_eq!(host.records(), Vec::<PathBuf>::new());
        assert_eq!(mounts(), before);
    }
}

#[test]
fn the_name_of_one_that_was_killed_is_free() {
    let host = Host::new();
    let sleep = marked_sleep(21);
    let mut run = host.command(&["--rm", "--name", "x"], &["sh", "-c", &sleep]);
    let mut run = run.spawn().unwrap();
    wait_until("it runs", || running(&sleep));
    run.kill().unwrap();
    run.wait().unwrap();
    stdout(host.run(&["--rm", "--name", "x"], &["true"]));
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

/// As with `… | head -1`: the command hears that nobody reads any more.
#[test]
fn a_reader_that_leaves_ends_the_command() {
    let host = Host::new();
    let mut run = host.command(&["--rm"], &["yes"]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut run, "y");
    drop(run.stdout.take());
    assert_eq!(run.wait().unwrap().code(), Some(128 + 13));
}

/// `run` killed at some moment on its way: no folder stays but what a dead container has.
#[test]
fn a_run_that_is_killed_early_leaves_nothing() {
    let host = Host::new();
    for after in 0..12 {
        let mut run = host.command(&["--rm", "--name", "x"], &["sleep", "600"]);
        let mut run = run.spawn().unwrap();
        thread::sleep(std::time::Duration::from_millis(3 * after));
        run.kill().unwrap();
        run.wait().unwrap();
        host.stdout(&["repair"]);
        assert_eq!(host.records(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_root_of_its_own() {
    let host = Host::new();
    let root = busybox_root();
    let path = root.path().to_str().unwrap();
    let run = |options: &[&str], script: &str| {
        let options = [&["--rm", "--rootfs", path], options].concat();
        host.run(&options, &["sh", "-ec", script])
    };
    let seen = stdout(run(
        &["--name", "db"],
        "cat /etc/hostname; touch /home/mine; ls /; ls /dev/null; pwd",
    ));
    assert_eq!(seen, "db\nbin\ndev\netc\nhome\nproc\nsys\n/dev/null\n/\n");
    assert!(root.path().join("home/mine").exists());
    // The host sees none of what was mounted there, and the files of /etc are empty.
    assert_eq!(fs::read(root.path().join("etc/hosts")).unwrap(), b"");
    assert_eq!(fs::read_dir(root.path().join("proc")).unwrap().count(), 0);

    let user = stdout(run(
        &["-u", "web"],
        "id; echo $HOME; grep CapEff /proc/self/status",
    ));
    assert_eq!(
        user,
        "uid=33(web) gid=34(web) groups=34(web),4(adm)\n/home\nCapEff:\t0000000000000000\n"
            .replace("groups=34(web),4(adm)", "groups=4(adm)")
    );
    let user = stdout(run(
        &["-u", "1000:34", "-w", "/made/here"],
        "id -u; id -g; pwd; echo $HOME",
    ));
    assert_eq!(user, "1000\n34\n/made/here\n/\n");
    let unknown = run(&["-u", "nobody"], "true");
    assert_eq!(unknown.status.code(), Some(125));
    assert_eq!(
        stderr(&unknown),
        "ipvlan-ctl: cannot set the container up: the container knows no user \"nobody\"\n"
    );
    host.refused(
        &["run", "--net", "none", "--rootfs", "/no/such", "true"],
        125,
        "invalid --rootfs \"/no/such\": a directory that is there",
    );
}

/// A root in which somebody has put symlinks where we mount.
#[test]
fn a_root_with_traps_is_refused() {
    for trap in ["proc", "sys", "dev", "etc"] {
        let host = Host::new();
        let root = busybox_root();
        let _ = fs::remove_dir_all(root.path().join(trap));
        std::os::unix::fs::symlink("/home", root.path().join(trap)).unwrap();
        let path = root.path().to_str().unwrap();
        let refused = host.run(&["--rm", "--rootfs", path], &["sh", "-c", "echo in"]);
        assert_eq!(refused.status.code(), Some(125), "{trap}: {refused:?}");
        assert_eq!(refused.stdout, b"");
        assert_eq!(stderr(&refused).lines().count(), 1, "{refused:?}");
        assert_eq!(host.records(), Vec::<PathBuf>::new());
    }
    // And where users are looked up.
    let host = Host::new();
    let root = busybox_root();
    fs::remove_file(root.path().join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(
        &root.path().join("etc/passwd"),
        nix::sys::stat::Mode::S_IRUSR,
    )
    .unwrap();
    let path = root.path().to_str().unwrap();
    let refused = host.run(&["--rm", "--rootfs", path], &["sh", "-c", "echo in"]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
}

/// A script whose interpreter is `/proc/self/exe` is this program when we execute it. A container
/// that opens it there still can change nothing about the host's file.
#[test]
fn the_program_cannot_be_reached_for_writing() {
    let host = Host::new();
    host.start("x", &["--cap-add", "SYS_PTRACE"], &["sleep", "600"]);
    // By a name that makes it wait for its input; found by an empty PATH, it has no folder.
    let trap = "echo '#!/proc/self/exe' > /tmp/_shim; chmod 755 /tmp/_shim";
    host.stdout(&["exec", "x", "sh", "-ec", trap]);
    let mut trapped = host.ctl(&["exec", "-i", "-e", "PATH=", "-w", "/tmp", "x", "_shim"]);
    let mut trapped = trapped.stdin(Stdio::piped()).spawn().unwrap();
    let attack = "until exe=$(grep -lsz '^_shim$' /proc/[0-9]*/cmdline); do sleep 0.02; done
                  exec 3<${exe%cmdline}exe
                  chmod 755 /proc/self/fd/3 && echo changed; echo over";
    let mut attack = host.ctl(&["exec", "x", "sh", "-c", attack]);
    let output = attack.output().unwrap();
    drop(trapped.stdin.take());
    trapped.wait().unwrap();
    assert_eq!(output.stdout, b"over\n", "{output:?}");
    assert!(
        stderr(&output).contains("Read-only file system"),
        "{output:?}"
    );
    host.stdout(&["rm", "-f", "x"]);
}

#[test]
fn capabilities_are_added_and_dropped() {
    let host = Host::new();
    let effective = |options: &[&str]| {
        let options = [&["--rm"], options].concat();
        let seen = stdout(host.run(&options, &["grep", "CapEff", "/proc/self/status"]));
        u64::from_str_radix(seen.trim().rsplit('\t').next().unwrap(), 16).unwrap()
    };
    assert_eq!(effective(&["--cap-drop", "ALL"]), 0);
    assert_eq!(
        effective(&["--cap-drop", "all", "--cap-add", "NET_ADMIN"]),
        1 << 12
    );
    // As much as this test has itself.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    let all = effective(&["--cap-add", "ALL"]);
    assert_eq!(format!("{all:016x}"), own);
    assert_eq!(
        effective(&["--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"]),
        all & !(1 << 21)
    );
    host.refused(
        &["run", "--net", "none", "--cap-add", "FLY", "true"],
        125,
        "invalid --cap-add \"FLY\": ALL, or a capability of this kernel such as NET_ADMIN",
    );
    // The init can pass signals on to a user that is not its own, whatever the command may do.
    let mut run = host.command(
        &["--rm", "--cap-drop", "ALL", "-u", "1000"],
        &["sh", "-c", "echo up; exec sleep 600"],
    );
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut run, "up");
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let host = Host::new();
    for (options, complaint) in [
        (["-m", "5m"], "invalid --memory \"5m\": "),
        (["--cpus", "0"], "invalid --cpus \"0\": "),
    ] {
        let refused = host.run(&options, &["true"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(stderr(&refused).contains(complaint), "{refused:?}");
    }
    let controllers = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let point = Path::new(mount.split(' ').nth(4)?);
        fs::read_to_string(point.join("cgroup.controllers")).ok()
    };
    // Where there is such a controller, the kernel tests show that it works.
    if !controllers().is_some_and(|there| there.contains("memory")) {
        let refused = host.run(&["-m", "64m"], &["true"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(
            stderr(&refused).starts_with("ipvlan-ctl: --memory needs the controller \"memory\""),
            "{refused:?}"
        );
    }
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn published_ports_are_ignored_with_one_warning() {
    let host = Host::new();
    let output = host.run(
        &["--rm", "-p", "80:80", "-p", "81:81", "--expose", "90", "-P"],
        &["true"],
    );
    assert!(output.status.success());
    assert_eq!(stderr(&output).lines().count(), 1);
    assert!(stderr(&output).starts_with("WARNING: published ports are ignored"));
}
