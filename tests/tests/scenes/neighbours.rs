//! Others who filter on the same host: Docker, ufw, firewalld, people. Everything of the network works as without them, their
//! rules stay as they were, and with the last network ours in them are gone.

use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually, eventually_in};
use overlay_tests::lab::{Container, Ending, Lab, Proc, WORLD, WORLD6, mapped, underlay};

use super::support::docker::Docker;
use super::support::service::{doorman, is_refused, visit};
use super::support::{HALF_A_SECOND, SECOND, took};

/// Rules of ours that somebody has removed are back within this time.
const REPAIRED: Duration = SECOND;

/// As `iptables-save` had them on a host where ufw was enabled, with the cluster's ports allowed.
const UFW: [(&str, &str); 2] = [
    ("iptables-restore", include_str!("../fixtures/ufw.ipv4")),
    ("ip6tables-restore", include_str!("../fixtures/ufw.ipv6")),
];
/// As `nft` listed it where firewalld 1.3 ran, with the cluster's ports open in its default zone.
const FIREWALLD: &str = include_str!("../fixtures/firewalld.nft");

/// Two hosts, on which something was made ready before their agents started.
fn after(prepare: impl Fn(&Lab, &str) -> anyhow::Result<()>) -> anyhow::Result<Lab> {
    let mut lab = Lab::new(2)?;
    for host in lab.names() {
        prepare(&lab, &host).with_context(|| host.clone())?;
    }
    for host in lab.names() {
        lab.start(&host)?;
    }
    lab.wait_until_all_see_all()?;
    lab.wait_until_all_are_members()?;
    lab.names().iter().try_for_each(|host| has_rules(&lab, host))?;
    Ok(lab)
}

/// Those of the agent itself are there from its first round on.
fn has_rules(lab: &Lab, host: &str) -> anyhow::Result<()> {
    eventually(5 * SECOND, "the agent's own rules", || lab.host(host)?.sh("nft list table inet overlay")).map(drop)
}

/// Two containers on the first host and one on the second; the first one's port 80 is published as 8088.
struct Ends {
    near: Container,
    beside: Container,
    far: Container,
    _doors: [Proc; 2],
}

impl Ends {
    fn connect(lab: &Lab) -> anyhow::Result<Self> {
        lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
        let near = lab.reachable("h1", "web", "near", "-p 8088:80 -p 8088:80/udp")?;
        let beside = lab.reachable("h1", "web", "beside", "")?;
        let far = lab.reachable("h2", "web", "far", "-p 8088:80")?;
        let doors = [doorman(&near, 80)?, doorman(&far, 80)?];
        Ok(Self { near, beside, far, _doors: doors })
    }

    /// The world, the containers of this host and of the other, names, and published ports from everywhere; and nothing else.
    fn all_works(&self, lab: &Lab) -> anyhow::Result<()> {
        let Self { near, beside, far, .. } = self;
        for (from, to) in [(near, beside), (near, far), (far, near)] {
            from.ping(to.address()?, SECOND)?;
            ensure!(from.dig(to.name())?.addresses() == [to.address()?], "the name of {}", to.name());
        }
        for container in [near, beside, far] {
            container.ping(WORLD, SECOND).with_context(|| format!("{} to the world", container.name()))?;
            container.ping(WORLD6, SECOND).with_context(|| format!("{} to the world, IPv6", container.name()))?;
            container.ping(underlay("h1")?, SECOND)?;
            container.ping(underlay("h2")?, SECOND)?;
        }
        for (name, host) in [("near", "h1"), ("far", "h2")] {
            let to = format!("{}:8088", underlay(host)?);
            let places = [
                lab.internet().place(),
                lab.host("h1")?.place(),
                lab.host("h2")?.place(),
                near.place().clone(),
                beside.place().clone(),
                far.place().clone(),
            ];
            for (n, place) in places.iter().enumerate() {
                let (answers, _) =
                    visit(lab, place, "tcp", &to, "").with_context(|| format!("visitor {n} of {name}"))?;
                ensure!(answers == name, "{answers} answers for {name}");
            }
        }
        visit(lab, &lab.internet().place(), "udp", format!("{}:8088", underlay("h1")?), "").context("UDP")?;
        visit(lab, &lab.internet().place(), "tcp", format!("[{}]:8088", mapped(underlay("h1")?)), "")
            .context("IPv6")?;
        self.nothing_else_gets_in(lab)
    }

