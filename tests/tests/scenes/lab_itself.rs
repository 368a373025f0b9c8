//! The lab on its own, without the product: what scenes rely on when they call something broken or whole.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlay_tests::eventually::{eventually, pass};
use overlay_tests::lab::{Container, Flow, Inner, Lab, ROUTER, WORLD};

use super::support::{HALF_A_SECOND, SECOND};

fn hears(lab: &Lab, from: &str, to: &str) -> anyhow::Result<bool> {
    let to = overlay_tests::lab::underlay(to)?;
    Ok(lab.host(from)?.place().try_sh(&format!("ping -n -c 1 -W 0.3 {to}"))?.code == 0)
}

pub fn hosts_hear_each_other_until_they_are_cut() -> anyhow::Result<()> {
    let lab = Lab::new(3)?;
    ensure!(hears(&lab, "h1", "h2")? && hears(&lab, "h3", "h1")?, "a fresh lab is not connected");
    lab.host("h1")?.sh(&format!("ping -n -c 1 -W 1 {ROUTER}"))?;
    lab.host("h1")?.sh(&format!("ping -n -c 1 -W 1 {WORLD}"))?;

    lab.wire.cut(&["h1"], &["h2", "h3"])?;
    ensure!(!hears(&lab, "h1", "h2")? && !hears(&lab, "h3", "h1")?, "the cut leaks");
    ensure!(hears(&lab, "h2", "h3")?, "the cut goes too far");
    lab.wire.heal()?;
    ensure!(hears(&lab, "h1", "h2")?, "not healed");

    lab.wire.link("h2", false)?;
    ensure!(!hears(&lab, "h1", "h2")?, "the link is down and carries");
    lab.wire.link("h2", true)?;
    eventually(SECOND, "the link to carry again", || {
        ensure!(hears(&lab, "h1", "h2")?, "it does not");
        Ok(())
    })
}

/// Two containers with plain VXLAN between two hosts, `learning` or not: no product needed.
fn tunnel(lab: &Lab) -> anyhow::Result<()> {
    for (host, peer, number) in [("h1", "192.0.2.2", 1), ("h2", "192.0.2.1", 2)] {
        let host = lab.host(host)?;
        let local = format!("192.0.2.{number}");
        host.ip(&format!("link add vx0 type vxlan id 77 dstport 4789 local {local} remote {peer}"))?;
        host.ip(&format!("address add 10.77.0.{number}/24 dev vx0"))?;
        host.ip("link set vx0 up")?;
    }
    Ok(())
}

pub fn broadcasts_are_caught_inside_a_tunnel() -> anyhow::Result<()> {
    let lab = Lab::new(2)?;
    tunnel(&lab)?;
    let capture = lab.wire.capture("h1")?;
    lab.host("h1")?.sh("ping -n -c 2 -i 0.2 -W 1 10.77.0.2")?;
    let tally = capture.stop()?;
    let count = |kind| tally.get(&(77, kind)).copied().unwrap_or(0);
    ensure!(count(Inner::Arp) >= 1, "this tunnel floods ARP, and none was seen: {tally:?}");
    ensure!(count(Inner::Unicast) == 2, "two echo requests crossed: {tally:?}");
    Ok(())
}

pub fn loss_and_rate_can_be_seen() -> anyhow::Result<()> {
    let lab = Lab::new(2)?;
    // They know each other's MAC: what is lost below is pings, not ARP.
    ensure!(hears(&lab, "h1", "h2")?, "a fresh lab is not connected");
    lab.wire.loss(50)?;
    let ping = lab.host("h1")?.place().try_sh("ping -n -q -c 200 -i 0.002 -W 1 192.0.2.2")?;
    let received: u32 = ping
        .stdout
        .split(", ")
        .find_map(|part| part.strip_suffix(" received"))
        .and_then(|count| count.parse().ok())
        .context(ping.stdout.clone())?;
    // A frame each way: a quarter comes back, 50 +- 6 (one standard deviation) of 200.
    ensure!((10..100).contains(&received), "{received} of 200 came back at 50 % loss each way");
    lab.wire.heal()?;

    // 20 packets of 1,000 bytes are 160 kbit: at 100 kbit/s the last one is late or lost.
    let burst = "ping -n -q -c 20 -i 0.002 -s 972 -W 2 192.0.2.2";
    lab.host("h1")?.sh(burst)?;
    lab.wire.rate("h2", Some("100kbit"))?;
    let limited = lab.host("h1")?.place().try_sh(burst)?;
    lab.wire.rate("h2", None)?;
    ensure!(!limited.stdout.contains(" 0% packet loss"), "no limit was felt: {}", limited.stdout);
    Ok(())
}

