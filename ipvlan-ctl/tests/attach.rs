//! What [`runtime::run`] promises to the network side of a container. Needs root.
//!
//! Without the standard harness: the runtime executes its own binary again as the container's
//! init, so this program must be able to be that, too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::bail;
use ipvlan_ctl::kernel::Netns;
use ipvlan_ctl::model::Id;
use ipvlan_ctl::runtime::{
    Attach, Attached, Console, Container, Dns, Limits, Process, RunDir, RunError, Spec, Status,
    Task, User, init, run,
};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(init::SUBCOMMAND) => return init::main(words.next().unwrap().parse().unwrap()),
        Some(HANG) => {
            let _ended = run_script(&mut Hang, &["true"]);
            unreachable!("it hangs until killed");
        }
        _ => {}
    }
    assert!(
        nix::unistd::Uid::effective().is_root(),
        "these tests make namespaces: run them as root"
    );
    let mut arguments = Arguments::from_args();
    // A run reaps and watches children of the whole process: one at a time.
    arguments.test_threads = Some(1);
    let tests = vec![
        Trial::test("the_command_waits_for_its_network", the_command_waits),
        Trial::test("a_failed_attach_leaves_nothing", a_failed_attach),
        Trial::test("a_command_not_found_releases_the_network", not_found),
        Trial::test(
            "killed_while_attaching_it_leaves_no_process",
            killed_while_attaching,
        ),
        Trial::test("a_failed_detach_is_told", a_failed_detach),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Records the calls it gets; fails the one named.
#[derive(Default)]
struct Recorder {
    fail: Option<&'static str>,
    calls: Vec<&'static str>,
    container: Option<Container>,
    netns: Option<String>,
}

impl Recorder {
    fn failing(call: &'static str) -> Self {
        Self {
            fail: Some(call),
            ..Self::default()
        }
    }

    fn called(&mut self, call: &'static str, container: &Container) -> anyhow::Result<()> {
        self.calls.push(call);
        self.container = Some(container.clone());
        if self.fail == Some(call) {
            bail!("{call} refused");
        }
        Ok(())
    }
}

/// Has this program attach for ever, as a supervisor to be killed.
const HANG: &str = "_hang";

struct Hang;

impl Attach for Hang {
    fn attach(&mut self, container: &Container, _: &Netns) -> anyhow::Result<Attached> {
        println!("{}", serde_json::to_string(container)?);
        loop {
            std::thread::park();
        }
    }

    fn detach(&mut self, _: &Container, _: &Netns) -> anyhow::Result<()> {
        unreachable!()
    }
}

fn link_of_netns() -> String {
    let link = fs::read_link("/proc/thread-self/ns/net").unwrap();
    link.into_os_string().into_string().unwrap()
}

impl Attach for Recorder {
    fn attach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<Attached> {
        assert_eq!(container.started, None);
        let init = init_of(container);
        assert!(init.is_alive());
        let inside = netns.run(link_of_netns)?;
        assert_ne!(inside, link_of_netns());
        self.netns = Some(inside);
        // Given time to run ahead, the command does not.
        std::thread::sleep(Duration::from_millis(100));
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid))?;
        assert_eq!(children, "");
        self.called("attach", container)?;
        Ok(Attached {
            addresses: vec!["10.9.8.7".parse()?, "fd00::7".parse()?],
            resolver: Some("127.0.0.11".parse()?),
        })
    }

    fn detach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<()> {
        assert!(!init_of(container).is_alive());
        assert_eq!(Some(netns.run(link_of_netns)?), self.netns);
        self.called("detach", container)
    }
}

fn init_of(container: &Container) -> Process {
    container.init.expect("an init")
}