    fn nothing_else_gets_in(&self, lab: &Lab) -> anyhow::Result<()> {
        let internet = lab.internet();
        internet.sh(&format!("ip route replace 10.20.0.0/24 via {}", underlay("h1")?))?;
        internet.sh(&format!("ip route replace fd00:20::/64 via {}", mapped(underlay("h1")?)))?;
        is_refused(lab, &internet.place(), "tcp", &format!("{}:80", self.near.address()?))?;
        is_refused(lab, &internet.place(), "tcp", &format!("[{}]:80", self.near.address6()?))?;
        is_refused(lab, &internet.place(), "tcp", &format!("{}:80", underlay("h1")?))
    }
}

/// All rules on a host as `iptables` and `nft` show them, without what was counted.
fn rules(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let place = lab.host(host)?.place();
    let saved = ["iptables-save", "ip6tables-save"].map(|program| place.sh(program));
    let mut all = place.sh("nft -s list ruleset")?;
    for saved in saved {
        let saved = saved?;
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        all.extend(lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))));
    }
    Ok(all)
}

/// The same, without ours.
fn rules_of_others(lab: &Lab, host: &str) -> anyhow::Result<Vec<String>> {
    let place = lab.host(host)?.place();
    let mut all = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let saved = place.sh(program)?;
        let lines = saved.lines().filter(|line| !line.starts_with('#') && !line.contains("overlayd:"));
        all.extend(lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned()));
    }
    Ok(all)
}

/// Our rules that a host's `nft` shows in a chain, by their marks.
fn ours(lab: &Lab, host: &str, chain: &str) -> anyhow::Result<Vec<String>> {
    let chain = lab.host(host)?.sh(&format!("nft list chain {chain}"))?;
    let marks = chain.lines().filter_map(|line| line.split("comment \"overlayd:").nth(1)?.split('"').next());
    let mut marks: Vec<String> = marks.map(str::to_owned).collect();
    marks.sort();
    Ok(marks)
}

fn are_there(lab: &Lab, host: &str, chain: &str) -> anyhow::Result<()> {
    let there = ours(lab, host, chain)?;
    ensure!(there == ["in", "out:eth0"], "{chain} on {host} has {there:?}");
    Ok(())
}

/// When the last network goes, all is as it was before the first.
fn go(lab: &Lab, ends: &Ends, before: &str) -> anyhow::Result<()> {
    for container in [&ends.near, &ends.beside] {
        lab.ctl("h1", &format!("network disconnect web {}", container.name()))?.ok()?;
    }
    eventually(5 * SECOND, "the rules to be as they were", || {
        let now = rules(lab, "h1")?;
        ensure!(now == before, "before:\n{before}\nnow:\n{now}");
        Ok(())
    })
}

/// Whether the host's agent tells of the chain of this table that it is in the way.
fn is_told(lab: &Lab, host: &str, table: &str) -> anyhow::Result<bool> {
    let status = lab.json(host, "status")?;
    let chains = status["blocking_chains"].as_array().context("no list of chains")?;
    Ok(chains.iter().any(|chain| chain["table"] == table))
}

