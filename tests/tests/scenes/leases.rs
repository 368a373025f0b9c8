//! Leases that nothing can break: hosts that die, are forgotten and come back. Whatever happens, no address is ever live
//! twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use overlay_tests::eventually::{always, eventually, eventually_in};
use overlay_tests::lab::{Ending, Flow, Lab, Oracle, Stream};

use super::support::complaint::complains;
use super::support::leases::{AGREED, agree, anew, ends, free_of, holders, once_heard, refusal};
use super::support::members::{id_of, new_identity, row_of, wait_for_state};
use super::support::{SECOND, took};

/// From the start of an agent to the first network or endpoint: nothing of that waits for those that are not heard, which takes ten
/// seconds and more.
const READY: Duration = Duration::from_secs(5);
/// The same, if a member is off: it has to be told from one that was not heard yet.
const WITH_ONE_OFF: Duration = Duration::from_secs(10);

pub fn a_new_cluster_is_ready_as_soon_as_its_hosts_hear_each_other() -> anyhow::Result<()> {
    let mut lab = Lab::new(3)?;
    for host in ["h1", "h2"] {
        lab.start(host)?;
    }
    lab.wait_until_all_see_all()?;
    // Neither knows whether the third belongs to a cluster already.
    always(SECOND, "nobody makes a network before there is a cluster", || {
        let done = lab.ctl("h1", "network create web --subnet 10.20.0.0/26")?;
        ensure!(done.code == 1 && done.stderr.contains("no network can be made or removed here yet"), "{done:?}");
        ensure!(
            lab.ctl("h1", "status")?.ok()?.contains("hear all hosts that it was told to --join"),
            "it says nothing"
        );
        Ok(())
    })?;
    lab.start("h3")?;
    let started = Instant::now();
    eventually(READY, "a network to be made", || lab.ctl("h3", "network create web --subnet 10.20.0.0/26")?.ok())?;
    let container = eventually(READY, "an endpoint", || anew(&lab, "h2", "first"))?;
    let ready = started.elapsed();
    took("from the start of the last agent to the first network and endpoint", ready);
    ensure!(ready < READY, "it took {ready:?}");
    lab.wait_until_all_see_all()?;
    for host in lab.names() {
        let rows = lab.rows(&host, "host ls")?;
        ensure!(rows.len() == 3 && rows.iter().all(|row| row["phase"] == "established"), "{host} sees {rows:?}");
    }
    Oracle::watch(&[&container])?.stop().map(drop)
}

