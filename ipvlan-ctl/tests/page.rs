//! The daemon's page as a person has it: in Debian's Chromium, with a keyboard. Needs root.
//!
//! Figures are written into the real maps of a real daemon, since this host need not have ipvlan;
//! that they are those of the traffic is tested in the VMs.
//!
//! Without the standard harness: this program moves into namespaces of its own first.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use ipnetwork::IpNetwork;
use ipvlan_common::{ABI, Count, Counters, Family};
use ipvlan_ctl::kernel::NetnsIdentity;
use ipvlan_ctl::model::{AddressPlan, Id};
use ipvlan_ctl::store::{EndpointRow, State, Store, StoreError, boot_id};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Network, bpffs and /run of the test's own, where the named namespace has number 1.
const SANDBOX: &str = "mount -t bpf bpf /sys/fs/bpf
    mount -t tmpfs run /run
    ip link set lo up
    ip link add eth9 type veth peer name port0
    ip link set eth9 up
    ip netns add page
    ip netns set page 1
    exec \"$@\"";

const INSIDE: &str = "IPVLAN_CTL_TEST_SANDBOX";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-ec", SANDBOX, "sh"])
            .args(std::env::args_os())
            .env(INSIDE, "1")
            .status();
        let done = status.expect("unshare starts").success();
        return if done {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let tests = vec![Trial::test("the_page_in_chromium", || {
        the_page_in_chromium();
        Ok(())
    })];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ctl(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipvlan-ctl"));
    command
        .args(line.split(' '))
        .env("IPVLAN_CTL_STATE_DIR", folder)
        .env("IPVLAN_CTL_RUN_DIR", folder);
    command
}

/// Endpoints `cache`, `db` and `web` in slots 0, 1 and 2.
fn add_endpoints(folder: &Path) -> Result<(), StoreError> {
    let mut store = Store::open(folder)?;
    let network = store.records().networks()?.remove(0);
    let boot = boot_id()?;
    store.transaction(|records| {
        for (slot, name) in (0..).zip(["cache", "db", "web"]) {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_000a + slot));
            records.insert_endpoint(&EndpointRow {
                id: Id::from_stored(format!("{slot:064x}")),
                network: network.number,
                name: name.to_owned(),
                aliases: Vec::new(),
                servers: Vec::new(),
                slot,
                ifname: "eth0".into(),
                netns: "/run/netns/page".into(),
                nsid: 1,
                identity: NetnsIdentity {
                    cookie: 0,
                    inode: 0,
                },
                boot: boot.clone(),
                parent_index: network.parent_index,
                addresses: AddressPlan {
                    v4: IpNetwork::new(address, 24).ok(),
                    ..AddressPlan::default()
                },
                link_local: None,
                state: State::Ready,
                created: 0,
            })?;
        }
        Ok(())
    })
}

/// As if the endpoint in this slot had got so many packets of 1000 bytes.
fn set_received(slot: u32, packets: u64) {
    let pin = format!("/sys/fs/bpf/ipvlan-ctl/abi{ABI}/COUNTERS");
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut map: PerCpuArray<MapData, Counters> = map.try_into().unwrap();
    let mut values = vec![Counters::default(); nr_cpus().unwrap()];
    values[0].rx[Family::V4 as usize] = Count {
        packets,
        bytes: packets * 1000,
    };
    map.set(slot, PerCpuValues::try_from(values).unwrap(), 0)
        .unwrap();
}

/// Chromium without a window, as a person at its keyboard has it.
struct Browser {
    runtime: Runtime,
    client: Client,
    _profile: TempDir,
    _driver: Running,
}

impl Browser {
    /// Shows a page as who likes dark colours has it, or light ones.
    fn open(url: &str, dark: bool) -> Self {
        let driver = Command::new("chromedriver")
            .arg("--port=9515")
            .stdout(Stdio::null())
            .spawn();
        let driver = Running(driver.expect("chromedriver starts"));
        let profile = TempDir::new().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let mut words = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1000,1000",
            &folder,
        ];
        words.extend(dark.then_some("--force-dark-mode"));
        let wanted = json!({ "goog:chromeOptions": { "args": words } });
        let wanted = wanted.as_object().unwrap();
        let runtime = Runtime::new().unwrap();
        let mut session = None;
        eventually("chromium starts", || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            let builder = builder.capabilities(wanted.clone());
            session = runtime
                .block_on(builder.connect("http://127.0.0.1:9515"))
                .ok();
            session.is_some()
        });
        let client = session.expect("a session");
        runtime.block_on(client.goto(url)).unwrap();
        Self {
            runtime,
            client,
            _profile: profile,
            _driver: driver,
        }
    }

    /// The value of a JavaScript expression on the page.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        let value = self.runtime.block_on(self.client.execute(&script, vec![]));
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn shows(&self, expression: &str) {
        eventually(expression, || self.value(expression) == true);
    }

    /// Presses keys, wherever the focus is.
    fn press(&self, keys: &str) {
        self.runtime.block_on(async {
            let focused = self.client.active_element().await.unwrap();
            focused.send_keys(keys).await.unwrap();
        });
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}

fn the_page_in_chromium() {
    let folder = TempDir::new().unwrap();
    let create = "network create --subnet 10.0.0.0/24 -o parent=eth9 db_net";
    let created = ctl(folder.path(), create).output().unwrap();
    assert!(created.status.success(), "{created:?}");
    let daemon = ctl(folder.path(), "daemon --log warn --docker-plugin off").spawn();
    let _daemon = Running(daemon.unwrap());
    eventually("the daemon is ready", || {
        let status = ctl(folder.path(), "daemon status").output();
        status.unwrap().status.success()
    });
    // Only now: what is no endpoint to the kernel is removed when the daemon starts.
    add_endpoints(folder.path()).unwrap();
    set_received(1, 1000);

    let url = "http://127.0.0.1:9786/";
    let page = Browser::open(url, false);
    page.shows("document.getElementById('state').textContent === 'Live'");
    page.shows("document.querySelectorAll('tbody tr').length === 3");
    set_received(1, 2000);
    page.shows("document.querySelector('#traffic polyline.in').points.length > 1");
    page.shows("[...document.querySelectorAll('td')].some(cell => cell.textContent === '2.00M')");

    page.press("/10.0.0.11");
    page.shows("document.querySelectorAll('tbody tr').length === 1");
    let reached = "document.activeElement.closest('td')?.textContent === 'db'";
    for _ in 0..12 {
        if page.value(reached) == true {
            break;
        }
        page.press(&Key::Tab.to_string());
    }
    page.shows(reached);
    page.press(&Key::Enter.to_string());
    page.shows("document.activeElement.textContent === 'db'");
    page.shows("document.getElementById('about').textContent.includes('2000 packets, 2.00MB')");
    page.press(&Key::Escape.to_string());
    page.shows("document.getElementById('detail').hidden === true");
    page.shows(reached);
    page.press("p");
    page.shows("document.getElementById('state').textContent === 'Paused'");
    let urls = "performance.getEntriesByType('resource').map(entry => entry.name)";
    page.shows(&format!(
        "{urls}.every(url => url.startsWith(location.origin))"
    ));

    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(page.value(ground), "rgb(255, 255, 255)");
    drop(page);
    let page = Browser::open(url, true);
    assert_eq!(page.value(ground), "rgb(13, 17, 23)");
}
