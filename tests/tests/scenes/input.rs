//! Bad input and bad surroundings: one line that names the object, the cause and what to do; and nothing changes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Done, Ending, Host, Lab, run};

use super::support::complaint::complains;

/// A command that must fail, and words that its one line of complaint must have: of the object, the cause and the next step.
type Case = (&'static str, &'static [&'static str]);

/// `overlayctl` on h1, where `web` is 10.20.0.0/24 with `taken` (10.20.0.50) on h2; namespaces: `spare` is empty,
/// `used` has an interface `eth0`, `attached` is in `web`.
const CASES: &[Case] = &[
    // Networks.
    ("network inspect nope", &["nope", "no network", "network ls"]),
    ("network rm nope", &["nope", "no network", "network ls"]),
    ("fdb nope", &["nope", "no network", "network ls"]),
    ("lease ls nope", &["nope", "no network", "network ls"]),
    ("endpoint ls nope", &["nope", "no network", "network ls"]),
    ("network create web --subnet 10.99.0.0/24", &["web", "in use by network", "another name"]),
    ("network create new --subnet banana", &["banana", "subnet", "expected"]),
    ("network create new --subnet 10.20.0.0/33", &["10.20.0.0/33", "subnet", "expected"]),
    ("network create new --subnet 10.20.0.7/24", &["10.20.0.7/24", "10.20.0.0/24", "write"]),
    ("network create new --subnet 10.20.0.0/31", &["10.20.0.0/31", "choose"]),
    ("network create new --subnet 192.0.2.0/25", &["192.0.2.0/25", "overlaps", "choose"]),
    ("network create new --subnet 10.21.0.0/16 --subnet 10.21.5.0/24", &["both IPv4", "leave one out"]),
    ("network create new --subnet 10.21.0.0/24 --gateway 10.22.0.1", &["10.22.0.1", "10.21.0.0/24", "choose"]),
    ("network create new --subnet 10.21.0.0/24 --gateway here", &["here", "an IP address"]),
    ("network create bad/name --subnet 10.21.0.0/24", &["bad/name", "name", "1 to 63 letters"]),
    ("network rm web", &["web", "in use", "attached", "taken", "h2", "disconnect"]),
    // Endpoints.
    ("network connect nope --netns /run/netns/spare --name new", &["nope", "no network", "network ls"]),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.99.0.5",
        &["10.99.0.5", "outside", "10.20.0.0/24", "leave out"],
    ),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.20.0.1",
        &["10.20.0.1", "gateway", "10.20.0.0/24", "leave out"],
    ),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.20.0.0",
        &["10.20.0.0", "subnet itself", "leave out"],
    ),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.20.0.255",
        &["10.20.0.255", "broadcast", "web", "leave out"],
    ),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.20.0.50",
        &["10.20.0.50", "in use", "taken", "h2", "choose"],
    ),
    ("network connect web --netns /run/netns/spare --name new --ip 10.20.0", &["10.20.0", "expected", "prefix"]),
    ("network connect web --netns /run/netns/spare --name new --ip banana", &["banana", "expected", "172.38.0.11"]),
    (
        "network connect web --netns /run/netns/spare --name new --ip 10.20.0.5/24",
        &["10.20.0.5/24", "without a prefix length"],
    ),
    ("network connect web --netns /run/netns/spare --name taken", &["taken", "h2", "choose"]),
    ("network connect web --netns /run/netns/spare --name bad!name", &["bad!name", "1 to 63 letters"]),
    (
        "network connect web --netns /run/netns/spare --name new --mac 01:00:5e:00:00:01",
        &["01:00:5e:00:00:01", "unicast"],
    ),
    ("network connect web --netns /run/netns/spare --name new --mac zz", &["zz", "expected"]),
    (
        "network connect web --netns /run/netns/spare --name new --ifname far-too-long-for-linux",
        &["far-too-long-for-linux", "1 to 15 characters"],
    ),
    ("network connect web --netns /etc/passwd --name new", &["/etc/passwd", "network namespace", "/proc/PID"]),
    ("network connect web --netns /run/netns/missing --name new", &["/run/netns/missing", "/proc/PID"]),
    ("network connect web --pid 999999999 --name new", &["999999999", "container runs"]),
    ("network connect web --netns /run/netns/used --name new --ifname eth0", &["eth0", "--ifname"]),
    ("network connect web --netns /run/netns/attached --name new", &["10.20.0.0/", "`web`", "overlaps", "eth0"]),
    ("network connect web --netns /run/netns/spare --name new --gw-priority 1001", &["1001", "-1000 to 1000"]),
    ("network connect web --name new", &["--netns", "usage"]),
    ("network disconnect web nobody", &["nobody", "web", "endpoint ls"]),
    ("network disconnect nope taken", &["nope", "no network", "network ls"]),
    ("run --network nope --name new -- true", &["nope", "no network", "network ls"]),
    ("run --network web --name new --ip 10.20.0.50 -- true", &["10.20.0.50", "taken", "choose"]),
    // The daemon.
    ("--run-dir /run/nothing status", &["/run/nothing", "overlayd", "--run-dir"]),
    // Misuse.
    ("network frobnicate", &["frobnicate", "usage"]),
    ("-o yaml status", &["yaml", "table, json"]),
];

