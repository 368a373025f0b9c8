//! An address that one host lent another, and a crash of either: it stays with who has it, and nothing else is touched.

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Flow, Lab, Oracle, Stream};

use super::support::SECOND;
use super::support::leases::{AGREED, agree, anew, free_of, refusal};
use super::support::members::{id_of, wait_for_state};

const LENDER: &str = "h3";
const BORROWER: &str = "h2";

/// Four hosts, and what stands by: `left` on h1 and `right` on h4, that talk to each other.
struct Scene {
    lab: Lab,
    ends: [Container; 2],
    lent: Container,
    oracle: Oracle,
    flow: Flow,
    stream: Stream,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let lab = Lab::with_agents(4)?;
        lab.network("web", "10.20.0.0/26")?;
        let ends = [lab.reachable("h1", "web", "left", "")?, lab.reachable("h4", "web", "right", "")?];
        // So that all of them hold something.
        let others = [BORROWER, LENDER].map(|host| lab.reachable(host, "web", &format!("on-{host}"), ""));
        let [borrower, lender] = others;
        let held = eventually(AGREED, "the lender to hold a block", || free_of(&lab, BORROWER, "web", LENDER))?;
        let lent = lab.reachable(BORROWER, "web", "lent", &format!("--ip {held}"))?;
        let oracle = Oracle::watch(&[&ends[0], &ends[1], &lent, &borrower?, &lender?])?;
        let (flow, stream) = (Flow::start(&ends[0], &ends[1])?, Stream::start(&ends[1], &ends[0])?);
        let scene = Self { lab, ends, lent, oracle, flow, stream };
        scene.one_holder(&[BORROWER, LENDER])?;
        Ok(scene)
    }

    /// The borrower has the lease in the eyes of all that know of it, and these do.
    fn one_holder(&self, know: &[&str]) -> anyhow::Result<()> {
        let address = self.lent.address()?.to_string();
        eventually(AGREED, &format!("{BORROWER} to have the lease of {address}"), || {
            for host in self.lab.names().iter().filter(|host| self.lab.agent(host).is_ok()) {
                let rows = self.lab.rows(host, "lease ls web")?;
                let rows: Vec<_> =
                    rows.iter().filter(|row| row["kind"] == "address" && row["first"] == address.as_str()).collect();
                ensure!(rows.iter().all(|row| row["holder"] == BORROWER), "{host} sees {rows:?}");
                ensure!(!rows.is_empty() || !know.contains(&host.as_str()), "{host} knows nothing of the lease");
            }
            Ok(())
        })
    }

    /// Nobody but the borrower gets the address, and all are told `why`.
    fn is_locked(&self, hosts: &[&str], why: &str) -> anyhow::Result<()> {
        let line = format!("--ip {}", self.lent.address()?);
        for host in hosts {
            let refused = refusal(&self.lab, host, "web", "early", &line)?;
            ensure!(refused.contains(why), "{host} says {refused}");
        }
        Ok(())
    }

    /// All that is not the crashed host's goes on: dynamic addresses, and one that `from` lends.
    fn others_go_on(&self, when: &str, hosts: &[&str], from: &str) -> anyhow::Result<()> {
        for host in hosts {
            let more = self.lab.connect(host, "web", &format!("{when}-{host}"), "")?;
            self.oracle.also(&more)?;
            ensure!(more.address()? != self.lent.address()?, "{host} gave the lent address away");
            eventually(AGREED, "the new one to be reached", || more.ping(self.ends[0].address()?, SECOND))?;
        }
        let held = free_of(&self.lab, "h1", "web", from)?;
        let other = self.lab.connect("h1", "web", &format!("{when}-lent"), &format!("--ip {held}"))?;
        self.oracle.also(&other)
    }

    fn crash(&mut self, host: &str) -> anyhow::Result<()> {
        let id = id_of(&self.lab, "h1", host)?;
        self.lab.crash(host)?;
        for other in self.lab.names().iter().filter(|other| self.lab.agent(other).is_ok()) {
            wait_for_state(&self.lab, other, &id, "gone")?;
        }
        Ok(())
    }

    /// Boots a host again, and its own container with it.
    fn back(&mut self, host: &str) -> anyhow::Result<()> {
        self.lab.reboot(host)?;
        self.lab.start(host)?;
        let own = eventually(AGREED, "the host to act again", || anew(&self.lab, host, &format!("on-{host}")))?;
        self.oracle.also(&own)?;
        self.lab.wait_until_all_see_all()
    }

    /// Whoever has the lent address is reached, the others were not hurt, and all agree.
    fn end(self) -> anyhow::Result<()> {
        self.one_holder(&[BORROWER, LENDER])?;
        let address: Ipv4Addr = self.lent.address()?;
        for end in &self.ends {
            eventually(AGREED, "the lent address to be reached", || end.ping(address, SECOND))?;
            ensure!(end.dig("lent")?.addresses() == [address], "its name is not known");
        }
        let (report, stream) = (self.flow.stop()?, self.stream.stop()?);
        ensure!(report.lost == 0, "others were hurt: {report:?}");
        // The machine plays another scene as well.
        ensure!(!stream.broken && stream.longest_stall_ms < 3000, "others were hurt: {stream:?}");
        println!("{} packets between the others, {} lost; {stream:?}", report.sent, report.lost);
        agree(&self.lab, "web")?;
        self.oracle.stop().map(drop)
    }
}