/// Runs a script in the background's way; returns its output too, and how it is recorded.
fn run_script(
    network: &mut dyn Attach,
    command: &[&str],
) -> (Result<u8, RunError>, String, Option<Status>) {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = RunDir::new(folder.path());
    let spec = Spec {
        id: Id::random(),
        name: "db".into(),
        hostname: "db".into(),
        dns: Dns::default(),
        task: Task {
            command: command.iter().map(|&word| word.into()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            workdir: None,
            user: User::default(),
            capabilities: Vec::new(),
            tty: false,
            interactive: false,
        },
        networks: Vec::new(),
        rootfs: None,
        limits: Limits::default(),
        remove: false,
    };
    // It takes our standard error for the shim's log.
    let ours = nix::unistd::dup(std::io::stderr()).unwrap();
    let result = run(&run_dir, &spec, network, Console::Detached, || {});
    nix::unistd::dup2_stderr(ours).unwrap();
    // Nobody is left, not even to be waited for.
    assert!(nix::sys::wait::waitpid(None, None).is_err());
    let mut output = String::new();
    let status = run_dir.find("db").ok().map(|record| {
        record
            .logs(None, false, |entry| {
                output += &entry.log;
                Ok(())
            })
            .unwrap();
        record.status()
    });
    (result, output, status)
}

fn the_command_waits() -> Result<(), Failed> {
    let mut network = Recorder::default();
    let (result, seen, status) = run_script(
        &mut network,
        &[
            "sh",
            "-c",
            "readlink /proc/self/ns/net; cat /etc/hosts /etc/resolv.conf; exit 5",
        ],
    );
    assert_eq!(result?, 5);
    assert_eq!(network.calls, ["attach", "detach"]);
    assert!(network.container.unwrap().started.is_some());
    assert_eq!(seen.lines().next(), network.netns.as_deref());
    let hosts_then_resolver = "10.9.8.7\tdb\nfd00::7\tdb\nnameserver 127.0.0.11\n";
    assert!(seen.contains(hosts_then_resolver), "{seen}");
    assert!(matches!(status, Some(Status::Exited(end)) if end.status == 5));
    Ok(())
}

fn a_failed_attach() -> Result<(), Failed> {
    let mut network = Recorder::failing("attach");
    let (result, seen, status) = run_script(&mut network, &["echo", "ran"]);
    let error = result.unwrap_err();
    assert_eq!(
        (error.to_string(), error.exit_status()),
        ("attach refused".into(), 125)
    );
    assert_eq!(network.calls, ["attach"]);
    assert!(!init_of(&network.container.unwrap()).is_alive());
    assert_eq!((seen.as_str(), status), ("", None));
    Ok(())
}

fn not_found() -> Result<(), Failed> {
    let mut network = Recorder::default();
    let (result, _, status) = run_script(&mut network, &["no-such-program"]);
    assert_eq!(result.unwrap_err().exit_status(), 127);
    assert_eq!(network.calls, ["attach", "detach"]);
    assert_eq!(status, None);
    Ok(())
}

fn a_failed_detach() -> Result<(), Failed> {
    let mut network = Recorder::failing("detach");
    let (result, _, status) = run_script(&mut network, &["true"]);
    assert_eq!(
        result.unwrap_err().to_string(),
        "the container ended, but cannot release its network: detach refused"
    );
    assert!(matches!(status, Some(Status::Exited(end)) if end.status == 0));
    let mut network = Recorder::failing("detach");
    let (result, _, _) = run_script(&mut network, &["no-such-program"]);
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 127);
    assert_eq!(
        error.to_string(),
        "command \"no-such-program\" not found in the container; \
         and then cannot release what it had: detach refused"
    );
    Ok(())
}

fn killed_while_attaching() -> Result<(), Failed> {
    let mut supervisor = Command::new(std::env::current_exe()?)
        .arg(HANG)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line)?;
    let container: Container = serde_json::from_str(&line)?;
    assert_eq!(container.supervisor.pid, supervisor.id() as i32);
    let init = init_of(&container);
    assert!(init.is_alive() && !init.wait(Some(Duration::ZERO))?);
    supervisor.kill()?;
    supervisor.wait()?;
    assert!(
        init.wait(Some(Duration::from_secs(10)))?,
        "the init outlives its supervisor"
    );
    Ok(())
}
