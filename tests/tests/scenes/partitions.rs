//! Clusters that are cut in two, or lose power. Whatever happens, no address is ever live twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually, eventually_in, pass};
use overlay_tests::lab::{Container, Flow, Lab, Oracle, Stream};
use serde_json::Value;

use super::support::leases::{AGREED, agree, anew, free_of, refusal};
use super::support::members::{id_of, wait_for_state};
use super::support::{HALF_A_SECOND, SECOND, took};

/// Parts of a network that find each other again are whole within 10 intervals of gossip.
const WHOLE: Duration = Duration::from_millis(2500);

pub fn both_sides_of_a_split_go_on_until_they_are_full() -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/27")?;
    let (west, east) = (["h1", "h2"], ["h3", "h4"]);
    let mut all = Vec::new();
    for host in west.into_iter().chain(east) {
        all.push(lab.reachable(host, "web", &format!("first-{host}"), "")?);
    }
    let oracle = Oracle::watch(&all.iter().collect::<Vec<_>>())?;
    let streams = [Stream::start(&all[0], &all[1])?, Stream::start(&all[2], &all[3])?];

    lab.wire.cut(&west, &east)?;
    for (side, others) in [(west, east), (east, west)] {
        let lost: Vec<_> = others.into_iter().map(|host| id_of(&lab, side[0], host)).collect::<Result<_, _>>()?;
        for (host, id) in side.iter().flat_map(|host| lost.iter().map(move |id| (host, id))) {
            wait_for_state(&lab, host, id, "gone")?;
        }
    }
    for side in [west, east] {
        let mut open: Vec<&str> = side.into();
        let mut count = 0;
        while let Some(host) = open.first().copied() {
            let name = format!("more-{host}-{count}");
            let mut container = lab.container(host, &name)?;
            let line = format!("-o json network connect web --netns {} --name {name}", container.netns().display());
            let done = lab.ctl(host, &line)?;
            if done.code == 0 {
                container.attached(&done.json()?)?;
                oracle.also(&container)?;
                all.push(container);
                count += 1;
                open.rotate_left(1);
            } else {
                let why = "has no free address of 10.20.0.0/27 that can be reached from here";
                ensure!(done.code == 1 && done.stderr.contains(why), "another reason: {done:?}");
                ensure!(done.stderr.contains("which does not answer"), "it does not say who is missing: {done:?}");
                open.remove(0);
            }
        }
        println!("{count} more attached on {side:?} until it was full");
        ensure!(count > 0, "{side:?} could not go on");
    }
    lab.wire.heal()?;
    whole(&lab, "web", &all)?;
    for stream in streams {
        let report = stream.stop()?;
        ensure!(!report.broken, "{report:?}");
    }
    let addresses: BTreeSet<_> = all.iter().map(Container::address).collect::<Result<_, _>>()?;
    ensure!(addresses.len() == all.len(), "an address was given twice: {addresses:?}");
    ensure!(addresses.len() == 29, "{} of 29 addresses were used: {addresses:?}", addresses.len());
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn the_same_network_name_in_two_partitions() -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    let (west, east) = (["h1", "h2"], ["h3", "h4"]);
    lab.wire.cut(&west, &east)?;
    let mut pairs = Vec::new();
    for (side, others) in [(west, east), (east, west)] {
        for other in others {
            wait_for_state(&lab, side[0], &id_of(&lab, side[0], other)?, "gone")?;
        }
        let made = lab.json(side[0], "network create web --subnet 10.20.0.0/24")?;
        let id = made["id"].as_str().context("a network without id")?.to_owned();
        eventually(AGREED, "the other host to know it", || lab.json(side[1], "network inspect web").map(drop))?;
        // The same addresses on both sides, by chance or on purpose.
        let near = lab.connect(side[0], "web", "near", "--ip 10.20.0.10")?;
        let far = lab.connect(side[1], "web", "far", "--ip 10.20.0.11")?;
        eventually(AGREED, "the two to reach each other", || near.ping(far.address()?, SECOND))?;
        pairs.push((id, side, near, far));
    }
    let flows = pairs.iter().map(|(.., near, far)| Flow::start(near, far)).collect::<Result<Vec<_>, _>>()?;
    // Two networks with one name and the same addresses: one oracle each, until they have names of their own.
    let oracles = pairs.iter().map(|(.., near, far)| Oracle::watch(&[near, far])).collect::<Result<Vec<_>, _>>()?;
    lab.wire.heal()?;
    let names = |host: &str| -> anyhow::Result<BTreeMap<String, String>> {
        let rows = lab.rows(host, "network ls")?;
        ensure!(rows.len() == 2, "{host} sees {rows:?}");
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned).context("not a text");
        ensure!(rows.iter().filter(|row| row["conflict"] == true).count() == 1, "{host}: {rows:?}");
        rows.iter().map(|row| Ok((text(row, "id")?, text(row, "name")?))).collect()
    };
    let (seen, after) = eventually_in(WHOLE, "all to see both, and the same winner", || {
        let seen = lab.names().iter().map(|host| names(host)).collect::<Result<BTreeSet<_>, _>>()?;
        ensure!(seen.len() == 1, "they differ: {seen:#?}");
        seen.into_iter().next().context("no host")
    })?;
    took("the clash was seen by all", after);
    // Of each side one host is enough to see that.
    lab.wait_until_all_see_all()?;
    let loser = seen.iter().find(|(_, name)| *name != "web").context("both are `web`")?;
    ensure!(*loser.1 == format!("web~{}", loser.0.chars().take(8).collect::<String>()), "{seen:?}");

    for (oracle, (id, _, near, far)) in oracles.into_iter().zip(&mut pairs) {
        oracle.stop()?;
        for container in [near, far] {
            let rows = lab.rows(container.host(), &format!("endpoint ls {id}"))?;
            let row = rows.iter().find(|row| row["name"] == container.name()).context("it is not listed")?;
            container.attached(row)?;
        }
    }
    let all: Vec<&Container> = pairs.iter().flat_map(|(.., near, far)| [near, far]).collect();
    let oracle = Oracle::watch(&all)?;
    for (flow, (id, side, near, _)) in flows.into_iter().zip(&pairs) {
        let report = flow.stop()?;
        ensure!(report.lost == 0, "on {side:?}: {report:?}");
        let name = &seen[id];
        // The same on any host, also one that was on the other side.
        let reply = near.dig("far")?;
        ensure!(reply.addresses() == [Ipv4Addr::new(10, 20, 0, 11)], "{reply:?}");
        for host in lab.names() {
            eventually(AGREED, "both endpoints to be known", || {
                let rows = lab.rows(&host, &format!("endpoint ls {name}"))?;
                let hosts: BTreeSet<_> = rows.iter().filter_map(|row| row["host"].as_str()).collect();
                ensure!(rows.len() == 2 && hosts == (*side).into(), "{host} sees in {name}: {rows:?}");
                Ok(())
            })?;
        }
    }
    // Both on one host: neither hears the other.
    let mut guests = Vec::new();
    for (id, name) in &seen {
        let side = pairs.iter().find(|pair| pair.0 == *id).context("an unknown network")?.1;
        let guest = lab.connect("h2", name, &format!("guest-{}", side[0]), "")?;
        eventually(AGREED, "the guest to reach its own", || guest.ping("10.20.0.11", SECOND))?;
        oracle.also(&guest)?;
        guests.push(guest);
    }
    for guest in &guests {
        let own = guests.iter().filter(|other| guest.dig(other.name()).is_ok_and(|r| r.addresses().len() == 1));
        let own: Vec<_> = own.map(Container::name).collect();
        ensure!(own == [guest.name()], "{} resolves {own:?}", guest.name());
    }
    for name in seen.values() {
        agree(&lab, name)?;
    }
    oracle.stop().map(drop)
}

