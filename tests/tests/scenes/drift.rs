//! What another program changes of an object of ours is set right within a second, or told; and nobody else loses a packet.
//!
//! The table of all attributes is `docs/drift.md`.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlay_tests::eventually::{eventually, pass};
use overlay_tests::lab::{Flow, Lab, run};

use super::support::SECOND;

/// Where something is done: on the host, or in the namespace of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Segment,
}
use Side::{Host, Segment};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is as before within a second.
    Repaired,
    /// The device is made anew within a second: but for its MAC it is as before.
    Remade,
    /// `status` names it by this word, and the command takes it away again.
    Told(&'static str, &'static str),
}
use Fate::{Remade, Repaired, Told};

/// The object, the attribute, and how somebody changes it. `UPLINK` and `PORT` stand for names of interfaces, `NEAR` for an address.
struct Deed(Side, &'static str, &'static str, &'static str, Fate);

/// All of them. A line that ends an object is last of its object.
const DEEDS: &[Deed] = &[
    Deed(Host, "uplink, host's end", "up", "ip link set UPLINK down", Repaired),
    Deed(Host, "uplink, host's end", "MTU", "ip link set UPLINK mtu 1400", Repaired),
    Deed(Host, "uplink, host's end", "MAC", "ip link set UPLINK address 02:00:00:00:00:99", Repaired),
    Deed(Host, "uplink, host's end", "queue length", "ip link set UPLINK txqueuelen 7", Repaired),
    Deed(Host, "uplink, host's end", "group", "ip link set UPLINK group 5", Repaired),
    Deed(Host, "uplink, host's end", "promiscuous", "ip link set UPLINK promisc on", Repaired),
    Deed(Host, "uplink, host's end", "all multicast", "ip link set UPLINK allmulticast on", Repaired),
    Deed(Host, "uplink, host's end", "ARP", "ip link set UPLINK arp off", Repaired),
    Deed(Host, "uplink, host's end", "multicast", "ip link set UPLINK multicast off", Repaired),
    Deed(Host, "uplink, host's end", "port of a bridge", "ip link set UPLINK master other0", Repaired),
    Deed(Host, "uplink, host's end", "an address more", "ip addr add 169.254.77.7/16 dev UPLINK", Repaired),
    Deed(Host, "uplink, host's end", "its addresses", "ip addr flush dev UPLINK", Repaired),
    Deed(Host, "uplink, host's end", "its routes", "ip route flush dev UPLINK", Repaired),
    Deed(Host, "uplink, host's end", "rp_filter", "sysctl -qw net.ipv4.conf.UPLINK.rp_filter=1", Repaired),
    Deed(Host, "uplink, host's end", "forwarding", "sysctl -qw net.ipv4.conf.UPLINK.forwarding=0", Repaired),
    Deed(Host, "uplink, host's end", "route_localnet", "sysctl -qw net.ipv4.conf.UPLINK.route_localnet=0", Repaired),
    Deed(Host, "uplink, host's end", "arp_ignore", "sysctl -qw net.ipv4.conf.UPLINK.arp_ignore=8", Repaired),
    Deed(Host, "uplink, host's end", "arp_filter", "sysctl -qw net.ipv4.conf.UPLINK.arp_filter=1", Repaired),
    Deed(Host, "uplink, host's end", "proxy_arp", "sysctl -qw net.ipv4.conf.UPLINK.proxy_arp=1", Repaired),
    Deed(Host, "uplink, host's end", "log_martians", "sysctl -qw net.ipv4.conf.UPLINK.log_martians=1", Repaired),
    Deed(Host, "uplink, host's end", "disable_ipv6", "sysctl -qw net.ipv6.conf.UPLINK.disable_ipv6=1", Repaired),
    Deed(Host, "uplink, host's end", "accept_ra", "sysctl -qw net.ipv6.conf.UPLINK.accept_ra=2", Repaired),
    Deed(Host, "uplink, host's end", "gc_stale_time", "sysctl -qw net.ipv4.neigh.UPLINK.gc_stale_time=7", Repaired),
    Deed(
        Host,
        "uplink, host's end",
        "queueing discipline",
        "tc qdisc add dev UPLINK root pfifo limit 5",
        Told("qdisc", "tc qdisc del dev UPLINK root"),
    ),
    Deed(Host, "uplink, host's end", "name", "ip link set UPLINK down name stolen0", Remade),
    Deed(Host, "uplink, host's end", "there at all", "ip link del UPLINK", Remade),
    Deed(Host, "host", "ip_forward", "sysctl -qw net.ipv4.ip_forward=0", Repaired),
    Deed(Host, "host", "ipv6 forwarding", "sysctl -qw net.ipv6.conf.all.forwarding=0", Repaired),
    Deed(Host, "host", "our rules", "nft delete table inet overlay", Repaired),
    Deed(Host, "host", "a rule among ours", "nft add rule inet overlay forward tcp dport 1 accept", Repaired),
    Deed(Segment, "uplink, segment's end", "up", "ip link set up0 down", Repaired),
    Deed(Segment, "uplink, segment's end", "MTU", "ip link set up0 mtu 1400", Repaired),
    Deed(Segment, "uplink, segment's end", "MAC", "ip link set up0 address 02:00:00:00:00:98", Repaired),
    Deed(Segment, "uplink, segment's end", "ARP", "ip link set up0 arp off", Repaired),
    Deed(Segment, "uplink, segment's end", "its addresses", "ip addr flush dev up0", Repaired),
    Deed(Segment, "uplink, segment's end", "an address more", "ip addr add 10.66.0.1/24 dev up0", Repaired),
    Deed(Segment, "uplink, segment's end", "default route", "ip route del default", Repaired),
    Deed(Segment, "uplink, segment's end", "default route, IPv6", "ip -6 route del default", Repaired),
    Deed(Segment, "uplink, segment's end", "rp_filter", "sysctl -qw net.ipv4.conf.up0.rp_filter=1", Repaired),
    Deed(Segment, "uplink, segment's end", "forwarding", "sysctl -qw net.ipv4.conf.up0.forwarding=0", Repaired),
    Deed(Segment, "uplink, segment's end", "there at all", "ip link del up0", Remade),
    Deed(Segment, "segment", "ip_forward", "sysctl -qw net.ipv4.ip_forward=0", Repaired),
    Deed(Segment, "segment", "arp_ignore of all", "sysctl -qw net.ipv4.conf.all.arp_ignore=8", Repaired),
    Deed(Segment, "segment", "a route more", "ip route add blackhole 198.51.100.0/24", Repaired),
    Deed(Segment, "segment", "a routing rule more", "ip rule add from 10.20.0.0/24 prohibit", Repaired),
    Deed(Segment, "segment", "a routing rule less", "ip rule del priority 32766", Repaired),
    Deed(Segment, "segment", "our rules", "nft flush ruleset", Repaired),
    Deed(Segment, "bridge", "up", "ip link set br0 down", Repaired),
    Deed(Segment, "bridge", "MTU", "ip link set br0 mtu 1300", Repaired),
    Deed(Segment, "bridge", "MAC", "ip link set br0 address 02:00:00:00:00:97", Repaired),
    Deed(Segment, "bridge", "queue length", "ip link set br0 txqueuelen 7", Repaired),
    Deed(Segment, "bridge", "group", "ip link set br0 group 5", Repaired),
    Deed(Segment, "bridge", "promiscuous", "ip link set br0 promisc on", Repaired),
    Deed(Segment, "bridge", "ARP", "ip link set br0 arp off", Repaired),
    Deed(Segment, "bridge", "spanning tree", "ip link set br0 type bridge stp_state 1", Repaired),
    Deed(Segment, "bridge", "snooping", "ip link set br0 type bridge mcast_snooping 1", Repaired),
    Deed(Segment, "bridge", "ageing", "ip link set br0 type bridge ageing_time 100", Repaired),
    Deed(Segment, "bridge", "group_fwd_mask", "ip link set br0 type bridge group_fwd_mask 8", Repaired),
    Deed(Segment, "bridge", "priority", "ip link set br0 type bridge priority 4096", Repaired),
    Deed(Segment, "bridge", "mcast_querier", "ip link set br0 type bridge mcast_querier 1", Repaired),
    Deed(Segment, "bridge", "gateway's address", "ip addr flush dev br0 to NEAR/24", Repaired),
    Deed(Segment, "bridge", "an address more", "ip addr add 10.66.1.1/24 dev br0", Repaired),
    Deed(Segment, "bridge", "forwarding", "sysctl -qw net.ipv4.conf.br0.forwarding=0", Repaired),
    Deed(Segment, "bridge", "a neighbour", "ip neigh del FAR dev br0", Repaired),
    Deed(
        Segment,
        "bridge",
        "another MAC of a neighbour",
        "ip neigh replace FAR lladdr 02:00:00:00:00:96 dev br0",
        Repaired,
    ),
    Deed(Segment, "tunnel", "up", "ip link set vx0 down", Repaired),
    Deed(Segment, "tunnel", "MTU", "ip link set vx0 mtu 1300", Repaired),
    Deed(Segment, "tunnel", "port of the bridge", "ip link set vx0 nomaster", Repaired),
    Deed(Segment, "tunnel", "learns", "bridge link set dev vx0 learning on", Repaired),
    Deed(Segment, "tunnel", "floods", "bridge link set dev vx0 flood on", Repaired),
    Deed(Segment, "tunnel", "answers for what is behind it", "bridge link set dev vx0 neigh_suppress off", Repaired),
    Deed(Segment, "tunnel", "guard", "bridge link set dev vx0 guard on", Repaired),
    Deed(Segment, "tunnel", "hairpin", "bridge link set dev vx0 hairpin on", Repaired),
    Deed(Segment, "tunnel", "state", "bridge link set dev vx0 state 0", Repaired),
    Deed(Segment, "tunnel", "cost", "bridge link set dev vx0 cost 9", Repaired),
    Deed(Segment, "tunnel", "locked", "bridge link set dev vx0 locked on", Repaired),
    Deed(Segment, "tunnel", "TTL", "ip link set vx0 type vxlan ttl 3", Repaired),
    Deed(Segment, "tunnel", "learns itself", "ip link set vx0 type vxlan learning", Repaired),
    Deed(
        Segment,
        "tunnel",
        "a row that floods",
        "bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.99 self",
        Repaired,
    ),
    Deed(Segment, "tunnel", "there at all", "ip link del vx0", Remade),
    Deed(Segment, "container's port", "up", "ip link set PORT down", Repaired),
    Deed(Segment, "container's port", "MTU", "ip link set PORT mtu 1300", Repaired),
    Deed(Segment, "container's port", "port of the bridge", "ip link set PORT nomaster", Repaired),
    Deed(Segment, "container's port", "queue length", "ip link set PORT txqueuelen 7", Repaired),
    Deed(Segment, "container's port", "group", "ip link set PORT group 5", Repaired),
    Deed(Segment, "container's port", "MAC", "ip link set PORT address 02:00:00:00:00:95", Repaired),
    Deed(Segment, "container's port", "isolated", "bridge link set dev PORT isolated on", Repaired),
    Deed(Segment, "container's port", "learns", "bridge link set dev PORT learning on", Repaired),
    Deed(Segment, "container's port", "state", "bridge link set dev PORT state 0", Repaired),
    Deed(Segment, "container's port", "guard", "bridge link set dev PORT guard on", Repaired),
    Deed(
        Segment,
        "container's port",
        "another MAC behind it",
        "bridge fdb add 02:00:00:00:00:94 dev PORT master static",
        Repaired,
    ),
    Deed(
        Segment,
        "container's port",
        "queueing discipline",
        "tc qdisc add dev PORT root pfifo limit 50",
        Told("qdisc", "tc qdisc del dev PORT root"),
    ),
];

/// The table that is documented.
const DOCS: &str = include_str!("../../../docs/drift.md");

/// Of rules, without what they have counted.
const UNCOUNTED: &str = "sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/'";

/// Two hosts; `near` and `far` are in the network that is disturbed, `left` and `right` in another one.
struct Stage {
    lab: Lab,
    netns: String,
    names: [(&'static str, String); 4],
}

impl Stage {
    fn set() -> anyhow::Result<Self> {
        let lab = Lab::with_agents(2)?;
        lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
        let near = lab.reachable("h1", "web", "near", "")?;
        let far = lab.reachable("h2", "web", "far", "")?;
        let row = lab.rows("h1", "endpoint ls web")?;
        let row = row.iter().find(|row| row["name"] == "near").context("near is listed")?;
        let port = row["host_ifname"].as_str().context("it has a port")?.to_owned();
        let netns = lab.segment("h1", "web")?;
        let uplink = netns.file_name().and_then(|name| name.to_str()).context("the id of the network")?;
        let uplink = lab.host("h1")?.sh("ip -br link")?.lines().find_map(|line| {
            let name = line.split(['@', ' ']).next()?;
            name.strip_prefix("ovu").is_some_and(|tag| uplink.contains(tag)).then(|| name.to_owned())
        });
        let names = [
            ("UPLINK", uplink.context("the uplink is there")?),
            ("PORT", port),
            ("NEAR", near.address()?.to_string()),
            ("FAR", far.address()?.to_string()),
        ];
        lab.host("h1")?.sh("ip link add other0 type bridge")?;
        // They stay for as long as the lab.
        std::mem::forget((near, far));
        Ok(Self { netns: netns.display().to_string(), lab, names })
    }

    fn line(&self, Deed(side, ..): &Deed, command: &str) -> String {
        let command = self.names.iter().fold(command.to_owned(), |line, (word, name)| line.replace(word, name));
        match side {
            Host => command,
            Segment => format!("nsenter --net={} -- {command}", self.netns),
        }
    }

    fn run(&self, line: &str) -> anyhow::Result<String> {
        run(&mut self.lab.host("h1")?.place().command(&["sh", "-c", line]), 5 * SECOND)?.ok()
    }

    /// All that the kernel shows of the network on this host, but for what changes by itself.
    fn look(&self) -> anyhow::Result<String> {
        let uplink = &self.names[0].1;
        let links = "ip -o -d link show | sed -E 's/[a-z_]*timer +[0-9.]+//g; s/^[0-9]+: //; s/@if[0-9]+//; s/ (bridge|designated)_(id|root|bridge) [^ ]+//g; s/ port_(id|no) [^ ]+//g; s/ link-netns[^ ]* [^ ]+//g; s/ link-netnsid [0-9]+//; s/ allmulti [0-9]+//; s/ promiscuity [0-9]+//'";
        let inside = format!(
            "{links}; ip -o addr | sed -E 's/^[0-9]+: //'; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; \
             ip neigh show nud permanent; bridge fdb | sort; nft list ruleset | {UNCOUNTED}; \
             sysctl -a 2>/dev/null | grep -E 'net.ipv[46].(conf|neigh).(up0|br0|all|default)' | grep -vE '[.](mtu|stable_secret) '"
        );
        let settings = format!(
            "sysctl -a 2>/dev/null | grep -E 'net.ipv[46].(conf|neigh).{uplink}|ip_forward |ipv6.conf.all.forwarding ' | grep -vE '[.](mtu|stable_secret) '"
        );
        let own = format!(
            "{} ; ip -o addr show {uplink} | sed -E 's/^[0-9]+: //'; ip route show dev {uplink}; ip -6 route show dev {uplink}; nft list table inet overlay | {UNCOUNTED}; {settings}",
            links.replace("link show", &format!("link show {uplink}"))
        );
        let inside = self.run(&format!("nsenter --net={} -- sh -c {}", self.netns, quoted(&inside)))?;
        let own = self.run(&own)?;
        // The kernel's own, which come and go with forwarding.
        let is_anycast = |line: &&str| line.starts_with("anycast ");
        let mut lines: Vec<&str> = own.lines().chain(inside.lines()).filter(|line| !is_anycast(line)).collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    fn told(&self) -> anyhow::Result<String> {
        let status = self.lab.json("h1", "status")?;
        Ok(format!("{} {}", status["contested"], status["failures"]))
    }

    /// One deed, once; gives the row of the table.
    fn disturb(&self, deed: &Deed) -> anyhow::Result<String> {
        let Deed(_, object, attribute, command, fate) = deed;
        let look = || Ok::<_, anyhow::Error>(if *fate == Remade { without_macs(&self.look()?) } else { self.look()? });
        let before = look()?;
        // It is done while the agent stands still, so that it can be seen.
        let agent = Pid::from_raw(self.lab.agent("h1")?.pid()?);
        kill(agent, Signal::SIGSTOP)?;
        let done = self.run(&self.line(deed, command)).and_then(|_| look());
        kill(agent, Signal::SIGCONT)?;
        ensure!(done? != before, "nothing shows it");
        let fate = match fate {
            Repaired | Remade => {
                eventually(SECOND, "it is as before", || {
                    let now = look()?;
                    ensure!(now == before, "{}", difference(&before, &now));
                    Ok(())
                })?;
                if *fate == Remade { "made anew" } else { "set right" }
            }
            Told(word, undo) => {
                eventually(SECOND, "status names it", || {
                    let told = self.told()?;
                    ensure!(told.contains(word), "{told}");
                    Ok(())
                })?;
                self.run(&self.line(deed, undo))?;
                "stays, and is told"
            }
        };
        Ok(format!("| {object} | {attribute} | `{command}` | {fate} |\n"))
    }
}

/// Without the MACs of links, and the bridge's rows of them.
fn without_macs(look: &str) -> String {
    let own = |line: &&str| !line.ends_with("master br0 permanent");
    let short = |line: &str| match line.split_once("link/ether ") {
        Some((before, after)) => format!("{before}{}", after.split_once(' ').map_or("", |(_, rest)| rest)),
        None => line.to_owned(),
    };
    let mut lines: Vec<String> = look.lines().filter(own).map(short).collect();
    lines.sort();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The lines that only one of two texts has.
fn difference(before: &str, now: &str) -> String {
    let lines = |of: &'static str, all: &str, other: &str| {
        let only = all.lines().filter(|line| !other.lines().any(|known| known == *line));
        only.map(|line| format!("{of}: {line}\n")).collect::<String>()
    };
    let differ = lines("before", before, now) + &lines("now", now, before);
    if differ.is_empty() { "the order of the lines".to_owned() } else { differ }
}

pub fn what_another_program_changes_is_set_right_or_told() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let lab = &stage.lab;
    lab.network("other", "10.21.0.0/24")?;
    let left = lab.reachable("h1", "other", "left", "")?;
    let right = lab.reachable("h2", "other", "right", "")?;
    let flow = Flow::start(&left, &right)?;
    let (mut table, mut wrong) = (String::new(), String::new());
    for deed in DEEDS {
        match stage.disturb(deed) {
            Ok(row) => table.push_str(&row),
            Err(error) => {
                writeln!(wrong, "{}: `{}`: {error:#}", deed.1, deed.3)?;
                // The next one is to find it as it should be.
                pass(SECOND);
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    let report = flow.stop()?;
    ensure!(report.lost == 0, "another network lost packets: {report:?}");
    if !DOCS.contains(&table) {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/drift.md"), &table)?;
        anyhow::bail!("docs/drift.md has another table: the one of this run is in target/drift.md\n{table}");
    }
    Ok(())
}

/// Everything that leaves the objects in place, at once, every two seconds.
pub fn what_is_changed_again_and_again_is_set_right_each_time_and_told() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let lab = &stage.lab;
    lab.network("other", "10.21.0.0/24")?;
    let left = lab.reachable("h1", "other", "left", "")?;
    let right = lab.reachable("h2", "other", "right", "")?;
    let flow = Flow::start(&left, &right)?;
    let before = stage.look()?;
    let lasting: Vec<&Deed> =
        DEEDS.iter().filter(|deed| deed.4 == Repaired && !["there at all", "name"].contains(&deed.2)).collect();
    for _ in 0..10 {
        let start = Instant::now();
        for deed in &lasting {
            // One may be in the way of another.
            stage.run(&format!("{} 2>&1 || true", stage.line(deed, deed.3)))?;
        }
        eventually(2 * SECOND, "all is as before", || {
            let now = stage.look()?;
            ensure!(now == before, "{}", difference(&before, &now));
            Ok(())
        })?;
        pass(Duration::from_secs(2).saturating_sub(start.elapsed()));
    }
    let report = flow.stop()?;
    ensure!(report.lost == 0, "another network lost packets: {report:?}");
    let told = stage.told()?;
    for word in ["set up the uplink", "turn on IPv4 forwarding", "another program undoes it"] {
        ensure!(told.contains(word), "status does not say `{word}`: {told}");
    }
    Ok(())
}