pub fn a_dead_host_is_forgotten_and_its_space_is_used_again() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let lost = lab.reachable("h4", "web", "lost", "")?;
    let oracle = Oracle::watch(&[left, right, &lost])?;
    let (flow, stream) = (Flow::start(left, right)?, Stream::start(right, left)?);
    let (address, old) = (lost.address()?, id_of(&lab, "h1", "h4")?);
    let held = eventually(AGREED, "h2 to know what h4 holds", || free_of(&lab, "h2", "web", "h4"))?;

    lab.crash("h4")?;
    wait_for_state(&lab, "h2", &old, "gone")?;
    let line = format!("--ip {address}");
    for (line, why) in [
        (&line, "by endpoint `lost` on host `h4`, which is gone"),
        (&format!("--ip {held}"), "host `h4`, which does not answer"),
    ] {
        let refused = refusal(&lab, "h2", "web", "early", line)?;
        ensure!(refused.contains(why) && refused.contains("overlayctl host forget h4"), "{refused}");
    }

    let start = Instant::now();
    lab.ctl("h2", "host forget h4")?.ok()?;
    took("forgotten", start.elapsed());
    for host in ["h1", "h2", "h3"] {
        wait_for_state(&lab, host, &old, "forgotten")?;
        let row = row_of(&lab, host, &old)?;
        ensure!(row["heir"] == "h2", "{host} sees another heir: {row}");
        holders(&lab, host, "web", |holders| !holders.contains("h4"))?;
    }
    // Whatever the dead host held can be had, also the very address that was in use there, and from any host.
    let again = once_heard(&lab, "h3", "again", &line)?;
    oracle.also(&again)?;
    eventually(AGREED, "it to be reached", || right.ping(address, SECOND))?;
    // Again is as good as once.
    lab.ctl("h1", "host forget h4")?.ok()?;

    lab.reboot("h4")?;
    lab.start("h4")?;
    let new = new_identity(&lab, "h4", &old)?;
    let log = lab.agent("h4")?.log()?;
    ensure!(log.contains("host fenced") && log.contains("was forgotten"), "it does not say why: {log}");
    lab.wait_until_all_see_all()?;
    let back = eventually(AGREED, "the host to be a member again", || anew(&lab, "h4", "back"))?;
    oracle.also(&back)?;
    ensure!(back.address()? != address, "it got an address that is in use");
    eventually(AGREED, "its endpoint to be reached", || right.ping(back.address()?, SECOND))?;
    wait_for_state(&lab, "h1", &new, "alive")?;

    let (report, stream) = (flow.stop()?, stream.stop()?);
    ensure!(report.lost == 0 && !stream.broken, "others were hurt: {report:?} {stream:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn forgetting_waits_for_a_member_that_is_away_and_says_for_whom() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(5)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let away = lab.reachable("h4", "web", "away", "")?;
    let lost = lab.reachable("h5", "web", "lost", "")?;
    let oracle = Oracle::watch(&[left, right, &away, &lost])?;
    let (line, old) = (format!("--ip {}", lost.address()?), id_of(&lab, "h1", "h5")?);

    lab.wire.cut(&["h4"], &["h1", "h2", "h3", "h5"])?;
    lab.crash("h5")?;
    wait_for_state(&lab, "h1", &old, "gone")?;
    wait_for_state(&lab, "h1", &id_of(&lab, "h1", "h4")?, "gone")?;
    let mut forget = lab.start_ctl("h1", "host forget h5", "forget-h5")?;
    forget.wait_for("waiting for h4 (gone)", AGREED)?;
    eventually(AGREED, "all but the one that is away to seal", || {
        let row = row_of(&lab, "h1", &old)?;
        ensure!(row["waits_for"] == serde_json::json!(["h4"]), "{row}");
        Ok(())
    })?;
    always(2 * SECOND, "nothing of it is used while a member is not asked", || {
        ensure!(forget.ended()?.is_none(), "it did not wait: {}", forget.printed()?);
        let row = row_of(&lab, "h1", &old)?;
        ensure!(row["state"] == "gone" && row["waits_for"] == serde_json::json!(["h4"]), "{row}");
        let refused = refusal(&lab, "h1", "web", "early", &line)?;
        ensure!(refused.contains("on host `h5`, which is gone"), "{refused}");
        Ok(())
    })?;
    lab.wire.heal()?;
    let ((), after) = eventually_in(2 * AGREED, "the host to be forgotten", || {
        let code = forget.ended()?.with_context(|| format!("it waits: {}", forget.printed().unwrap_or_default()))?;
        ensure!(code == 0, "it ended with {code}: {}", forget.printed()?);
        Ok(())
    })?;
    took("forgotten after the last member was back", after);
    let again = once_heard(&lab, "h4", "again", &line)?;
    oracle.also(&again)?;
    agree(&lab, "web")?;

    // A majority is enough if the operator says so.
    let (line, old) = (format!("--ip {}", away.address()?), id_of(&lab, "h1", "h4")?);
    lab.crash("h4")?;
    lab.wire.cut(&["h3"], &["h1", "h2"])?;
    wait_for_state(&lab, "h1", &old, "gone")?;
    wait_for_state(&lab, "h1", &id_of(&lab, "h1", "h3")?, "gone")?;
    let mut waits = lab.start_ctl("h1", "host forget h4", "forget-h4")?;
    waits.wait_for("waiting for h3 (gone)", AGREED)?;
    lab.ctl("h1", "host forget h4 --force")?.ok()?;
    ensure!(waits.wait(AGREED)? == 0, "the one that waited was not told: {}", waits.printed()?);
    let forced = once_heard(&lab, "h2", "forced", &line)?;
    oracle.also(&forced)?;
    lab.wire.heal()?;
    wait_for_state(&lab, "h3", &old, "forgotten")?;
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn hosts_that_are_off_are_forgotten_together() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(5)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let [fourth, fifth] = ["h4", "h5"].map(|host| lab.reachable(host, "web", &format!("app-{host}"), ""));
    let (fourth, fifth) = (fourth?, fifth?);
    let oracle = Oracle::watch(&[left, right, &fourth, &fifth])?;
    let ids = [id_of(&lab, "h1", "h4")?, id_of(&lab, "h1", "h5")?];
    for (host, id) in ["h4", "h5"].iter().zip(&ids) {
        lab.crash(host)?;
        wait_for_state(&lab, "h1", id, "gone")?;
    }
    let mut waits = lab.start_ctl("h1", "host forget h4", "forget-h4")?;
    waits.wait_for("waiting for h5 (gone)", AGREED)?;
    // A member that has not sealed it would let it in.
    eventually(AGREED, "all that are there to seal", || {
        let row = row_of(&lab, "h1", &ids[0])?;
        ensure!(row["waits_for"] == serde_json::json!(["h5"]), "{row}");
        Ok(())
    })?;
    ensure!(waits.printed()?.contains("overlayctl host forget h4 HOST"), "{}", waits.printed()?);
    let refused = lab.ctl("h1", "host forget h5")?;
    ensure!(refused.code == 1 && refused.stderr.contains("overlayctl host forget h4 h5"), "{refused:?}");

    // One of them comes back meanwhile: it was sealed, so it is as good as forgotten.
    lab.reboot("h4")?;
    lab.start("h4")?;
    let new = new_identity(&lab, "h4", &ids[0])?;
    wait_for_state(&lab, "h1", &ids[0], "gone")?;
    lab.ctl("h1", &format!("host forget {} h5", ids[0]))?.ok()?;
    ensure!(waits.wait(AGREED)? == 0, "the one that waited was not told: {}", waits.printed()?);
    for id in &ids {
        wait_for_state(&lab, "h2", id, "forgotten")?;
    }
    wait_for_state(&lab, "h1", &new, "alive")?;
    for (host, address) in [("h4", fifth.address()?), ("h3", fourth.address()?)] {
        oracle.also(&once_heard(&lab, host, &format!("again-{host}"), &format!("--ip {address}"))?)?;
    }
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_host_that_is_there_is_not_forgotten() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let here = lab.reachable("h3", "web", "here", "")?;
    let oracle = Oracle::watch(&[left, right, &here])?;
    let id = id_of(&lab, "h1", "h3")?;
    let refused = |host: &str, words: &[&str]| {
        let done = lab.ctl("h1", &format!("host forget {host}"))?;
        ensure!(done.code == 1, "{done:?}");
        complains(&done, words)
    };
    refused("h3", &["host `h3` is alive", "turn the machine off"])?;
    refused(&id, &["is alive"])?;
    refused("h1", &["is this one"])?;
    refused("h9", &["no host `h9`", "overlayctl host ls"])?;

    lab.stop("h3", Ending::Kill)?;
    wait_for_state(&lab, "h1", &id, "suspect")?;
    always(3 * SECOND, "a host whose agent is down is no dead host", || {
        let done = lab.ctl("h1", "host forget h3")?;
        ensure!(done.code == 1 && done.stderr.contains("silent, but may be there"), "{done:?}");
        left.ping(here.address()?, SECOND)
    })?;
    lab.start("h3")?;
    lab.wait_until_all_see_all()?;
    ensure!(id_of(&lab, "h1", "h3")? == id && row_of(&lab, "h1", &id)?["heir"] == "", "something of it was begun");
    oracle.also(&lab.connect("h3", "web", "more", "")?)?;
    oracle.stop().map(drop)
}