pub fn bad_input_gets_one_clear_line() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let _attached = lab.reachable("h1", "web", "attached", "")?;
    let _taken = lab.reachable("h2", "web", "taken", "--ip 10.20.0.50")?;
    let _spare = lab.container("h1", "spare")?;
    let used = lab.container("h1", "used")?;
    used.sh("ip link add eth0 type bridge")?;
    // h1 knows of `taken`.
    lab.ctl("h1", "endpoint ls web")?.ok()?;

    let before = everything(&lab)?;
    let mut complaints = Vec::new();
    for (line, words) in CASES {
        let done = lab.ctl("h1", line)?;
        complaints.extend(complains(&done, words).err().map(|e| format!("{line}\n    {e:#}")));
    }
    complaints.extend(without_permission(&lab).err().map(|e| format!("{e:#}")));
    let after = everything(&lab)?;
    ensure!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), CASES.len(), complaints.join("\n"));
    ensure!(before == after, "bad input changed something: before {before}\nafter {after}");
    Ok(())
}

/// The socket is there, but not for this user. Root without capabilities stands for one: it works in a user
/// namespace too, where there is no other uid.
fn without_permission(lab: &Lab) -> anyhow::Result<()> {
    let host = lab.host("h1")?;
    let socket = host.socket().display().to_string();
    let mode = host.sh(&format!("stat -c %a {socket}"))?;
    ensure!(mode.trim() == "660", "the socket has mode {mode}");
    host.sh(&format!("chmod 000 {socket}"))?;
    let program = lab.programs().overlayctl()?;
    let line = format!("setpriv --inh-caps=-all --bounding-set=-all {} status", program.display());
    let done = host.place().try_sh(&line);
    host.sh(&format!("chmod 660 {socket}"))?;
    complains(&done?, &[&socket, "may not", "root"]).context("a socket without permission")
}

/// All that bad input could have changed.
fn everything(lab: &Lab) -> anyhow::Result<String> {
    let mut all = String::new();
    for host in lab.names() {
        for listing in ["network ls", "endpoint ls", "host ls", "lease ls web", "fdb web"] {
            all += &format!("{host} {listing}: {}\n", lab.json(&host, listing)?);
        }
        for look in ["ip -br link", "ip netns list", "nft -s list ruleset", "ip netns exec spare ip -br link"] {
            // `spare` is on one host only.
            all += &format!("{host} {look}: {}\n", lab.host(&host)?.place().try_sh(look)?.stdout);
        }
    }
    Ok(all)
}

