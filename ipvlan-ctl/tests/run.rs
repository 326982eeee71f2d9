//! `ipvlan-ctl run --net none`, as a user calls it. Needs root: namespaces are real here.

mod host;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use host::{BINARY, Host, marked_sleep, running, stderr, stdout, wait_for_line, wait_until};

/// The signals below 32 in a mask of /proc/PID/status. The C library keeps 32 and 33 to itself,
/// so their disposition is whatever the test's caller had.
fn standard_signals(mask: &str) -> u64 {
    u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff
}

#[test]
fn exit_status_is_the_commands() {
    let host = Host::new();
    let status = |script: &str| host.run(&["--rm"], &["sh", "-c", script]).status.code();
    assert_eq!(status("exit 0"), Some(0));
    assert_eq!(status("exit 7"), Some(7));
    assert_eq!(status("kill -KILL $$"), Some(128 + 9));
    assert_eq!(status("kill -TERM $$"), Some(128 + 15));
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_executed_is_told_and_leaves_nothing() {
    let host = Host::new();
    for options in [&["--rm"][..], &["-d"]] {
        let missing = host.run(options, &["no-such-program"]);
        assert_eq!(missing.status.code(), Some(127), "{options:?}");
        assert_eq!(
            stderr(&missing),
            "ipvlan-ctl: command \"no-such-program\" not found in the container\n"
        );
        let text = host.run(options, &["/etc/hosts"]);
        assert_eq!(text.status.code(), Some(126), "{options:?}");
        assert_eq!(
            stderr(&text),
            "ipvlan-ctl: cannot execute \"/etc/hosts\" in the container: Permission denied (os error 13)\n"
        );
        assert_eq!(missing.stdout, b"");
        let image = host.run(options, &["no-such-image", "/bin/sh"]);
        assert_eq!(
            stderr(&image),
            "ipvlan-ctl: command \"no-such-image\" not found in the container: \
             there are no images, the first word is the command\n"
        );
        assert_eq!(host.records(), Vec::<PathBuf>::new());
    }
}

#[test]
fn wrong_words_are_refused() {
    let host = Host::new();
    for (options, complaint) in [
        (
            &["--ip", "10.0.0.2"][..],
            "invalid --ip \"10.0.0.2\": not possible with --net none",
        ),
        (
            &["--alias", "x"],
            "invalid --network-alias \"x\": not possible with --net none",
        ),
        (&["--name", "a b"], "invalid --name \"a b\": "),
        (&["--hostname", "-x"], "invalid --hostname \"-x\": "),
    ] {
        let refused = host.run(options, &["true"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(
            stderr(&refused).starts_with(&format!("ipvlan-ctl: {complaint}")),
            "{refused:?}"
        );
        assert_eq!(stderr(&refused).lines().count(), 1);
        assert_eq!(host.records(), Vec::<PathBuf>::new());
    }
}

#[test]
fn others_than_root_are_refused_and_change_nothing() {
    let host = Host::new();
    for options in [&["--rm"][..], &["-d"]] {
        // As another user who could read and execute the binary and write the run directory.
        let shared = tempfile::tempdir().unwrap();
        let binary = shared.path().join("ipvlan-ctl");
        fs::copy(BINARY, &binary).unwrap();
        std::os::unix::fs::chown(shared.path(), Some(65534), None).unwrap();
        let refused = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups"])
            .arg(&binary)
            .args(["run", "--net", "none"])
            .args(options)
            .arg("true")
            .env("IPVLAN_CTL_RUN_DIR", shared.path().join("run"))
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(125));
        assert_eq!(
            stderr(&refused),
            "ipvlan-ctl: run needs root (effective user id 0), not user id 65534\n"
        );
        assert!(!shared.path().join("run").exists());
    }
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn names_and_files_of_etc_are_the_containers() {
    let host = Host::new();
    let look = "hostname; cat /etc/hostname; cat /etc/hosts; echo HOSTNAME=$HOSTNAME";
    let seen = stdout(host.run(&["--rm", "--name", "db"], &["sh", "-c", look]));
    assert!(
        seen.starts_with("db\ndb\n127.0.0.1\tlocalhost\n::1\tlocalhost "),
        "{seen}"
    );
    assert!(seen.ends_with("HOSTNAME=db\n"), "{seen}");

    let seen = stdout(host.run(
        &["--rm", "--name", "db", "--hostname", "h.lan"],
        &["hostname"],
    ));
    assert_eq!(seen, "h.lan\n");

    let seen = stdout(host.run(&["--rm"], &["hostname"]));
    assert!(
        seen.len() == 13 && seen.trim().chars().all(|c| c.is_ascii_hexdigit()),
        "{seen}"
    );

    let of_host = fs::read_to_string("/etc/resolv.conf").unwrap();
    let seen = host.sh("cat /etc/resolv.conf");
    let reachable = of_host
        .lines()
        .filter(|line| !line.starts_with("nameserver 127."))
        .map(|line| format!("{line}\n"));
    assert_eq!(seen, reachable.collect::<String>());
}

/// resolv.conf is a dangling link, and there is no hosts nor hostname.
#[test]
fn an_etc_without_the_files_serves_too_and_is_not_changed() {
    let host = Host::new();
    let script = format!(
        "mount -t tmpfs none /etc
         ln -s /run/no/such/resolv.conf /etc/resolv.conf
         {BINARY} run --net none --rm --name db sh -ec '
            cat /etc/hostname /etc/hosts; test -f /etc/resolv.conf; test ! -s /etc/resolv.conf
            ! touch /etc/other; ls /tmp'
         ls -A /etc; ls -d /run/no || true"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", &script])
        .env("IPVLAN_CTL_RUN_DIR", host.run_dir.path())
        .output()
        .unwrap();
    let seen = stdout(output);
    assert!(seen.starts_with("db\n127.0.0.1\tlocalhost\n"), "{seen}");
    assert!(seen.ends_with("ip6-allrouters\nresolv.conf\n"), "{seen}");
}

#[test]
fn it_sees_only_its_own_processes_and_devices() {
    let host = Host::new();
    let seen = host.sh("set -- /proc/[0-9]*; echo $#; cat /proc/1/cmdline | tr '\\0' ' '");
    let (count, init) = seen.trim().split_once('\n').unwrap();
    assert!(init.starts_with("ipvlan-ctl _init "), "{init}");
    // The init and the shell.
    assert_eq!(count, "2");
    assert_eq!(host.sh("ls /sys/class/net"), "lo\n");
    assert_eq!(
        host.sh("ping -qc1 -W2 127.0.0.1 >&2 && ping -qc1 -W2 ::1 >&2"),
        ""
    );
    assert_eq!(
        host.sh("ls /dev"),
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
}

#[test]
fn the_host_is_read_only_and_tmp_private() {
    let host = Host::new();
    let on_host = tempfile::tempdir().unwrap();
    let mark = on_host.path().join("mark");
    fs::write(&mark, "").unwrap();
    let mark = mark.display();
    host.sh(&format!(
        "! test -e {mark}; echo x > /tmp/mine; echo x > /run/mine; echo x > /dev/shm/mine"
    ));
    assert!(!Path::new("/tmp/mine").exists() && !Path::new("/run/mine").exists());

    let writes = [
        ("touch /mine", "Read-only file system"),
        ("touch /usr/mine", "Read-only file system"),
        ("echo x >> /etc/hosts", "Read-only file system"),
        ("echo x >> /etc/resolv.conf", "Read-only file system"),
        (
            "echo h > /proc/sys/kernel/hostname",
            "Read-only file system",
        ),
        (
            "echo 0 > /proc/irq/default_smp_affinity",
            "Read-only file system",
        ),
        ("echo 1 > /sys/kernel/mm/ksm/run", "Read-only file system"),
        ("mount -t tmpfs none /mnt", "permission denied"),
        ("mount -o remount,rw /", "permission denied"),
        ("umount /proc/sys", "must be superuser"),
        ("ip link set lo down", "Operation not permitted"),
        (
            "mknod /tmp/disk b 254 0; cat /tmp/disk",
            "Permission denied",
        ),
        ("cat /proc/1/environ", "Permission denied"),
        ("cat /proc/1/exe", "Permission denied"),
    ];
    let script: Vec<_> = writes
        .iter()
        .map(|(write, _)| format!("if ({write}) 2>&1; then echo done; fi; echo ---;"))
        .collect();
    let seen = host.sh(&script.concat());
    let complaints: Vec<_> = seen.split_terminator("---\n").collect();
    assert_eq!(complaints.len(), writes.len(), "{seen}");
    for ((write, reason), complaint) in writes.iter().zip(complaints) {
        assert!(
            complaint.contains(reason) && !complaint.contains("done"),
            "{write}: {complaint}"
        );
    }
}

#[test]
fn privileges_are_dockers_defaults() {
    let host = Host::new();
    let status = host.sh("cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
    // sys_chroot mknod audit_write setfcap, by their bits.
    let docker = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]
        .iter()
        .fold(0_u64, |set, bit| set | 1 << bit);
    for (name, want) in [
        ("CapInh", 0),
        ("CapPrm", docker),
        ("CapEff", docker),
        ("CapBnd", docker),
        ("CapAmb", 0),
    ] {
        assert_eq!(
            u64::from_str_radix(&field(name), 16).unwrap(),
            want,
            "{name}"
        );
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("SigBlk"), "0000000000000000");
    assert_eq!(standard_signals(&field("SigIgn")), 0);
    // Enough to pass signals on: CAP_KILL. It keeps the rest until the command is on its way.
    let kill = format!("{:016x}", 1 << 5);
    host.sh(&format!(
        "until grep -q 'CapEff.*{kill}' /proc/1/status; do
             sleep 0.05; waited=x$waited; test ${{#waited}} -lt 400
         done"
    ));
}

#[test]
fn the_environment_is_its_own() {
    let host = Host::new();
    let output = host
        .command(&["--rm", "--name", "db"], &["env"])
        .env("SECRET", "leaks")
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    let mut seen: Vec<String> = stdout(output).lines().map(Into::into).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "HOME=/root",
            "HOSTNAME=db",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
    assert_eq!(host.sh("pwd"), "/\n");
}

/// Neither a descriptor that the caller left open nor its umask.
#[test]
fn nothing_else_of_the_caller_is_inherited() {
    let host = Host::new();
    for options in ["--rm", "-d"] {
        let output = Command::new("sh")
            .args([
                "-c",
                "umask 077; exec 7</etc 8>/dev/null; exec \"$@\"",
                "sh",
                BINARY,
            ])
            .args(["run", "--net", "none", options, "sh", "-c"])
            .arg("ls -x /proc/self/fd; umask; stat -c %a /etc/hosts /etc/resolv.conf")
            .env("IPVLAN_CTL_RUN_DIR", host.run_dir.path())
            .output()
            .unwrap();
        let mut seen = stdout(output);
        if options == "-d" {
            let id = seen.trim().to_owned();
            assert_eq!(host.stdout(&["wait", &id]), "0\n");
            seen = host.stdout(&["logs", &id]);
        }
        // The fourth is the folder that ls reads.
        assert_eq!(seen, "0  1  2  3\n0022\n644\n644\n", "{options}");
    }
}

#[test]
fn input_and_output_are_the_callers() {
    let host = Host::new();
    let mut child = host
        .command(&["--rm", "-i"], &["sh", "-c", "cat; echo oops >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "oops\n");
    assert_eq!(stdout(output), "through\n");
}

#[test]
fn orphans_are_reaped_and_end_with_the_command() {
    let host = Host::new();
    // The inner shell ends at once, so its child becomes the init's.
    let seen = host.sh(
        "for i in 1 2 3 4 5; do sh -c 'sleep 0.1 & exit 0'; done; sleep 0.6
         cat /proc/[0-9]*/status | grep -c '^State:.*zombie' || true",
    );
    assert_eq!(seen, "0\n");

    let sleep = marked_sleep(1);
    host.sh(&format!("setsid {sleep} & exit 0"));
    assert!(!running(&sleep));
}

#[test]
fn signals_reach_the_command_once() {
    let host = Host::new();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGQUIT, "QUIT"),
    ] {
        let script = format!(
            "n=0; trap 'n=$((n+1))' {name}; echo ready
             while [ $n -eq 0 ]; do sleep 0.02; done; sleep 0.2; exit $((40+n))"
        );
        let mut child = host
            .command(&["--rm"], &["sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_line(&mut child, "ready");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(41), "{name}");
    }
    let mut child = host
        .command(&["--rm"], &["sh", "-c", "echo ready; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child, "ready");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_caller_that_ignores_signals_changes_nothing() {
    let host = Host::new();
    let output = Command::new("sh")
        .args(["-c", "trap '' CHLD HUP TERM; exec \"$@\"", "sh", BINARY])
        .args(["run", "--net", "none", "--rm", "sh", "-c"])
        .arg("grep SigIgn /proc/self/status; exit 9")
        .env("IPVLAN_CTL_RUN_DIR", host.run_dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9));
    let seen = str::from_utf8(&output.stdout).unwrap();
    assert_eq!(
        standard_signals(seen.trim_start_matches("SigIgn:\t").trim()),
        0
    );
}

#[test]
fn killing_the_supervisor_ends_the_container() {
    let host = Host::new();
    let sleep = marked_sleep(2);
    let mut child = host
        .command(
            &["--rm"],
            &["sh", "-c", &format!("setsid {sleep} & echo ready; {sleep}")],
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child, "ready");
    wait_until("it runs", || running(&sleep));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("it has ended", || !running(&sleep));
    assert_eq!(host.records().len(), 1);
    host.stdout(&["repair"]);
    assert_eq!(host.records(), Vec::<PathBuf>::new());
}

#[test]
fn detached_it_runs_on_and_leaves_log_and_status() {
    let host = Host::new();
    let id = stdout(host.run(
        &["--detach", "--name", "db"],
        &["sh", "-c", "echo out; echo err >&2; cat; sleep 0.3; exit 3"],
    ));
    let id = id.trim();
    assert!(
        id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(host.stdout(&["wait", "db"]), "3\n");
    let logs = host.output(&["logs", "db"]);
    assert_eq!(stderr(&logs), "err\n");
    assert_eq!(stdout(logs), "out\n");
    let record = host.run_dir.path().join("containers/db");
    assert_eq!(fs::read_to_string(record.join("shim.log")).unwrap(), "");
}

#[test]
fn detached_with_rm_it_leaves_nothing() {
    let host = Host::new();
    stdout(host.run(&["-d", "--rm"], &["sleep", "0.3"]));
    assert_eq!(host.records().len(), 1);
    wait_until("the record is gone", || host.records().is_empty());
}

#[test]
fn killing_the_shim_ends_the_container() {
    let host = Host::new();
    let sleep = marked_sleep(3);
    stdout(host.run(&["-d"], &["sh", "-c", &sleep]));
    wait_until("it runs", || running(&sleep));
    // The command's parent is the init, and the init's the shim.
    let parent = |pid: i32| -> i32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("PPid:"))
            .unwrap();
        line[5..].trim().parse().unwrap()
    };
    let mut pid = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|found| found == (sleep.replace(' ', "\0") + "\0").as_bytes())
        })
        .unwrap();
    while fs::read(format!("/proc/{pid}/cmdline")).unwrap() != b"ipvlan-ctl\0_shim\0" {
        pid = parent(pid);
        assert!(pid > 1, "no shim above the command");
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("it has ended", || !running(&sleep));
}

#[test]
fn the_host_keeps_no_mount() {
    let host = Host::new();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let seen = host.sh("cat /proc/self/mountinfo");
    assert_ne!(seen, before);
    host.run(&["--rm"], &["no-such-program"]);
    assert_eq!(mounts(), before);
}
