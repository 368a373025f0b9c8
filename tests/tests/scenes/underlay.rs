//! An underlay that is down for long, loses much, or carries little. What is slow comes to its end all the same, and
//! what was cut off goes on alone and comes back by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually, eventually_in};
use overlay_tests::lab::{Container, Flow, Lab, Oracle, ROUTER, Stream};

use super::support::leases::{AGREED, agree_within, ends, free_of, refusal};
use super::support::members::{id_of, row_of, wait_for_state};
use super::support::{SECOND, took};

/// Longer than every timeout.
const OUTAGE: Duration = Duration::from_secs(60);
/// Parts of a network that find each other again are whole within 10 intervals of gossip.
const WHOLE: Duration = Duration::from_millis(2500);
/// From what a wire of any quality lets through, to a connection that is lost for good.
const TIMEOUT: Duration = Duration::from_secs(120);

pub fn hosts_whose_link_was_down_for_a_minute_come_back_by_themselves() -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/24")?;
    let [left, right] = &ends(&lab)?;
    // One switches its interface off itself, and loses its routes with it; of the other one the cable is pulled.
    let off = [lab.reachable("h3", "web", "app-h3", "")?, lab.reachable("h4", "web", "app-h4", "")?];
    let oracle = Oracle::watch(&[left, right, &off[0], &off[1]])?;
    let (flow, steady) = (Flow::start(left, right)?, Stream::start(right, left)?);
    let streams = [Stream::start_patient(left, &off[0], TIMEOUT)?, Stream::start_patient(&off[1], right, TIMEOUT)?];
    let ids = ["h1", "h3", "h4"].map(|host| id_of(&lab, "h2", host));
    let [h1, h3, h4] = [&ids[0], &ids[1], &ids[2]].map(|id| id.as_ref().map_err(|e| anyhow::anyhow!("{e:#}")));
    let (h1, h3, h4) = (h1?, h3?, h4?);

    let down = Instant::now();
    lab.host("h3")?.ip("link set eth0 down")?;
    lab.wire.link("h4", false)?;
    for (host, ids) in [("h1", [h3, h4]), ("h2", [h3, h4]), ("h3", [h1, h4]), ("h4", [h1, h3])] {
        for id in ids {
            wait_for_state(&lab, host, id, "gone")?;
        }
    }
    // All go on out of what they hold. Nobody gets what another one has.
    let mut more = Vec::new();
    for (host, lost) in [("h1", &off[0]), ("h2", &off[1]), ("h3", left), ("h4", &off[0])] {
        let container = lab.connect(host, "web", &format!("more-{host}"), "")?;
        oracle.also(&container)?;
        more.push(container);
        let refused = refusal(&lab, host, "web", "early", &format!("--ip {}", lost.address()?))?;
        let why = format!("by endpoint `{}` on host `{}`, which is gone", lost.name(), lost.host());
        ensure!(refused.contains(&why), "{refused}");
    }
    eventually(AGREED, "those that hear each other to reach the new ones", || {
        right.ping(more[0].address()?, SECOND)?;
        left.ping(more[1].address()?, SECOND)
    })?;
    always(OUTAGE.saturating_sub(down.elapsed()), "each knows for how long it has not heard the others", || {
        for (host, id) in [("h1", h3), ("h2", h4), ("h3", h1), ("h4", h3)] {
            let row = row_of(&lab, host, id)?;
            let silent = row["silent_seconds"].as_u64().context("no number")?;
            let since = down.elapsed().as_secs();
            ensure!(row["state"] == "gone" && silent.abs_diff(since) <= 2, "{host}, after {since} s: {row}");
        }
        ensure!(left.dig("app-h3")?.addresses().is_empty(), "the name of what is out of reach is given out");
        Ok(())
    })?;
    let late = lab.connect("h3", "web", "late-h3", "")?;
    oracle.also(&late)?;
    let table = lab.ctl("h1", "host ls")?.ok()?;
    println!("{}", table.lines().filter(|line| line.contains("gone for")).collect::<Vec<_>>().join("\n"));

    lab.wire.link("h4", true)?;
    lab.host("h3")?.ip("link set eth0 up")?;
    let up = down.elapsed();
    let ((), after) = eventually_in(WHOLE, "all to be whole again", || {
        for (number, container) in more.iter().chain(&off).chain([&late]).enumerate() {
            for host in lab.names().iter().filter(|host| *host != container.host()) {
                ensure!(has_rows(&lab, host, container)?, "{host} lacks {} ({number})", container.name());
            }
        }
        for from in [left, right] {
            ensure!(from.dig("late-h3")?.addresses() == [late.address()?], "{} does not know it", from.name());
        }
        Ok(())
    })?;
    took("whole again after the links were up", after);
    // Nobody but the operator makes this one.
    lab.host("h3")?.ip(&format!("route add default via {ROUTER}"))?;
    for container in more.iter().chain(&off).chain([&late]) {
        // A container whose TCP asked for the address a moment before there was an answer reports it unreachable once more.
        eventually(ARP_GIVES_UP, "the containers to reach each other", || {
            left.ping(container.address()?, SECOND)?;
            off[1].ping(container.address()?, SECOND)
        })?;
    }
    took("until all agree", agree_within(&lab, "web", AGREED)?);
    for (stream, host) in streams.into_iter().zip(["h3", "h4"]) {
        let report = stream.stop()?;
        println!("the connection to {host}: {report:?}");
        let stall = Duration::from_millis(report.longest_stall_ms);
        ensure!(!report.broken && stall > OUTAGE - SECOND, "it was lost, or felt nothing: {report:?}");
        ensure!(stall < up + WHOLE + 2 * SECOND, "it stood still for longer than the link: {report:?}");
    }
    let (report, steady) = (flow.stop()?, steady.stop()?);
    ensure!(report.lost == 0, "between hosts that were never cut off: {report:?}");
    ensure!(!steady.broken && steady.longest_stall_ms < 1000, "{steady:?}");
    println!("{} packets between the others, {} lost; {steady:?}", report.sent, report.lost);
    oracle.stop().map(drop)
}

