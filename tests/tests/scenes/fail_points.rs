//! An agent that is killed at every durable write, one after the other: whoever asked asks again, under the same id, and
//! it is as if nothing had happened.

use std::path::Path;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Ending, Lab};
use serde_json::Value;

use super::support::SECOND;
use super::support::complaint::complains;
use super::support::fail_points::at_every;
use super::support::leases::{AGREED, agree};

pub fn an_agent_killed_before_any_commit_has_done_nothing() -> anyhow::Result<()> {
    killed_at_every("before-commit")
}

pub fn an_agent_killed_after_any_commit_has_done_all_of_it() -> anyhow::Result<()> {
    killed_at_every("after-commit")
}

pub fn an_agent_killed_before_any_answer_gives_it_when_asked_again() -> anyhow::Result<()> {
    killed_at_every("before-answer")
}

fn killed_at_every(point: &str) -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(2)?;
    let writes = at_every(point, |nth| {
        lab.stop("h1", Ending::Term)?;
        let mut round = Round::new(&mut lab, nth);
        let fell = round.play(point)?;
        round.check().context("afterwards")?;
        Ok(fell)
    })?;
    println!("killed {point} of each of {writes} durable writes");
    ensure!(writes > 4, "was overlayd built with --features overlay-agent/fail-points?");
    Ok(())
}

/// A network on `h1` that only this round uses, and what was answered in it.
struct Round<'a> {
    lab: &'a mut Lab,
    network: String,
    number: u32,
    fell: bool,
    /// Which request was answered how.
    answered: Vec<(String, Value)>,
}

impl<'a> Round<'a> {
    fn new(lab: &'a mut Lab, number: u32) -> Self {
        Self { lab, network: format!("net{number}"), number, fell: false, answered: Vec::new() }
    }

    /// Starts the agent, makes a network, attaches two endpoints and lets one of them go. Was the agent killed meanwhile?
    fn play(&mut self, point: &str) -> anyhow::Result<bool> {
        if !self.lab.start_to_fail("h1", point, self.number)? {
            self.start_again()?;
        }
        self.joined()?;
        let (network, fixed) = (self.network.clone(), self.address(6));
        self.until_done(&format!("network create {network} --subnet {}/29", self.address(0)))?;
        let any = self.connect("any", "")?;
        self.until_done(&any)?;
        let fixed = self.connect("fixed", &format!("--ip {fixed}"))?;
        self.until_done(&fixed)?;
        self.answered.retain(|(line, _)| *line != any);
        let name = format!("any{}", self.number);
        self.until_done(&format!("network disconnect {network} {name} --endpoint-id {}", self.id("any")))?;
        // What comes after this is not to be killed any more.
        if !self.fell && !self.lab.is_killed("h1")? {
            self.lab.stop("h1", Ending::Kill)?;
            self.lab.start("h1")?;
        } else if !self.fell {
            self.start_again()?;
        }
        Ok(self.fell)
    }

    /// Before it has heard the others a host makes no network.
    fn joined(&mut self) -> anyhow::Result<()> {
        eventually(2 * AGREED, "h1 to hear the others", || {
            if !self.fell && self.lab.is_killed("h1")? {
                self.start_again()?;
            }
            let status = self.lab.json("h1", "status")?;
            ensure!(status["synced"] == true, "{status}");
            Ok(())
        })
    }

    fn address(&self, last: u8) -> String {
        format!("10.20.{}.{last}", self.number)
    }

    /// One for each endpoint, which differ from the first digit on.
    fn id(&self, kind: &str) -> String {
        format!("{:04x}{:04x}", self.number, kind.len()).repeat(4)
    }

    fn connect(&self, kind: &str, more: &str) -> anyhow::Result<String> {
        let name = format!("{kind}{}", self.number);
        let container = self.lab.container("h1", &name)?;
        let (network, netns, id) = (&self.network, container.netns().display(), self.id(kind));
        Ok(format!("network connect {network} --netns {netns} --name {name} --endpoint-id {id} {more}"))
    }

    /// Asks until it is done. If that takes another life of the agent, then what it has answered in the one before holds.
    fn until_done(&mut self, line: &str) -> anyhow::Result<()> {
        let mut done = self.lab.ctl("h1", &format!("-o json {line}"))?;
        if done.code != 0 && !self.fell {
            eventually(AGREED, "the agent to be killed", || {
                ensure!(self.lab.is_killed("h1")?, "it lives: {done:?}");
                Ok(())
            })?;
            self.start_again()?;
            self.same_again()?;
            done = eventually(AGREED, line, || {
                let done = self.lab.ctl("h1", &format!("-o json {line}"))?;
                ensure!(done.code == 0 || self.is_made(line)?, "{done:?}");
                Ok(done)
            })?;
        }
        let value = if self.is_made(line)? { Value::Null } else { done.json()? };
        self.answered.push((line.to_owned(), value));
        Ok(())
    }

    /// A network that is there was made: nobody else makes one of that name.
    fn is_made(&self, line: &str) -> anyhow::Result<bool> {
        Ok(line.starts_with("network create")
            && self.lab.ctl("h1", &format!("network inspect {}", self.network))?.code == 0)
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.fell = true;
        self.lab.start("h1")
    }