pub fn a_daemon_that_cannot_start_says_why() -> anyhow::Result<()> {
    let mut lab = Lab::new(2)?;
    // A whole start first: what fails below fails for the reason given.
    lab.start("h1")?;
    lab.stop("h1", Ending::Term)?;
    for (file, text) in [("short", "c2hvcnQ=\n"), ("junk", "this is no key!\n"), ("empty", "")] {
        fs::write(format!("/run/lab/{file}.key"), text)?;
    }
    let key = "/run/lab/cluster.key";
    let without = |capability: &str| format!("setpriv --inh-caps=-{capability} --bounding-set=-{capability}");
    let (net_admin, sys_admin) = (without("net_admin"), without("sys_admin"));
    // What to put in the place of what, what to start it through, and what it must say.
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        (key, "/run/lab/short.key", "", &["/run/lab/short.key", "keygen"]),
        (key, "/run/lab/junk.key", "", &["/run/lab/junk.key", "keygen"]),
        (key, "/run/lab/empty.key", "", &["/run/lab/empty.key", "keygen"]),
        (key, "/run/lab/none.key", "", &["/run/lab/none.key", "keygen"]),
        ("192.0.2.1", "192.0.2.77", "", &["192.0.2.77", "192.0.2.1", "--address"]),
        ("192.0.2.1", "host-1", "", &["host-1", "--address", "give"]),
        ("", "", &net_admin, &["CAP_NET_ADMIN", "root"]),
        ("", "", &sys_admin, &["CAP_SYS_ADMIN", "root"]),
    ];
    let mut complaints = Vec::new();
    for (from, to, carrier, words) in cases {
        let change = |argument: &str| if from.is_empty() { argument.to_owned() } else { argument.replace(from, to) };
        complaints.extend(refused(&lab, change, carrier, words).err());
    }

    let place = lab.host("h1")?.place();
    let log = Host::directory("h1").join("squatter.log");
    let squatter = place.tool("echo 7946", &log)?;
    complaints.extend(refused(&lab, str::to_owned, "", &["7946", "in use", "another overlayd"]).err());
    drop(squatter);

    lab.start("h1")?;
    lab.start("h2")?;
    lab.wait_until_all_see_all()?;
    complaints.extend(refused(&lab, str::to_owned, "", &["another overlayd", "--run-dir"]).err());
    complaints.extend(squatted(&lab).context("a VXLAN port or VNI that is taken").err());
    lab.stop("h1", Ending::Term)?;

    // The state file: every byte of its beginning is wrong.
    let state = lab.host("h1")?.state_dir().join("state.redb");
    let mut bytes = fs::read(&state).context("the state file")?;
    bytes.iter_mut().take(4096).for_each(|byte| *byte = !*byte);
    fs::write(&state, &bytes)?;
    complaints
        .extend(refused(&lab, str::to_owned, "", &[&state.display().to_string(), "corrupt", "move it away"]).err());
    ensure!(fs::read(&state)? == bytes, "the corrupt file was changed: there is nothing left to rescue");

    let complaints: Vec<String> = complaints.iter().map(|e| format!("{e:#}")).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// Another program has the VXLAN port, or the VNI: the endpoint is refused, and gets attached once that is over.
fn squatted(lab: &Lab) -> anyhow::Result<()> {
    lab.network("web", "10.20.0.0/24")?;
    let host = lab.host("h1")?;
    let _spare = lab.container("h1", "spare")?;
    let connect = "network connect web --netns /run/netns/spare --name app";
    let squatter = host.place().tool("echo 4789", &Host::directory("h1").join("squatter.log"))?;
    let port = lab.ctl("h1", connect)?;
    drop(squatter);

    // Docker Swarm, for example, uses the same port, and perhaps the same VNI.
    let _far = lab.connect("h2", "web", "far", "")?;
    let vni = lab.json("h2", "network inspect web")?[0]["Overlay"]["Vni"].as_u64().context("h2 receives no VNI")?;
    host.ip(&format!("link add other type vxlan id {vni} dstport 4789 local 192.0.2.1"))?;
    host.ip("link set other up")?;
    let number = lab.ctl("h1", connect)?;
    eventually(Duration::from_secs(5), "the refused endpoint to be gone, and the other one known", || {
        let rows = lab.rows("h1", "endpoint ls web")?;
        ensure!(rows.len() == 1, "{rows:?}");
        Ok(())
    })?;
    // Fails if it was removed: it is not ours.
    host.ip("link delete other")?;
    lab.ctl("h1", connect)?.ok()?;
    complains(&port, &["app", "web", "another program uses UDP port 4789", "end it", "--vxlan-port"])?;
    complains(&number, &["app", "web", &vni.to_string(), "device other", "remove it", "--vxlan-port"])?;
    let log = lab.agent("h1")?.log()?;
    let raw: Vec<&str> = log.lines().filter(|line| line.contains("Some(") || line.contains("Id(")).collect();
    ensure!(raw.is_empty() && log.contains("UDP port 4789"), "logged as a program sees it: {raw:#?}");
    Ok(())
}

/// Starts `overlayd` on h1 with changed arguments, through `carrier`; it must end by itself with one clear line.
fn refused(lab: &Lab, change: impl Fn(&str) -> String, carrier: &str, words: &[&str]) -> anyhow::Result<()> {
    const SOON: Duration = Duration::from_secs(10);
    let arguments: Vec<String> = lab.overlayd_arguments("h1")?.iter().map(|argument| change(argument)).collect();
    let program = lab.programs().overlayd()?.display().to_string();
    let line: Vec<&str> =
        carrier.split_whitespace().chain([program.as_str()]).chain(arguments.iter().map(String::as_str)).collect();
    let done = run(&mut lab.host("h1")?.place().command(&line), SOON)?;
    ensure!(matches!(done.code, 1 | 2), "exit status {}: {}", done.code, done.stderr);
    let last = done.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
    complains(&Done { stderr: last, ..done }, words)
}
