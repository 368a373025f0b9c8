//! Two hundred operations as the dice say, and then all is removed: nothing of it is left in any kernel.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use fastrand::Rng;
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Done, Ending, Lab};

use super::support::SECOND;

const OPERATIONS: usize = 200;
const HOSTS: [&str; 2] = ["h1", "h2"];
const NETWORKS: [&str; 4] = ["red", "green", "blue", "closed"];
const CONTAINERS: [&str; 4] = ["c0", "c1", "c2", "c3"];

/// All that a host's kernel has, and the files that stand for namespaces.
fn dump(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let place = lab.host(host)?;
    let mut all = String::new();
    for line in [
        "ip -br link",
        "ip -br address",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip neigh show nud permanent",
        "ip rule",
        "bridge fdb show",
        "nft -s list ruleset",
        "ls /run/overlayd/netns",
    ] {
        writeln!(all, "--- {line}\n{}", place.sh(line)?)?;
    }
    let mounts = place.sh("cat /proc/self/mounts")?;
    mounts.lines().filter(|line| line.contains("/run/overlayd")).try_for_each(|line| writeln!(all, "{line}"))?;
    Ok(all)
}

struct Dice<'a> {
    lab: &'a mut Lab,
    rng: Rng,
    done: usize,
    refused: usize,
}

impl Dice<'_> {
    fn any<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.rng.usize(..all.len())]
    }

    /// What is refused is refused in one line.
    fn say(&mut self, host: &str, line: &str) -> anyhow::Result<Done> {
        let done = self.lab.ctl(host, line)?;
        ensure!(done.code == 0 || done.stderr.lines().count() == 1, "{host}: {line}: {done:?}");
        let count = if done.code == 0 { &mut self.done } else { &mut self.refused };
        *count += 1;
        Ok(done)
    }

    fn create(&mut self, host: &str, network: &str) -> anyhow::Result<()> {
        let more = match network {
            "red" => "--subnet 10.90.0.0/24 --subnet fd00:90::/64",
            "green" => "--subnet 10.91.0.0/24 --driver bridge",
            "blue" => "--subnet 10.92.0.0/24 --subnet fd00:92::/64 --no-masquerade --mtu 1300",
            _ => "--subnet fd00:93::/64 --subnet 10.93.0.0/24 --icc=false",
        };
        self.say(host, &format!("network create {network} {more}")).map(drop)
    }

    fn roll(&mut self) -> anyhow::Result<()> {
        let (host, network, name) = (self.any(&HOSTS), self.any(&NETWORKS), self.any(&CONTAINERS));
        let other = self.any(&CONTAINERS);
        let port = self.rng.u16(8000..8010);
        let full = format!("{name}-{host}");
        match self.rng.u8(..100) {
            0..20 => self.create(host, network)?,
            20..50 => {
                let published = if self.rng.bool() { format!("-p {port}:80") } else { String::new() };
                let line = format!("network connect {network} --netns /run/netns/{full} --name {full} {published}");
                self.say(host, &line)?;
            }
            50..65 => drop(self.say(host, &format!("network disconnect {network} {full}"))?),
            65..72 => drop(self.say(host, &format!("endpoint publish {network} {full} -p {port}:81/udp"))?),
            72..77 => drop(self.say(host, &format!("endpoint unpublish {network} {full} {port}"))?),
            77..84 => drop(self.say(host, &format!("link add closed {full} {other}-h1:80"))?),
            84..87 => drop(self.say(host, &format!("link rm closed {full} {other}-h1:80"))?),
            87..91 => drop(self.say(host, &format!("network rm {network}"))?),
            91..94 => drop(self.say(host, &format!("network rm --force {network}"))?),
            94..97 => {
                // The container ends, and one of its name starts.
                self.lab.host(host)?.sh(&format!("ip netns delete {full}"))?;
                self.lab.host(host)?.sh(&format!("ip netns add {full}"))?;
            }
            _ => {
                let ending = if self.rng.bool() { Ending::Kill } else { Ending::Term };
                self.lab.stop(host, ending)?;
                self.lab.start(host)?;
            }
        }
        Ok(())
    }
}

pub fn two_hundred_operations_leave_nothing() -> anyhow::Result<()> {
    let seed = std::env::var("OVERLAY_SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("OVERLAY_SEED={seed} throws the same dice");
    let mut lab = Lab::with_agents(2)?;
    let mut containers: Vec<Container> = Vec::new();
    for host in HOSTS {
        // A host that forwards IPv6 is in groups of routers on each of its links, and the switch stays on.
        lab.host(host)?.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        for name in CONTAINERS {
            containers.push(lab.container(host, &format!("{name}-{host}"))?);
        }
    }
    let before = HOSTS.map(|host| dump(&lab, host));
    let mut dice = Dice { lab: &mut lab, rng: Rng::with_seed(seed), done: 0, refused: 0 };
    for network in NETWORKS {
        dice.create("h1", network)?;
    }
    for _ in 0..OPERATIONS {
        dice.roll()?;
    }
    println!("{} done, {} refused", dice.done, dice.refused);
    ensure!(dice.done > OPERATIONS / 10 && dice.refused > 0, "{} done, {} refused", dice.done, dice.refused);
    lab.wait_until_all_see_all()?;
    for host in HOSTS {
        for row in lab.rows(host, "network ls")? {
            let id = row["id"].as_str().context("no id")?;
            // One that the other host has removed meanwhile is gone here, but for what is left in it.
            let removed = lab.ctl(host, &format!("network rm --force {id}"))?;
            ensure!(removed.code == 0 || removed.stderr.contains("no network"), "{removed:?}");
        }
        for row in lab.json(host, "status")?["draining"].as_array().context("no list")? {
            lab.ctl(host, &format!("network rm --force {}", row["id"].as_str().context("no id")?))?.ok()?;
        }
    }
    for (host, before) in HOSTS.iter().zip(before) {
        let before = before?;
        eventually(20 * SECOND, "nothing to be left", || {
            let after = dump(&lab, host)?;
            ensure!(before == after, "{host}, before: {before}\nafter: {after}");
            for what in ["network ls", "endpoint ls", "link ls"] {
                ensure!(lab.rows(host, what)?.is_empty(), "{host} lists something at {what}");
            }
            let status = lab.json(host, "status")?;
            ensure!(status["settled"] == true && status["draining"] == serde_json::json!([]), "{status}");
            Ok(())
        })?;
    }
    for container in &containers {
        let links = lab.host(container.host())?.sh(&format!("ip -n {} -br link", container.name()))?;
        ensure!(links.lines().count() == 1, "{} has {links}", container.name());
    }
    Ok(())
}
