//! Disks: what is restored, cloned, lost, damaged or full. Whatever a host finds on its disk, it uses no address that it
//! does not hold.

use std::fs;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{always, eventually, pass};
use overlay_tests::lab::{Ending, Flow, Image, Lab, Oracle};

use super::support::SECOND;
use super::support::leases::{AGREED, agree, anew, ends, free_of, once_heard, refusal};
use super::support::members::{id_of, new_identity, row_of, wait_for_state};

/// What is on the disk of h3, which runs on.
fn image_of_h3(lab: &mut Lab) -> anyhow::Result<Image> {
    lab.stop("h3", Ending::Term)?;
    let image = lab.copy_disk("h3")?;
    lab.start("h3")?;
    lab.wait_until_all_see_all()?;
    Ok(image)
}

pub fn a_restored_disk_is_fenced() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let early = lab.reachable("h3", "web", "early", "")?;
    let oracle = Oracle::watch(&[left, right, &early])?;
    let old = id_of(&lab, "h1", "h3")?;
    let image = image_of_h3(&mut lab)?;
    ensure!(id_of(&lab, "h1", "h3")? == old, "a restart of the agent changed its identity");

    // What it has lent since, the old disk would use itself.
    let held = eventually(AGREED, "h1 to know what h3 holds", || free_of(&lab, "h1", "web", "h3"))?;
    let lent = lab.reachable("h1", "web", "lent", &format!("--ip {held}"))?;
    oracle.also(&lent)?;
    lab.crash("h3")?;
    lab.put_disk(&image, "h3")?;
    lab.reboot("h3")?;
    lab.start("h3")?;
    let new = new_identity(&lab, "h3", &old)?;
    let log = lab.agent("h3")?.log()?;
    ensure!(log.contains("host fenced") && log.contains("an old one"), "it does not say why: {log}");
    let back = eventually(AGREED, "the host to be a member again", || anew(&lab, "h3", "back"))?;
    oracle.also(&back)?;
    ensure!(row_of(&lab, "h1", &new)?["state"] == "alive", "h1 does not see it");
    right.ping(lent.address()?, SECOND)?;

    // What the old identity held is locked until it is forgotten, though its machine answers under the new one.
    wait_for_state(&lab, "h1", &old, "gone")?;
    // A member that let the restored disk in for a moment has heard of it since: then it is to be said again.
    eventually(2 * AGREED, "the old identity to be forgotten", || lab.ctl("h1", &format!("host forget {old}"))?.ok())?;
    let again = once_heard(&lab, "h2", "again", &format!("--ip {}", early.address()?))?;
    oracle.also(&again)?;
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_cloned_disk_is_refused_while_its_host_runs() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let mine = lab.reachable("h3", "web", "mine", "")?;
    let oracle = Oracle::watch(&[left, right, &mine])?;
    let (flow, id) = (Flow::start(left, &mine)?, id_of(&lab, "h1", "h3")?);
    let old = id_of(&lab, "h1", "h4")?;

    // The whole machine was cloned: its id as well. Nothing has changed on the disk since.
    let image = image_of_h3(&mut lab)?;
    // Of one that was heard only once nobody can tell yet which of two it is, and nothing shows when it was heard again.
    pass(2 * SECOND);
    lab.crash("h4")?;
    lab.put_disk(&image, "h4")?;
    lab.reboot("h4")?;
    lab.start("h4")?;
    let log = eventually(2 * AGREED, "the copy to give the identity up", || {
        let status = lab.json("h4", "status")?;
        ensure!(status["host_id"] != id.as_str() && status["phase"] == "established", "{status}");
        lab.agent("h4")?.log()
    })?;
    ensure!(log.contains("host fenced") && log.contains("is a copy"), "it does not say why: {log}");
    let copy = lab.json("h4", "status")?["host_id"].as_str().unwrap_or_default().to_owned();
    ensure!(copy != id && copy != old, "it has the identity of another");
    always(2 * SECOND, "the host itself goes on", || {
        let row = row_of(&lab, "h1", &id)?;
        ensure!(row["state"] == "alive" && row["name"] == "h3", "{row}");
        mine.ping(left.address()?, SECOND)
    })?;
    let back = eventually(AGREED, "the copy to be a member of its own", || anew(&lab, "h4", "back"))?;
    oracle.also(&back)?;
    oracle.also(&lab.connect("h3", "web", "more", "")?)?;
    let report = flow.stop()?;
    ensure!(report.lost == 0, "the host itself was hurt: {report:?}");
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_host_whose_copy_was_let_in_while_it_was_cut_off_gives_up() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let mine = lab.reachable("h3", "web", "mine", "")?;
    let oracle = Oracle::watch(&[left, right, &mine])?;
    let id = id_of(&lab, "h1", "h3")?;
    // With all that it is going to hear, or it is ahead of the image when it runs again.
    agree(&lab, "web")?;
    let image = image_of_h3(&mut lab)?;
    lab.wire.cut(&["h3"], &["h1", "h2", "h4"])?;
    // Whoever hears the host refuses its copy.
    for host in ["h1", "h2"] {
        wait_for_state(&lab, host, &id, "gone")?;
    }
    lab.crash("h4")?;
    lab.put_disk(&image, "h4")?;
    lab.reboot("h4")?;
    lab.start("h4")?;
    eventually(2 * AGREED, "the copy to be let in", || {
        let status = lab.json("h4", "status")?;
        ensure!(status["host_id"] == id.as_str() && status["phase"] == "established", "{status}");
        Ok(())
    })?;
    // Neither has anything to tell anybody; only gossip shows that there are two.
    lab.wire.heal()?;
    let log = eventually(2 * AGREED, "the host to give the identity up", || {
        let status = lab.json("h3", "status")?;
        ensure!(status["host_id"] != id.as_str() && status["phase"] == "established", "{status}");
        lab.agent("h3")?.log()
    })?;
    ensure!(log.contains("host fenced") && log.contains("has booted since"), "it does not say why: {log}");
    let link = mine.sh("ip -json address show dev eth0").unwrap_or_default();
    ensure!(!link.contains("LOWER_UP"), "what it had attached is cut off: {link}");
    eventually(AGREED, "the copy to be the host", || {
        let row = row_of(&lab, "h1", &id)?;
        ensure!(row["state"] == "alive" && row["name"] == "h4", "{row}");
        Ok(())
    })?;
    for host in ["h3", "h4"] {
        let back = eventually(AGREED, "both to be members", || anew(&lab, host, &format!("back-{host}")))?;
        oracle.also(&back)?;
    }
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn the_strict_check_asks_all() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents_told(4, "--boot-check strict")?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let app = lab.reachable("h3", "web", "app", "")?;
    let oracle = Oracle::watch(&[left, right, &app])?;
    let away = id_of(&lab, "h1", "h4")?;
    // Only h4 knows how far h3 has come since the copy was made.
    agree(&lab, "web")?;
    let image = image_of_h3(&mut lab)?;
    let old = id_of(&lab, "h1", "h3")?;
    lab.wire.cut(&["h3", "h4"], &["h1", "h2"])?;
    let held = eventually(AGREED, "h4 to know what h3 holds", || free_of(&lab, "h4", "web", "h3"))?;
    let lent = lab.connect("h4", "web", "lent", &format!("--ip {held}"))?;
    oracle.also(&lent)?;
    lab.crash("h3")?;
    lab.wire.link("h4", false)?;
    lab.wire.heal()?;
    wait_for_state(&lab, "h1", &away, "gone")?;
    lab.put_disk(&image, "h3")?;
    lab.reboot("h3")?;
    lab.start("h3")?;
    always(3 * SECOND, "it waits for the one that is away", || {
        let status = lab.json("h3", "status")?;
        ensure!(status["phase"] == "unchecked", "{status}");
        // Whichever: who has the one that was lent the others may have told it.
        let refused = refusal(&lab, "h3", "web", "early", "")?;
        ensure!(refused.contains("the machine has booted"), "{refused}");
        Ok(())
    })?;
    lab.wire.link("h4", true)?;
    new_identity(&lab, "h3", &old)?;
    let log = lab.agent("h3")?.log()?;
    ensure!(log.contains("host fenced") && log.contains("an old one"), "it does not say why: {log}");
    eventually(2 * AGREED, "the lent address to be reached", || right.ping(lent.address()?, SECOND))?;
    oracle.stop().map(drop)
}