pub fn two_heirs_agree() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let lost = lab.reachable("h4", "web", "lost", "")?;
    let oracle = Oracle::watch(&[left, right, &lost])?;
    let old = id_of(&lab, "h1", "h4")?;
    lab.crash("h4")?;
    let heirs = ["h1", "h2", "h3"];
    for heir in heirs {
        wait_for_state(&lab, heir, &old, "gone")?;
    }
    let forgets = heirs.map(|heir| lab.start_ctl(heir, "host forget h4", "forget"));
    let forgets = forgets.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut done = 0;
    for mut forget in forgets {
        // Who gave way sees the other one end it; who came too late is told whose it is.
        match forget.wait(2 * AGREED)? {
            0 => done += 1,
            1 => ensure!(forget.printed()?.contains("is being forgotten by host"), "{}", forget.printed()?),
            code => bail!("ended with {code}: {}", forget.printed()?),
        }
    }
    ensure!(done > 0, "nobody saw it done");
    let mut seen = BTreeSet::new();
    for host in heirs {
        wait_for_state(&lab, host, &old, "forgotten")?;
        eventually(AGREED, "nobody to wait for anybody", || {
            let row = row_of(&lab, host, &old)?;
            ensure!(row["waits_for"] == serde_json::json!([]), "{host}: {row}");
            Ok(())
        })?;
        seen.insert(row_of(&lab, host, &old)?["heir"].as_str().context("no heir")?.to_owned());
    }
    ensure!(seen.len() == 1, "they see several heirs: {seen:?}");
    agree(&lab, "web")?;
    let again = once_heard(&lab, "h3", "again", &format!("--ip {}", lost.address()?))?;
    oracle.also(&again)?;
    eventually(AGREED, "it to be reached", || right.ping(again.address()?, SECOND))?;
    oracle.stop().map(drop)
}