/// Whether the kernel of a host has all that it needs to reach a container.
fn has_rows(lab: &Lab, host: &str, container: &Container) -> anyhow::Result<bool> {
    let rows = lab.rows(host, "fdb web")?;
    Ok(rows.iter().any(|row| row["name"] == container.name() && row["kernel"] == "yes"))
}

/// A kernel asks three times for a neighbour, a second apart (`mcast_solicit` and `retrans_time_ms` in Linux).
const ARP_GIVES_UP: Duration = Duration::from_secs(3);

/// On a wire that loses nothing a change is everywhere within 10 intervals of gossip.
const SPREAD: Duration = Duration::from_millis(2500);

/// How long everything may take that is done by gossip or by a call, on a wire that loses `percent` of all frames.
///
/// A round of gossip is three datagrams, so it takes 1 / (1 - p)^3 times as many rounds: the 10 intervals become 10.3, 11.7
/// and 29. What a lost packet costs a call is TCP's to say: a second if it was the first one, 200 ms and more for others; and a
/// call is given up after 2 s and has to be made again. Of those of five round trips, as TCP and TLS need them,
/// ((1 - p)^2)^5 lose nothing: 90 %, 60 % and 3 %. So there is time for one that is given up, and at 30 % for six.
fn bound(percent: u8) -> Duration {
    const CALL: Duration = Duration::from_secs(2);
    let through = 1.0 - f64::from(percent) / 100.0;
    SPREAD.div_f64(through.powi(3)) + if percent < 10 { CALL } else { 6 * CALL }
}

pub fn one_percent_of_loss_hurts_nobody() -> anyhow::Result<()> {
    lossy(1)
}

pub fn five_percent_of_loss_hurt_nobody() -> anyhow::Result<()> {
    lossy(5)
}

pub fn thirty_percent_of_loss_slow_things_down_and_break_nothing() -> anyhow::Result<()> {
    lossy(30)
}

fn lossy(percent: u8) -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    all_comes_to_its_end(&lab, bound(percent), || lab.wire.loss(percent))
}

