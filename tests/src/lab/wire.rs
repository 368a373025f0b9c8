//! The underlay: a bridge in a namespace of its own, that can be cut, slowed and made lossy.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::capture::Capture;
use super::exec::run;
use super::host::Host;
use super::programs::Programs;
use super::underlay;

const SHORT: Duration = Duration::from_secs(10);

/// Frames between hosts pass `forward`: pairs in the set are cut, in the direction (from, to).
const RULES: &str = "
table bridge lab {
    set cut { type ether_addr . ether_addr; }
    chain forward {
        type filter hook forward priority 0
        ether saddr . ether daddr @cut drop
        jump loss
    }
    chain loss { }
}
";

/// The switch that all hosts are plugged into.
#[derive(Debug)]
pub struct Wire {
    switch: Host,
}

impl Wire {
    pub(super) fn new(programs: &Programs) -> anyhow::Result<Self> {
        let switch = Host::boot(programs, "switch")?;
        // No IPv6 of its own, no STP, no delay: a dumb switch.
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        switch.ip("link set br0 up")?;
        switch.place().feed("nft -f -", RULES)?;
        Ok(Self { switch })
    }

    /// Gives a host an interface `eth0` on the switch.
    pub(super) fn plug(&self, host: &Host, address: Ipv4Addr) -> anyhow::Result<()> {
        let (port, mac) = (port(host.name()), mac(address));
        let (switch, host_pid) = (self.switch.pid1(), host.pid1());
        // From the lab's own namespace: both ends appear where they belong, and nowhere else in between.
        let line = format!("ip link add {port} netns {switch} type veth peer name eth0 address {mac} netns {host_pid}");
        let mut words = line.split(' ');
        run(Command::new(words.next().context("empty line")?).args(words), SHORT)?.ok()?;
        self.switch.ip(&format!("link set {port} master br0 up"))?;
        // The switch has no two hosts of one address. Without the check the link-local address and its routes are there
        // at once, and not a second later, in the middle of what a scene compares.
        host.sysctl("net.ipv6.conf.eth0.accept_dad", "0")?;
        host.ip(&format!("address add {address}/24 dev eth0"))?;
        host.ip(&format!("address add {}/64 dev eth0", mapped(address)))?;
        host.ip("link set eth0 up").map(|_| ())
    }

    pub(super) fn unplug(&self, host: &str) -> anyhow::Result<()> {
        self.switch.ip(&format!("link delete {}", port(host))).map(|_| ())
    }

    /// Takes the link of a host down, or up again, as a switch does when a cable is pulled.
    ///
    /// # Errors
    /// When the host is not plugged in.
    pub fn link(&self, host: &str, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {state}", port(host))).map(|_| ())
    }

    /// From now on nothing that any of `from` sends reaches any of `to`. The other direction stays open.
    ///
    /// # Errors
    /// When a host is not of the lab.
    pub fn cut_one_way(&self, from: &[&str], to: &[&str]) -> anyhow::Result<()> {
        let mut pairs = Vec::new();
        for from in from {
            for to in to {
                pairs.push(format!("{} . {}", mac(underlay(from)?), mac(underlay(to)?)));
            }
        }
        self.nft(&format!("add element bridge lab cut {{ {} }}", pairs.join(", ")))
    }

    /// Cuts the hosts into two parts that do not hear each other.
    ///
    /// # Errors
    /// When a host is not of the lab.
    pub fn cut(&self, left: &[&str], right: &[&str]) -> anyhow::Result<()> {
        self.cut_one_way(left, right)?;
        self.cut_one_way(right, left)
    }

    /// Undoes all cuts and losses.
    ///
    /// # Errors
    /// When the rules are gone.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.nft("flush set bridge lab cut\nflush chain bridge lab loss")
    }

    /// From now on `percent` of all frames between hosts are lost, at random.
    ///
    /// # Errors
    /// When the rules are gone.
    pub fn loss(&self, percent: u8) -> anyhow::Result<()> {
        self.nft(&format!(
            "flush chain bridge lab loss\nadd rule bridge lab loss numgen random mod 100 < {percent} drop"
        ))
    }

    /// Limits what reaches a host to a rate in `tc` notation, such as `1mbit`; none lifts the limit.
    ///
    /// # Errors
    /// When the host is not plugged in.
    pub fn rate(&self, host: &str, rate: Option<&str>) -> anyhow::Result<()> {
        let port = port(host);
        let line = match rate {
            Some(rate) => format!("tc qdisc replace dev {port} root tbf rate {rate} burst 16kbit latency 200ms"),
            None => format!("tc qdisc delete dev {port} root"),
        };
        self.switch.sh(&line).map(|_| ())
    }

    /// Starts to record every frame that comes to the switch from a host.
    ///
    /// # Errors
    /// When the host is not plugged in.
    pub fn capture(&self, host: &str) -> anyhow::Result<Capture> {
        Capture::start(&self.switch, &port(host))
    }

    fn nft(&self, script: &str) -> anyhow::Result<()> {
        self.switch.place().feed("nft -f -", script)
    }
}

/// The switch port of a host: at most 15 characters.
fn port(host: &str) -> String {
    format!("port-{host}")
}

/// What a machine of the underlay has under IPv6 (RFC 3849): the last number of its IPv4 address.
pub fn mapped(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, address.octets()[3].into())
}

/// Locally administered, and readable in a capture: 02:00 and the IPv4 address.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