pub fn a_network_deleted_in_one_part_drains_in_the_other() -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/24")?;
    let (west, east) = (["h1", "h2"], ["h3", "h4"]);
    let id = lab.json("h1", "network inspect web")?[0]["Id"].as_str().context("no id")?.to_owned();
    // So that the east has something to attach from.
    let first = lab.reachable("h3", "web", "first", "")?;
    first.remove()?;
    eventually(AGREED, "the network to be empty", || {
        ensure!(lab.rows("h1", "endpoint ls web")?.is_empty(), "an endpoint is left");
        Ok(())
    })?;
    lab.wire.cut(&west, &east)?;
    for (from, of) in [("h1", "h3"), ("h1", "h4"), ("h3", "h1"), ("h3", "h2")] {
        wait_for_state(&lab, from, &id_of(&lab, from, of)?, "gone")?;
    }
    let attached = lab.connect("h3", "web", "app", "")?;
    let others = [lab.connect("h4", "web", "one", "")?, lab.connect("h4", "web", "two", "")?];
    let here = lab.connect("h1", "web", "here", "")?;
    let oracle = Oracle::watch(&[&attached, &others[0], &others[1], &here])?;
    let refused = lab.ctl("h1", "network rm web")?;
    ensure!(refused.code == 1 && refused.stderr.contains("`here` on host `h1`"), "{refused:?}");
    ensure!(refused.stderr.contains("--force"), "{refused:?}");
    lab.ctl("h1", "network rm --force web")?.ok()?;
    ensure!(here.try_sh("ip link show eth0")?.code != 0, "its interface is left");
    lab.wire.heal()?;
    let ((), after) = eventually_in(WHOLE, "the deletion to be known to all", || {
        for host in lab.names() {
            ensure!(lab.rows(&host, "network ls")?.is_empty(), "{host} lists it");
        }
        Ok(())
    })?;
    took("deleted everywhere", after);
    for host in lab.names() {
        let refused = refusal(&lab, &host, &id, "late", "")?;
        ensure!(refused.contains("there is no network"), "{refused}");
    }
    // What was attached meanwhile stays until it is let go, with its address.
    let has = |address: Ipv4Addr| anyhow::Ok(attached.sh("ip -4 address show eth0")?.contains(&address.to_string()));
    always(2 * SECOND, "the endpoint stays", || {
        ensure!(has(attached.address()?)?, "its interface is gone");
        Ok(())
    })?;
    let status = lab.json("h3", "status")?;
    let draining = &status["draining"][0];
    ensure!(draining["id"] == id.as_str() && draining["endpoints"] == serde_json::json!(["app"]), "not told: {status}");
    ensure!(lab.ctl("h3", "status")?.ok()?.contains(&format!("overlayctl network disconnect {id}")), "not told how");
    // Another of the same name is another network.
    lab.network("web", "10.20.0.0/24")?;
    // By force all of it goes that is on a host, and nothing of the new one.
    let forced = lab.json("h4", &format!("network rm --force {id}"))?;
    ensure!(forced["id"] == id.as_str(), "{forced}");
    for other in &others {
        ensure!(other.try_sh("ip link show eth0")?.code != 0, "the interface is left");
    }
    ensure!(lab.json("h4", "status")?["draining"] == serde_json::json!([]), "it is gone");
    ensure!(lab.ctl("h4", &format!("network rm --force {id}"))?.code == 1, "there is nothing left of it");
    lab.json("h4", "network inspect web")?;
    ensure!(has(attached.address()?)?, "what is on another host went");
    lab.ctl("h3", &format!("network disconnect {id} app"))?.ok()?;
    ensure!(attached.try_sh("ip link show eth0")?.code != 0, "the interface is left");
    ensure!(lab.json("h3", "status")?["draining"] == serde_json::json!([]), "it is gone");
    let fresh = lab.connect("h3", "web", "fresh", "")?;
    oracle.also(&fresh)?;
    oracle.stop().map(drop)
}