pub fn a_lent_address_stays_where_it_is_when_its_lender_dies() -> anyhow::Result<()> {
    let mut scene = Scene::new()?;
    let address = scene.lent.address()?;
    let talk = Stream::start(&scene.ends[0], &scene.lent)?;
    scene.crash(LENDER)?;
    scene.one_holder(&[BORROWER])?;
    scene.is_locked(&["h1", "h4"], &format!("by endpoint `lent` on host `{BORROWER}`"))?;
    scene.others_go_on("during", &["h1", BORROWER, "h4"], "h4")?;

    scene.back(LENDER)?;
    scene.is_locked(&["h1", "h4", LENDER], &format!("by endpoint `lent` on host `{BORROWER}`"))?;
    let talk = talk.stop()?;
    ensure!(!talk.broken && talk.longest_stall_ms < 3000, "who has the address felt it: {talk:?}");

    // Let go while its lender is off, it is still lent: only the borrower can use it.
    scene.crash(LENDER)?;
    scene.lab.ctl(BORROWER, "network disconnect web lent")?.ok()?;
    eventually(AGREED, "the release to be known", || {
        for host in ["h1", "h4"] {
            let rows = scene.lab.rows(host, "endpoint ls web")?;
            ensure!(rows.iter().all(|row| row["name"] != "lent"), "{host} lists it");
        }
        Ok(())
    })?;
    scene.is_locked(&["h1", "h4"], &format!("is in a block held by host `{LENDER}`, which does not answer"))?;
    scene.back(LENDER)?;
    scene.one_holder(&[BORROWER, LENDER])?;
    scene.is_locked(&["h1", "h4", LENDER], &format!("is delegated to host `{BORROWER}`"))?;
    // The same once more with its lender off: it needs nobody's leave.
    scene.crash(LENDER)?;
    scene.lent = anew(&scene.lab, BORROWER, "lent")?;
    scene.oracle.also(&scene.lent)?;
    ensure!(scene.lent.address()? == address, "it had {address} and got {:?}", scene.lent.address());
    scene.back(LENDER)?;
    scene.is_locked(&["h1", "h4", LENDER], &format!("by endpoint `lent` on host `{BORROWER}`"))?;
    scene.end()
}

pub fn a_lent_address_waits_for_its_borrower() -> anyhow::Result<()> {
    let mut scene = Scene::new()?;
    let address = scene.lent.address()?;
    let gone = format!("by endpoint `lent` on host `{BORROWER}`, which is gone");
    scene.crash(BORROWER)?;
    scene.is_locked(&["h1", LENDER, "h4"], &gone)?;
    scene.others_go_on("during", &["h1", LENDER, "h4"], LENDER)?;
    scene.one_holder(&[LENDER])?;

    // A lender that has been off since as well knows what it lent.
    scene.crash(LENDER)?;
    scene.is_locked(&["h1", "h4"], &gone)?;
    scene.lab.reboot(LENDER)?;
    scene.lab.start(LENDER)?;
    let own = eventually(2 * AGREED, "the lender to act again", || anew(&scene.lab, LENDER, &format!("on-{LENDER}")))?;
    scene.oracle.also(&own)?;
    scene.one_holder(&[LENDER])?;
    scene.is_locked(&["h1", "h4", LENDER], &format!("host `{BORROWER}`"))?;

    scene.back(BORROWER)?;
    scene.is_locked(&["h1", LENDER, "h4"], &format!("host `{BORROWER}`"))?;
    scene.lent = anew(&scene.lab, BORROWER, "lent").context("the borrower's own container")?;
    scene.oracle.also(&scene.lent)?;
    ensure!(scene.lent.address()? == address, "it had {address} and got {:?}", scene.lent.address());
    scene.is_locked(&["h1", LENDER, "h4"], &format!("by endpoint `lent` on host `{BORROWER}`"))?;
    scene.end()
}