    fn same_again(&self) -> anyhow::Result<()> {
        // What was answered is there before anybody asks again: an endpoint that was lost and is made anew looks the same.
        let made = self.answered.iter().any(|(line, _)| line.starts_with("network create"));
        let rows = if made { self.lab.rows("h1", &format!("endpoint ls {}", self.network))? } else { Vec::new() };
        for (line, before) in self.answered.iter().filter(|(line, _)| line.starts_with("network connect")) {
            let kept = rows.iter().any(|row| row["id"] == before["id"] && row["addresses"] == before["addresses"]);
            ensure!(kept, "`{line}` was answered with {before}, and there are {rows:?}");
            let after = eventually(AGREED, line, || self.lab.json("h1", line))?;
            ensure!(after == *before, "`{line}` was answered with {before}, and then with {after}");
        }
        Ok(())
    }

    /// There is one endpoint, everywhere and in the kernel, and every other address can be had.
    fn check(&self) -> anyhow::Result<()> {
        let (lab, network) = (&*self.lab, &self.network);
        self.same_again()?;
        lab.wait_until_all_see_all()?;
        let fixed = format!("fixed{}", self.number);
        for host in ["h1", "h2"] {
            eventually(AGREED, &format!("{host} to see the one endpoint"), || {
                let rows = lab.rows(host, &format!("endpoint ls {network}"))?;
                let (name, address) = (fixed.as_str(), format!("{}/29", self.address(6)));
                ensure!(rows.len() == 1 && rows[0]["name"] == name && rows[0]["addresses"][0] == *address, "{rows:?}");
                Ok(())
            })?;
        }
        eventually(AGREED, "no port to be left behind", || {
            let ports = self.ports()?;
            ensure!(ports == 1, "{ports} ports");
            Ok(())
        })?;
        let witness = lab.connect("h2", network, &format!("witness{}", self.number), "")?;
        eventually(AGREED, "the endpoint to be reached", || witness.ping(self.address(6), SECOND))?;
        let mut ports = 1;
        for last in
            (2..6).map(|last| self.address(last)).filter(|a| witness.address().is_ok_and(|w| w.to_string() != *a))
        {
            let name = format!("at-{}", last.replace('.', "-"));
            let more = lab.connect("h1", network, &name, &format!("--ip {last}")).context("an address is lost")?;
            lab.wait_until_reachable(network, &more)?;
            ports += 1;
        }
        ensure!(ports == 4 && self.ports()? == ports, "{ports} endpoints, and {} ports", self.ports()?);
        agree(lab, network)
    }

    fn ports(&self) -> anyhow::Result<usize> {
        let links = self.lab.in_segment("h1", &self.network, "ip -br link")?;
        Ok(links.lines().filter(|line| line.starts_with("ovp")).count())
    }
}

/// What a client is told that does not repeat itself.
pub fn an_endpoint_id_means_one_endpoint() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/26")?;
    let id = "00112233445566778899aabbccddeeff";
    let flag = format!("--endpoint-id {id}");
    let container = lab.connect("h1", "web", "app", &flag)?;
    let line = |netns: &Path, more: &str| format!("network connect web --netns {} {more}", netns.display());
    let same = line(container.netns(), &format!("--name app {flag}"));
    let first = lab.rows("h1", "endpoint ls web")?;
    ensure!(first.len() == 1 && first[0]["id"] == id, "{first:?}");
    // While it is attached: the interface is there, the name is in use, and none of that is in the way.
    let again = lab.json("h1", &same)?;
    ensure!(again["addresses"] == first[0]["addresses"] && again["id"] == id, "{again} and {first:?}");
    ensure!(lab.rows("h1", "endpoint ls web")? == first, "it is another one now");

    eventually(AGREED, "h2 to know it", || {
        ensure!(lab.rows("h2", "endpoint ls web")?.len() == 1, "it does not");
        Ok(())
    })?;
    let there = lab.container("h2", "there")?;
    for (host, line, words) in [
        ("h1", line(container.netns(), &format!("--name other {flag}")), ["`app`", "another name"]),
        ("h1", format!("{same} --ip 10.20.0.60"), ["`app`", "another address"]),
        ("h2", line(there.netns(), &format!("--name there {flag}")), ["host `h1`", "another host"]),
        ("h2", format!("network disconnect web app {flag}"), ["host `h1`", "another host"]),
        ("h1", format!("network disconnect web other {flag}"), ["`app`", "another name"]),
        ("h1", line(container.netns(), "--name app --endpoint-id 0X"), ["`0X`", "32 lower-case"]),
    ] {
        let done = lab.ctl(host, &line)?;
        ensure!(done.code == 1, "{done:?}");
        complains(&done, &words)?;
    }
    for _ in 0..2 {
        let gone = lab.json("h1", &format!("network disconnect web app {flag}"))?;
        ensure!(gone["id"] == id && gone["name"] == "app", "{gone}");
    }
    ensure!(lab.rows("h1", "endpoint ls web")?.is_empty(), "it is still there");
    // Gone for the one who knows its id; a slip for the one who does not.
    ensure!(lab.ctl("h1", "network disconnect web app")?.code == 1, "there is none of that name");
    // The name may mean another one by then, which is not touched.
    let _new = lab.connect("h1", "web", "new", "")?;
    lab.ctl("h1", &format!("network disconnect web new {flag}"))?.ok()?;
    ensure!(lab.rows("h1", "endpoint ls web")?.len() == 1, "another endpoint went");
    Ok(())
}