pub fn a_megabit_is_enough() -> anyhow::Result<()> {
    let lab = Lab::with_agents(4)?;
    all_comes_to_its_end(&lab, bound(0), || lab.names().iter().try_for_each(|host| lab.wire.rate(host, Some("1mbit"))))
}

/// Makes the wire worse, then does everything that members do together.
fn all_comes_to_its_end(lab: &Lab, within: Duration, worse: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("each within {:.1} s", within.as_secs_f32());
    lab.network("old", "10.10.0.0/24")?;
    let [near, far] = &[lab.reachable("h1", "old", "near", "")?, lab.reachable("h2", "old", "far", "")?];
    lab.wait_until_reachable("old", near)?;
    let oracle = Oracle::watch(&[near, far])?;
    let stream = Stream::start_patient(near, far, TIMEOUT)?;
    worse()?;
    let flow = Flow::start(near, far)?;

    lab.json("h1", "network create web --subnet 10.20.0.0/24")?;
    in_time(within, "all to know the network", || {
        lab.names().iter().try_for_each(|host| lab.json(host, "network inspect web").map(drop))
    })?;
    let mut all = Vec::new();
    for host in lab.names() {
        all.push(attached(lab, &host, &format!("app-{host}"), "", within)?);
    }
    // One address after another out of a block that another host holds.
    for (host, holder) in [("h2", "h3"), ("h4", "h1")] {
        let held = eventually(within, "somebody to hold a block", || free_of(lab, host, "web", holder))?;
        all.push(attached(lab, host, &format!("lent-{host}"), &format!("--ip {held}"), within)?);
        ensure!(all.last().context("none")?.address()? == held, "another address than it was asked for");
    }
    all.iter().try_for_each(|container| oracle.also(container))?;
    let names = all.iter().map(Container::name).collect::<Vec<_>>().join(" ");
    let mut addresses = all.iter().map(Container::address).collect::<Result<Vec<_>, _>>()?;
    addresses.sort();
    in_time(within, "all names to be known everywhere", || {
        for from in &all {
            let known = from.dig(&names)?.addresses();
            ensure!(known == addresses, "{} knows {known:?} of {addresses:?}", from.host());
        }
        Ok(())
    })?;
    for (from, to) in all.iter().zip(all.iter().cycle().skip(1)) {
        eventually(within, "an echo", || from.ping(to.address()?, SECOND))?;
    }
    in_time(within, "all to agree, and their kernels", || agree_within(lab, "web", within))?;
    let gone = all.pop().context("none")?;
    lab.ctl(gone.host(), &format!("network disconnect web {}", gone.name()))?.ok()?;
    in_time(within, "what was released to be gone everywhere", || {
        for host in lab.names() {
            let rows = lab.rows(&host, "endpoint ls web")?;
            ensure!(rows.iter().all(|row| row["name"] != gone.name()), "{host} lists it");
        }
        ensure!(all[0].dig(gone.name())?.status == "NXDOMAIN", "its name is answered");
        Ok(())
    })?;
    agree_within(lab, "web", within)?;
    let (report, stream) = (flow.stop()?, stream.stop()?);
    println!("{} packets sent, {} lost; {stream:?}", report.sent, report.lost);
    ensure!(!stream.broken && stream.messages > 10, "{stream:?}");
    oracle.stop().map(drop)
}

/// [`eventually`], up to the end of the answer: a call may take long, and counts.
fn in_time<T>(within: Duration, what: &str, probe: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let answer = eventually(within, what, probe)?;
    took(what, start.elapsed());
    ensure!(start.elapsed() < within, "{what}: it took {:?}", start.elapsed());
    Ok(answer)
}

/// Attaches a container as a runtime does that tries again: the same endpoint, whether it was told of it or not.
fn attached(lab: &Lab, host: &str, name: &str, more: &str, within: Duration) -> anyhow::Result<Container> {
    let mut container = lab.container(host, name)?;
    let line = format!("network connect web --netns {} --name {name} {more}", container.netns().display());
    let what = format!("{name} to be attached");
    let endpoint = in_time(within, &what, || lab.json(host, &line))?;
    container.attached(&endpoint)?;
    Ok(container)
}