pub fn a_host_that_crashed_comes_back_with_its_disk_only() -> anyhow::Result<()> {
    let mut lab = Lab::new(2)?;
    let boot_id = |lab: &Lab| lab.host("h2")?.sh("cat /proc/sys/kernel/random/boot_id");
    let before = boot_id(&lab)?;
    fs::write(lab.host("h2")?.state_dir().join("file"), "kept")?;
    let container = lab.container("h2", "redis-1")?;
    let _process = container.spawn("sleep.log", "sleep 1000")?;
    ensure!(hears(&lab, "h1", "h2")?, "a fresh lab is not connected");

    lab.crash("h2")?;
    ensure!(!hears(&lab, "h1", "h2")?, "a dead host answers");
    eventually(5 * SECOND, "the processes of a dead host to be gone", || {
        ensure!(!all_command_lines()?.contains("sleep\u{0}1000"), "one is left");
        Ok(())
    })?;
    lab.reboot("h2")?;
    ensure!(hears(&lab, "h1", "h2")?, "a rebooted host does not answer");
    ensure!(boot_id(&lab)? != before, "same boot id after a reboot");
    ensure!(fs::read_to_string(lab.host("h2")?.state_dir().join("file"))? == "kept", "the disk was lost");
    ensure!(lab.host("h2")?.sh("ls /run/netns")?.is_empty(), "a container survived");
    Ok(())
}

pub fn the_flow_counts_what_a_cut_costs() -> anyhow::Result<()> {
    let lab = Lab::new(2)?;
    tunnel(&lab)?;
    let ends: Vec<Container> = ["h1", "h2"].into_iter().map(|host| routed(&lab, host)).collect::<Result<_, _>>()?;
    let [left, right] = ends.as_slice() else { anyhow::bail!("two containers") };

    let quiet = Flow::start(left, right)?;
    pass(SECOND);
    let report = quiet.stop()?;
    ensure!(report.lost == 0 && report.sent > 800, "an undisturbed flow: {report:?}");

    let cut = Flow::start(left, right)?;
    lab.wire.cut_one_way(&["h2"], &["h1"])?;
    pass(HALF_A_SECOND);
    lab.wire.heal()?;
    pass(HALF_A_SECOND);
    let report = cut.stop()?;
    ensure!(report.lost > 300 && report.received > 300 && report.gaps.len() == 1, "half a second of cut: {report:?}");
    Ok(())
}

/// A container with a route to the other host's one: stands in for an attached one.
fn routed(lab: &Lab, host: &str) -> anyhow::Result<Container> {
    let number: u8 = host.trim_start_matches('h').parse()?;
    let peer = 3 - number;
    let mut container = lab.container(host, "end")?;
    let place = lab.host(host)?;
    place.ip("link add veth0 type veth peer name eth0 netns end")?;
    place.ip(&format!("address add 10.{number}.0.1/24 dev veth0"))?;
    place.ip("link set veth0 up")?;
    place.sysctl("net.ipv4.ip_forward", "1")?;
    place.ip(&format!("route add 10.{peer}.0.0/24 via 10.77.0.{peer}"))?;
    container.sh(&format!("ip address add 10.{number}.0.2/24 dev eth0"))?;
    container.sh("ip link set eth0 up")?;
    container.sh(&format!("ip route add default via 10.{number}.0.1"))?;
    container.attached(&serde_json::json!({
        "network": "plain", "addresses": [format!("10.{number}.0.2")], "dns": format!("10.{number}.0.1"),
    }))?;
    Ok(container)
}

pub fn nothing_outlives_a_killed_sandbox() -> anyhow::Result<()> {
    let lab = Lab::new(0)?;
    let script = "setsid sleep 2000 & ip netns add left && ip link add left type bridge && echo ready; wait";
    let mut command = Command::new(lab.programs().labtool());
    let mut outer = command.args(["sandbox", "sh", "-c", script]).stdout(Stdio::piped()).spawn()?;
    let mut said = std::io::BufReader::new(outer.stdout.take().context("no output")?);
    std::io::BufRead::read_line(&mut said, &mut String::new())?;
    ensure!(all_command_lines()?.contains("sleep\u{0}2000"), "the sandboxed process is not seen at all");

    kill(Pid::from_raw(i32::try_from(outer.id())?), Signal::SIGKILL)?;
    outer.wait()?;
    eventually(5 * SECOND, "the sandboxed processes to be gone", || {
        ensure!(!all_command_lines()?.contains("sleep\u{0}2000"), "one is left");
        Ok(())
    })?;
    let links = lab.internet().ip("link")? + &String::from_utf8(Command::new("ip").arg("link").output()?.stdout)?;
    ensure!(!links.contains("left"), "a link escaped: {links}");
    ensure!(!fs::exists("/run/netns/left")?, "a namespace escaped");
    Ok(())
}

/// The command lines of all processes in sight, words separated by NUL.
fn all_command_lines() -> anyhow::Result<String> {
    let mut lines = String::new();
    for entry in fs::read_dir("/proc")? {
        // Processes come and go while one looks.
        lines += &fs::read_to_string(entry?.path().join("cmdline")).unwrap_or_default();
    }
    Ok(lines)
}