pub fn all_works_beside_docker() -> anyhow::Result<()> {
    if !Docker::can_run()? {
        println!("left out: dockerd needs root");
        return Ok(());
    }
    let mut lab = Lab::new(2)?;
    // On the first host before the agent, on the second one while it has a network.
    let first = Docker::start(&lab, "h1")?;
    first.run("boxed", "-p 8090:80")?;
    let shut = first.run("shut", "")?;
    for host in lab.names() {
        lab.start(&host)?;
    }
    lab.wait_until_all_are_members()?;
    has_rules(&lab, "h1")?;
    let (before, theirs) = (rules(&lab, "h1")?, rules_of_others(&lab, "h1")?);
    ensure!(theirs.iter().any(|line| line == ":FORWARD DROP"), "Docker drops what is forwarded: {theirs:#?}");
    let ends = Ends::connect(&lab)?;
    are_there(&lab, "h1", "ip filter DOCKER-USER")?;
    ends.all_works(&lab).context("with Docker on h1")?;
    ensure!(!is_told(&lab, "h1", "filter")?, "it is in nobody's way");
    ensure!(rules_of_others(&lab, "h1")? == theirs, "Docker's rules have changed");

    let second = Docker::start(&lab, "h2")?;
    // Docker does so itself only where it is the one that turns forwarding on.
    lab.host("h2")?.sh("iptables -P FORWARD DROP")?;
    eventually(5 * SECOND, "h2 to let containers pass Docker's chains", || {
        are_there(&lab, "h2", "ip filter DOCKER-USER")
    })?;
    ends.all_works(&lab).context("with Docker on h2 as well")?;

    // What Docker publishes is reached as before, and what it does not is not: also by our containers.
    for place in [&lab.internet().place(), &lab.host("h2")?.place(), ends.near.place(), ends.far.place()] {
        let (name, _) = visit(&lab, place, "tcp", format!("{}:8090", underlay("h1")?), "")?;
        ensure!(name == "boxed", "{name} answers");
    }
    let unpublished = format!("{}:80", shut.address);
    visit(&lab, &lab.host("h1")?.place(), "tcp", &unpublished, "").context("the host itself")?;
    is_refused(&lab, ends.near.place(), "tcp", &unpublished)?;
    first.exec("boxed", &format!("ping -c 1 -W 1 {WORLD}"))?;

    // A container of Docker's in a network of ours.
    let inner = second.run("inner", "--network none")?;
    lab.ctl("h2", &format!("network connect web --pid {} --name inner", inner.pid))?.ok()?;
    eventually(5 * SECOND, "near to reach it", || ends.near.dig("inner"))?;
    eventually(5 * SECOND, "it to reach near", || {
        second.exec("inner", &format!("ping -c 1 -W 1 {}", ends.near.address()?))
    })?;
    second.exec("inner", &format!("ping -c 1 -W 1 {WORLD}"))?;

    // Somebody flushes all chains: Docker's is called by nobody any more, and the policy still drops.
    lab.host("h2")?.sh("iptables -F")?;
    repaired(&lab, "h2", "iptables -F", "ip filter FORWARD")?;
    ends.all_works(&lab).context("after `iptables -F`")?;

    // Docker starts anew, and without an agent there all goes on.
    let second = second.restart(&lab)?;
    eventually(5 * SECOND, "the rules to move back", || {
        ensure!(ours(&lab, "h2", "ip filter FORWARD")?.is_empty(), "they are in two places");
        are_there(&lab, "h2", "ip filter DOCKER-USER")
    })?;
    lab.stop("h1", Ending::Term)?;
    ends.near.ping(WORLD, SECOND).context("without an agent")?;
    visit(&lab, &lab.internet().place(), "tcp", format!("{}:8088", underlay("h1")?), "").context("without an agent")?;
    lab.start("h1")?;
    lab.wait_until_all_see_all()?;
    go(&lab, &ends, &before)?;
    for docker in [first, second] {
        docker.stop()?;
    }
    Ok(())
}

pub fn all_works_beside_ufw() -> anyhow::Result<()> {
    let enable = |lab: &Lab, host: &str| {
        UFW.iter().try_for_each(|(program, rules)| lab.host(host)?.place().feed(program, rules))
    };
    let lab = after(enable)?;
    let (before, theirs) = (rules(&lab, "h1")?, rules_of_others(&lab, "h1")?);
    let ends = Ends::connect(&lab)?;
    for chain in ["ip filter FORWARD", "ip6 filter FORWARD"] {
        are_there(&lab, "h1", chain)?;
    }
    ends.all_works(&lab)?;
    ensure!(rules_of_others(&lab, "h1")? == theirs, "ufw's rules have changed");
    // By hand, and as a reload does it: the whole table is loaded anew.
    let host = lab.host("h1")?;
    host.sh("nft flush chain ip filter FORWARD")?;
    repaired(&lab, "h1", "nft flush chain ip filter FORWARD", "ip filter FORWARD")?;
    enable(&lab, "h1")?;
    repaired(&lab, "h1", "iptables-restore", "ip filter FORWARD")?;
    repaired(&lab, "h1", "ip6tables-restore", "ip6 filter FORWARD")?;
    ends.all_works(&lab)?;
    go(&lab, &ends, &before)
}

fn repaired(lab: &Lab, host: &str, what: &str, chain: &str) -> anyhow::Result<()> {
    let ((), after) = eventually_in(REPAIRED, &format!("the repair after `{what}`"), || are_there(lab, host, chain))?;
    took(what, after);
    Ok(())
}

pub fn all_works_beside_firewalld() -> anyhow::Result<()> {
    let lab = after(|lab, host| lab.host(host)?.place().feed("nft -f -", FIREWALLD))?;
    let before = rules(&lab, "h1")?;
    let ends = Ends::connect(&lab)?;
    are_there(&lab, "h1", "inet firewalld filter_FORWARD")?;
    ends.all_works(&lab)?;
    // As a reload does it: one transaction that makes the table anew.
    lab.host("h1")?.place().feed("nft -f -", &format!("delete table inet firewalld\n{FIREWALLD}"))?;
    repaired(&lab, "h1", "a reload", "inet firewalld filter_FORWARD")?;
    ends.all_works(&lab)?;
    go(&lab, &ends, &before)
}