pub fn a_lost_or_damaged_disk_owns_nothing() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let oracle = Oracle::watch(&[left, right])?;
    for (number, damage) in ["lost", "flipped", "cut off"].into_iter().enumerate() {
        let app = eventually(AGREED, "an endpoint", || anew(&lab, "h3", "app"))?;
        oracle.also(&app)?;
        let old = id_of(&lab, "h1", "h3")?;
        lab.stop("h3", Ending::Kill)?;
        damage_disk(&lab, "h3", damage)?;
        if damage != "lost" {
            let refused = lab.start("h3").err().context("it starts on a damaged disk")?;
            ensure!(format!("{refused:?}").contains("move it away and start again"), "{damage}: {refused:?}");
            fs::remove_file(lab.host("h3")?.state_dir().join("state.redb"))?;
        }
        lab.start("h3")?;
        let new = new_identity(&lab, "h3", &old)?;
        eventually(AGREED, "the endpoint of the old identity to be cut off", || {
            let ports = app.sh("ip -json address show dev eth0").unwrap_or_default();
            ensure!(!ports.contains("\"UP\"") || !ports.contains("LOWER_UP"), "{damage}: it is up: {ports}");
            Ok(())
        })?;
        // What it had is nobody's until it is forgotten.
        wait_for_state(&lab, "h1", &old, "gone")?;
        wait_for_state(&lab, "h2", &old, "gone")?;
        let refused = refusal(&lab, "h2", "web", "early", &format!("--ip {}", app.address()?))?;
        ensure!(refused.contains("overlayctl host forget"), "{damage}: {refused}");
        wait_for_state(&lab, "h1", &old, "gone")?;
        lab.ctl("h1", &format!("host forget {old}"))?.ok()?;
        let again = once_heard(&lab, "h2", &format!("again-{number}"), &format!("--ip {}", app.address()?))?;
        oracle.also(&again)?;
        wait_for_state(&lab, "h1", &new, "alive")?;
    }
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