pub fn a_rebooted_host_is_let_in_or_waits() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let first = lab.reachable("h3", "web", "app", "")?;
    let (address, id) = (first.address()?, id_of(&lab, "h1", "h3")?);
    let oracle = Oracle::watch(&[left, right, &first])?;
    let (flow, stream) = (Flow::start(left, right)?, Stream::start(right, left)?);
    let reboot = |lab: &mut Lab, what: &str, within: Duration| {
        lab.crash("h3")?;
        lab.reboot("h3")?;
        let start = Instant::now();
        lab.start("h3")?;
        let app = eventually(within, what, || anew(lab, "h3", "app"))?;
        took(what, start.elapsed());
        ensure!(start.elapsed() < within, "{what}: it took {:?}", start.elapsed());
        ensure!(app.address()? == address, "another address: {:?}", app.address());
        oracle.also(&app)
    };
    reboot(&mut lab, "first attach after a reboot", READY)?;
    // A member that is off keeps nobody out: it is known to be off after a moment in which it could have been heard.
    lab.crash("h4")?;
    wait_for_state(&lab, "h1", &id_of(&lab, "h1", "h4")?, "gone")?;
    reboot(&mut lab, "first attach after a reboot with a member off", WITH_ONE_OFF)?;

    // Whoever can be asked by nobody does not know whether it was forgotten, or whether its disk is an old one.
    isolated_reboot(&mut lab)?;
    let waits = eventually(AGREED, "the host to say what it waits for", || {
        let status = lab.json("h3", "status")?;
        ensure!(status["phase"] == "unchecked", "{status}");
        let names: BTreeSet<_> =
            status["waits_for"].as_array().into_iter().flatten().filter_map(|w| w["host"].as_str()).collect();
        ensure!(names == ["192.0.2.1:7946", "192.0.2.2:7946", "192.0.2.4:7946"].into(), "{status}");
        lab.ctl("h3", "status")?.ok()
    })?;
    let told = waits.lines().find(|line| line.starts_with("leases")).context(waits.clone())?;
    ensure!(told.contains("the machine has booted") && told.contains("trust-disk"), "{told}");
    always(3 * SECOND, "the host does not act unchecked", || {
        let refused = refusal(&lab, "h3", "web", "app", "")?;
        ensure!(refused.contains("the machine has booted") && refused.contains("overlayctl status"), "{refused}");
        Ok(())
    })?;
    lab.wire.heal()?;
    let (app, after) = eventually_in(2 * AGREED, "the host to be let in when it is heard", || anew(&lab, "h3", "app"))?;
    took("from the heal to the first attach", after);
    ensure!(app.address()? == address, "another address: {:?}", app.address());
    oracle.also(&app)?;

    // The operator knows the disk.
    isolated_reboot(&mut lab)?;
    eventually(AGREED, "the host to wait", || {
        let status = lab.json("h3", "status")?;
        ensure!(status["phase"] == "unchecked", "{status}");
        Ok(())
    })?;
    let trusted = lab.json("h3", "cluster trust-disk")?;
    ensure!(trusted["was_unchecked"] == true, "{trusted}");
    let app = lab.connect("h3", "web", "app", "")?;
    ensure!(app.address()? == address, "another address: {:?}", app.address());
    oracle.also(&app)?;
    ensure!(lab.json("h3", "cluster trust-disk")?["was_unchecked"] == false, "there is nothing to trust any more");
    lab.wire.heal()?;
    lab.wait_until_all_see_all()?;
    ensure!(id_of(&lab, "h1", "h3")? == id, "it has another identity");
    eventually(AGREED, "all to be whole again", || right.ping(address, SECOND))?;

    let (report, stream) = (flow.stop()?, stream.stop()?);
    ensure!(report.lost == 0 && !stream.broken, "others were hurt: {report:?} {stream:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

/// h3 crashes and boots again where nobody hears it.
fn isolated_reboot(lab: &mut Lab) -> anyhow::Result<()> {
    lab.crash("h3")?;
    lab.wire.cut(&["h3"], &["h1", "h2", "h4"])?;
    lab.reboot("h3")?;
    lab.start("h3")
}