pub fn a_chain_of_somebody_s_own_is_told_and_left() -> anyhow::Result<()> {
    let lab = after(|lab, host| {
        lab.host(host)?.place().feed(
            "nft -f -",
            "table inet mine { chain passing { type filter hook forward priority 10; policy drop; tcp dport 22 accept; }; }",
        )
    })?;
    let before = rules(&lab, "h1")?;
    ensure!(!is_told(&lab, "h1", "mine")?, "nobody here has a way out yet");
    lab.network("web", "10.20.0.0/24")?;
    let near = lab.reachable("h1", "web", "near", "")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    eventually(SECOND, "it to be told", || {
        ensure!(is_told(&lab, "h1", "mine")?, "it is not");
        Ok(())
    })?;
    let said = lab.ctl("h1", "status")?.ok()?;
    let warning = said.lines().find(|line| line.starts_with("warning")).context("no warning")?;
    for words in ["chain passing of table inet mine", "iifname \"ovu*\" accept", "oifname \"ovu*\" accept"] {
        ensure!(warning.contains(words), "{words} is not in {warning}");
    }
    // It is in the way to the world, and in no other.
    near.ping(far.address()?, SECOND)?;
    ensure!(near.ping(WORLD, HALF_A_SECOND).is_err(), "the world is reached");
    let chain = |lab: &Lab| lab.host("h1")?.sh("nft -s list table inet mine");
    let theirs = chain(&lab)?;
    always(SECOND, "their rules to stay", || {
        ensure!(chain(&lab)? == theirs, "{}", chain(&lab)?);
        Ok(())
    })?;
    // Whoever does as they are told has peace, and a way.
    for rule in ["iifname ovu* accept", "oifname ovu* accept"] {
        lab.host("h1")?.sh(&format!("nft add rule inet mine passing {rule}"))?;
    }
    eventually(SECOND, "it to be told no more", || {
        ensure!(!is_told(&lab, "h1", "mine")?, "it is");
        Ok(())
    })?;
    near.ping(WORLD, SECOND)?;
    lab.host("h1")?.place().feed(
        "nft -f -",
        &format!("flush chain inet mine passing\n{}", "add rule inet mine passing tcp dport 22 accept"),
    )?;
    lab.ctl("h1", "network disconnect web near")?.ok()?;
    eventually(5 * SECOND, "the rules to be as they were", || {
        ensure!(rules(&lab, "h1")? == before, "{}", rules(&lab, "h1")?);
        Ok(())
    })
}

pub fn bridged_frames_are_not_filtered_by_the_host() -> anyhow::Result<()> {
    let lab = after(|lab, host| {
        let host = lab.host(host)?;
        host.sh("iptables -P FORWARD DROP")?;
        host.sh("ip6tables -P FORWARD DROP")?;
        if host.sh("ls /proc/sys/net/bridge").is_ok() {
            host.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
            host.sysctl("net.bridge.bridge-nf-call-ip6tables", "1")?;
            host.sysctl("net.bridge.bridge-nf-call-arptables", "1")?;
        }
        Ok(())
    })?;
    let host = lab.host("h1")?;
    if host.sh("ls /proc/sys/net/bridge").is_err() {
        println!("left out: this kernel has no br_netfilter");
        return Ok(());
    }
    // It does filter what passes a bridge of the host's own.
    host.ip("link add theirs type bridge")?;
    host.ip("link set theirs up")?;
    let (one, two) = (lab.container("h1", "one")?, lab.container("h1", "two")?);
    for (container, address) in [(&one, "10.77.0.1"), (&two, "10.77.0.2")] {
        let name = container.name();
        host.ip(&format!("link add to-{name} type veth peer name eth0 netns {name}"))?;
        host.ip(&format!("link set to-{name} master theirs up"))?;
        container.sh(&format!("ip address add {address}/24 dev eth0"))?;
        container.sh("ip link set eth0 up")?;
    }
    ensure!(one.ping("10.77.0.2", HALF_A_SECOND).is_err(), "the host filters no bridged frames");
    let ends = Ends::connect(&lab)?;
    ends.all_works(&lab)?;
    ensure!(one.ping("10.77.0.2", HALF_A_SECOND).is_err(), "what the host drops is dropped no more");
    lab.kernels_are_as_they_should_be()
}