fn damage_disk(lab: &Lab, host: &str, how: &str) -> anyhow::Result<()> {
    let file = lab.host(host)?.state_dir().join("state.redb");
    match how {
        "lost" => fs::remove_file(&file)?,
        "flipped" => {
            let mut bytes = fs::read(&file)?;
            // In every page but the header, whichever holds something.
            bytes.iter_mut().skip(4096).step_by(512).for_each(|byte| *byte ^= 0x10);
            fs::write(&file, bytes)?;
        }
        _ => {
            let length = fs::metadata(&file)?.len();
            fs::File::options().write(true).open(&file)?.set_len(length / 3)?;
        }
    }
    Ok(())
}

/// On a full disk the life that is to come does not come far: what it would cut off is cut off before.
pub fn a_fenced_host_without_room_for_a_new_identity_is_cut_off() -> anyhow::Result<()> {
    fenced_without_room(false)
}

pub fn a_fenced_host_that_is_killed_is_cut_off_before_it_needs_room() -> anyhow::Result<()> {
    fenced_without_room(true)
}

/// `killed` between giving the identity up and cutting its endpoints off?
fn fenced_without_room(killed: bool) -> anyhow::Result<()> {
    let mut lab = Lab::new(3)?;
    lab.shrink_disk("h3", 4 << 20)?;
    for host in ["h1", "h2"] {
        lab.start(host)?;
    }
    // Twice: it never comes there.
    lab.start_to_fail("h3", "fenced", if killed { 1 } else { 2 })?;
    lab.wait_until_all_see_all()?;
    lab.network("web", "10.20.0.0/26")?;
    let [left, right] = &ends(&lab)?;
    let app = lab.reachable("h3", "web", "app", "")?;
    let oracle = Oracle::watch(&[left, right, &app])?;
    let old = id_of(&lab, "h1", "h3")?;
    lab.wire.cut(&["h3"], &["h1", "h2"])?;
    wait_for_state(&lab, "h1", &old, "gone")?;
    lab.ctl("h1", "host forget h3")?.ok()?;
    let ballast = lab.host("h3")?.state_dir().join("ballast");
    let reserve = ballast.with_file_name("state.reserve");
    let fill = |lab: &Lab| {
        let line = format!("dd if=/dev/zero of={} bs=1k oflag=append conv=notrunc", ballast.display());
        lab.host("h3")?.place().try_sh(&line).map(drop)
    };
    if !killed {
        // Nor is there room for a new identity in what the old one kept for itself.
        lab.host("h3")?.place().sh(&format!("rm -f {}", reserve.display()))?;
    }
    fill(&lab)?;
    lab.wire.heal()?;

    let is_up =
        || Ok::<_, anyhow::Error>(app.sh("ip -json address show dev eth0").unwrap_or_default().contains("LOWER_UP"));
    if killed {
        eventually(2 * AGREED, "the agent to be killed", || {
            ensure!(lab.is_killed("h3")?, "it lives");
            Ok(())
        })?;
        ensure!(is_up()?, "nobody was there to cut it off");
        // It may have spent its reserve to give its identity up.
        fill(&lab)?;
        let refused = lab.start("h3").err().context("it starts without room")?;
        ensure!(format!("{refused:?}").contains("new identity"), "{refused:?}");
    } else {
        eventually(2 * AGREED, "the agent to say that it can't go on", || {
            let log = lab.agent("h3")?.log()?;
            // Some of the state's own pages may be free.
            let waits = log.contains("it waits until it can write that it gave its identity up");
            let refused = log.contains("state.redb of a new identity can't be made") && !lab.is_running("h3")?;
            ensure!(waits || refused, "{log}");
            Ok(())
        })?;
    }
    ensure!(!is_up()?, "an endpoint of the identity that was given up is up");
    let taken = once_heard(&lab, "h2", "taken", &format!("--ip {}", app.address()?))?;
    oracle.also(&taken)?;

    lab.host("h3")?.place().sh(&format!("rm {}", ballast.display()))?;
    if !lab.is_running("h3")? {
        lab.start("h3")?;
    }
    new_identity(&lab, "h3", &old)?;
    let back = eventually(AGREED, "the host to be a member again", || anew(&lab, "h3", "back"))?;
    oracle.also(&back)?;
    agree(&lab, "web")?;
    oracle.stop().map(drop)
}