pub fn a_full_power_loss_comes_back_with_the_same_addresses() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let mut before = BTreeMap::new();
    let mut old = Vec::new();
    for host in lab.names() {
        let container = lab.reachable(&host, "web", &format!("app-{host}"), "")?;
        before.insert(host.clone(), (container.address()?, id_of(&lab, "h1", &host)?));
        old.push(container);
    }
    // One of them has an address that another host's block lent.
    let held = eventually(AGREED, "h1 to know what h3 holds", || free_of(&lab, "h1", "web", "h3"))?;
    let lent = lab.reachable("h1", "web", "lent", &format!("--ip {held}"))?;
    let oracle = Oracle::watch(&old.iter().chain([&lent]).collect::<Vec<_>>())?;

    for host in lab.names() {
        lab.crash(&host)?;
    }
    for host in ["h3", "h1", "h4", "h2"] {
        lab.reboot(host)?;
        lab.start(host)?;
        pass(HALF_A_SECOND);
    }
    lab.wait_until_all_see_all()?;
    let mut back = Vec::new();
    for (host, (address, id)) in &before {
        let name = format!("app-{host}");
        let app = eventually(AGREED, &format!("{name} to be attached again"), || anew(&lab, host, &name))?;
        ensure!(app.address()? == *address, "{name} had {address} and has {:?}", app.address());
        ensure!(id_of(&lab, "h1", host)? == *id, "{host} has another identity");
        oracle.also(&app)?;
        back.push(app);
    }
    let lent = lab.connect("h1", "web", "lent", "")?;
    ensure!(lent.address()? == held, "it had {held} and has {:?}", lent.address());
    oracle.also(&lent)?;
    back.push(lent);
    whole(&lab, "web", &back)?;
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

/// Waits until every host lists all endpoints, and the kernels have the way to each.
fn whole(lab: &Lab, network: &str, all: &[Container]) -> anyhow::Result<()> {
    let names: BTreeSet<&str> = all.iter().map(Container::name).collect();
    let ((), after) = eventually_in(WHOLE, "all to be whole again", || {
        for host in lab.names() {
            let rows = lab.rows(&host, &format!("fdb {network}"))?;
            let there = rows.iter().filter(|row| row["kernel"] == "yes").filter_map(|row| row["name"].as_str());
            let there: BTreeSet<&str> = there.collect();
            let missing: Vec<_> = names.difference(&there).collect();
            ensure!(missing.is_empty(), "{host} lacks {missing:?}");
        }
        Ok(())
    })?;
    took("whole again", after);
    Ok(())
}