pub fn a_full_disk_refuses_and_still_lets_go() -> anyhow::Result<()> {
    let mut lab = Lab::new(2)?;
    // Room for the state of an agent that starts, and not for much more.
    lab.shrink_disk("h2", 4 << 20)?;
    lab.start("h1")?;
    lab.start("h2")?;
    lab.wait_until_all_see_all()?;
    lab.network("web", "10.20.0.0/24")?;
    let app = lab.reachable("h2", "web", "app", "")?;
    let oracle = Oracle::watch(&[&app])?;
    let ballast = lab.host("h2")?.state_dir().join("ballast");
    lab.host("h2")?.place().try_sh(&format!("dd if=/dev/zero of={} bs=1k", ballast.display()))?;
    // The file of the state has room in it; what does not fit is refused as a whole.
    let full = (0..100).find_map(|number| {
        let done = lab.ctl("h2", &format!("network create n{number} --subnet 10.{}.0.0/16", 30 + number)).ok()?;
        (done.code != 0).then_some(done)
    });
    let full = full.context("the disk was never full")?;
    ensure!(full.stderr.contains("disk") && full.stderr.lines().count() == 1, "{full:?}");
    let mut containers = Vec::new();
    let refused = loop {
        let name = format!("more-{}", containers.len());
        lab.host("h2")?.place().sh(&format!("ip netns add {name}"))?;
        let done = lab.ctl("h2", &format!("network connect web --netns /run/netns/{name} --name {name}"))?;
        if done.code != 0 {
            break done;
        }
        containers.push(name);
        ensure!(containers.len() < 250, "the disk was never full");
    };
    ensure!(refused.stderr.contains("disk") && refused.stderr.lines().count() == 1, "{refused:?}");
    eventually(AGREED, "nothing of what was refused to be there", || {
        let there = lab.rows("h1", "endpoint ls web")?.len();
        ensure!(there == containers.len() + 1, "{there} endpoints: {refused:?}");
        Ok(())
    })?;
    lab.ctl("h2", "network disconnect web app")?.ok()?;
    lab.host("h2")?.place().try_sh(&format!("rm {}", ballast.display()))?;
    let next = eventually(AGREED, "an endpoint when there is room again", || anew(&lab, "h2", "next"))?;
    oracle.also(&next)?;
    oracle.stop().map(drop)
}
