//! Agents that are killed at every durable write while a host is forgotten and others come back: its heir, who seals it, who
//! lets in, who is let in, who is fenced and who joins anew. Whatever they were at, it comes to its end, and what was held
//! is held by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Lab, Oracle, Proc};
use serde_json::{Value, json};

use super::support::SECOND;
use super::support::fail_points::at_every;
use super::support::leases::{AGREED, agree, free_of, refusal};
use super::support::members::{id_of, row_of};

/// How long a part of a round may take, with all that it takes to start agents again.
const TIMEOUT: Duration = Duration::from_secs(20);

const HEIR: &str = "h1";
const SEALER: &str = "h2";
const FORGOTTEN: &str = "h3";
const BACK: &str = "h4";
const HOSTS: [&str; 4] = [HEIR, SEALER, FORGOTTEN, BACK];

/// What an agent was at when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It forgets the host.
    Heir,
    /// It seals the host for the heir.
    Sealer,
    /// It lets others in, who come back or are new.
    Witness,
    /// It asks to be let in, seals, and takes its part again.
    Back,
    /// It asks to be let in and is refused.
    Refused,
    /// It has given its identity up, and the kernel does not know yet: each time, so that the next life begins there.
    Fenced,
    /// It is a new host, which joins.
    Newcomer,
    /// It has joined, and is a member as others are.
    Joined,
}

type Kills = BTreeMap<Role, u32>;

/// The kills of each that there are at least, in all rounds together.
const LEAST: [(Role, u32); 7] = [
    (Role::Heir, 4),
    (Role::Sealer, 1),
    (Role::Witness, 4),
    (Role::Back, 4),
    (Role::Refused, 3),
    (Role::Fenced, 1),
    (Role::Newcomer, 5),
];

pub fn a_host_is_forgotten_by_agents_killed_before_any_commit() -> anyhow::Result<()> {
    all_killed_at_every("before-commit")
}

pub fn a_host_is_forgotten_by_agents_killed_after_any_commit() -> anyhow::Result<()> {
    all_killed_at_every("after-commit")
}

fn all_killed_at_every(point: &'static str) -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(4)?;
    let mut kills = Kills::new();
    let mut told_again = 0;
    let rounds = at_every(point, |nth| {
        let mut round = Round::new(&mut lab, point, nth)?;
        let played = round.play();
        let of_round = std::mem::take(&mut round.kills);
        played.with_context(|| format!("with these killed: {of_round:?}"))?;
        told_again += u32::from(round.told_again);
        of_round.iter().for_each(|(role, times)| *kills.entry(*role).or_default() += times);
        // What a newcomer writes late is the beginning of the life of any host.
        Ok(of_round.keys().any(|role| !matches!(role, Role::Fenced | Role::Newcomer | Role::Joined)))
    })?;
    println!(
        "{rounds} rounds until nobody but the newcomer was killed {point}; in {told_again} the heir had to be told again; killed: {kills:?}"
    );
    for (role, least) in LEAST {
        let times = kills.get(&role).copied().unwrap_or_default();
        ensure!(
            times >= least,
            "{role:?}: {times} kills; was overlayd built with --features overlay-agent/fail-points?"
        );
    }
    Ok(())
}

/// A network that only this round uses, and who is to be killed in it.
struct Round<'a> {
    lab: &'a mut Lab,
    network: String,
    point: &'static str,
    number: u32,
    /// Of the network: a number in its address.
    subnet: u8,
    /// Where the agents that are started from now on are to be killed, first to last. Then they live.
    fates: BTreeMap<&'static str, Vec<(&'static str, u32)>>,
    /// Those whose agent is to be killed, and where.
    doomed: BTreeMap<&'static str, &'static str>,
    kills: Kills,
    stage: Stage,
    /// The identity that is forgotten.
    old: String,
    /// How often the host that is to be forgotten had put the state of an identity aside.
    put_aside: usize,
    /// Has the heir heard of the one that came back that it had let the other one in, and had to be told again?
    told_again: bool,
}

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The operator says that the host is off.
    Forgets,
    /// Those that were off start.
    Return,
}

/// What there is before anybody is killed.
struct Before {
    /// The identity that is forgotten, and the one that stays.
    ids: [String; 2],
    /// On the heir, the sealer, the one that is forgotten and the one that comes back; and one on the sealer, with an
    /// address of the forgotten one.
    ends: [Container; 5],
}

impl<'a> Round<'a> {
    fn new(lab: &'a mut Lab, point: &'static str, number: u32) -> anyhow::Result<Self> {
        let (old, put_aside) = (id_of(lab, HEIR, FORGOTTEN)?, put_aside(lab)?);
        let (network, stage) = (format!("net{number}"), Stage::Forgets);
        let (fates, doomed, kills) = (BTreeMap::new(), BTreeMap::new(), Kills::new());
        let subnet = u8::try_from(number)?;
        Ok(Self { lab, network, point, number, subnet, fates, doomed, kills, stage, old, put_aside, told_again: false })
    }

    fn play(&mut self) -> anyhow::Result<()> {
        let before = self.prepare()?;
        let oracle = Oracle::watch(&before.ends.each_ref())?;
        for host in [FORGOTTEN, BACK] {
            self.lab.crash(host)?;
        }
        self.until("both to be gone", |lab| {
            for (host, id) in [HEIR, SEALER].into_iter().flat_map(|host| before.ids.iter().map(move |id| (host, id))) {
                let row = row_of(lab, host, id)?;
                ensure!(row["state"] == "gone", "{host}: {row}");
            }
            Ok(())
        })?;
        let mut said = self.forget(&before.ids[0])?;
        self.come_back()?;
        let new = self.settled(&before.ids, &mut said)?;
        self.live()?;
        self.lab.ctl(HEIR, &format!("host forget {}", before.ids[0]))?.ok().context("said again")?;
        ensure!(id_of(self.lab, HEIR, FORGOTTEN)? == new, "it has another identity again");
        self.check(&before, &oracle)?;
        oracle.stop()?;
        // So that all rounds are alike: what a new host hears of, it writes.
        self.lab.ctl(HEIR, &format!("network rm --force {}", self.network))?.ok().map(drop)
    }

    fn prepare(&mut self) -> anyhow::Result<Before> {
        let (lab, network) = (&*self.lab, &self.network);
        lab.network(network, &format!("10.20.{}.0/28", self.subnet))?;
        let name = |host: &str| format!("on-{host}-{}", self.number);
        // The one that is forgotten first: it is to hold something.
        let [lost, left, right, kept] =
            [FORGOTTEN, HEIR, SEALER, BACK].map(|host| lab.connect(host, network, &name(host), ""));
        let held = eventually(AGREED, "a block to be held", || free_of(lab, SEALER, network, FORGOTTEN))?;
        let lent = lab.connect(SEALER, network, &name("loan"), &format!("--ip {held}"))?;
        let ids = [id_of(lab, HEIR, FORGOTTEN)?, id_of(lab, HEIR, BACK)?];
        Ok(Before { ids, ends: [left?, right?, lost?, kept?, lent] })
    }

    /// Starts an agent, again and again if it is killed before it is ready.
    fn start(&mut self, host: &'static str) -> anyhow::Result<()> {
        while let Some((point, nth)) = self.fates.get_mut(host).filter(|fates| !fates.is_empty()).map(|f| f.remove(0)) {
            self.doomed.insert(host, point);
            if self.lab.start_to_fail(host, point, nth).with_context(|| format!("{host} with {point}:{nth}"))? {
                return Ok(());
            }
            self.count(host)?;
        }
        self.doomed.remove(host);
        self.lab.start(host).with_context(|| format!("{host} after it was killed"))
    }

    fn count(&mut self, host: &'static str) -> anyhow::Result<()> {
        let role = match (host, self.stage) {
            (FORGOTTEN, _) if self.doomed.get(host) == Some(&"fenced") => Role::Fenced,
            (FORGOTTEN, _) if put_aside(self.lab)? > self.put_aside && self.has_joined() => Role::Joined,
            (FORGOTTEN, _) if put_aside(self.lab)? > self.put_aside => Role::Newcomer,
            (FORGOTTEN, _) => Role::Refused,
            (BACK, _) => Role::Back,
            (HEIR, _) => Role::Heir,
            (_, Stage::Forgets) => Role::Sealer,
            (_, Stage::Return) => Role::Witness,
        };
        *self.kills.entry(role).or_default() += 1;
        Ok(())
    }

    /// Do the others know the new identity as that of a member?
    fn has_joined(&self) -> bool {
        let is_new =
            |row: &Value| row["name"] == FORGOTTEN && row["id"] != self.old.as_str() && row["state"] == "alive";
        // Of those that answer.
        let rows = [HEIR, SEALER].into_iter().filter_map(|host| self.lab.rows(host, "host ls").ok()).flatten();
        rows.into_iter().any(|row| is_new(&row) && row["phase"] == "established")
    }

    /// Waits, and starts whoever is killed meanwhile.
    fn until<T>(&mut self, what: &str, probe: impl Fn(&Lab) -> anyhow::Result<T>) -> anyhow::Result<T> {
        eventually(TIMEOUT, what, || {
            self.tend()?;
            probe(self.lab)
        })
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        let doomed: Vec<_> = self.doomed.keys().copied().collect();
        for host in doomed {
            if self.lab.is_killed(host)? {
                self.count(host)?;
                self.start(host)?;
            }
        }
        Ok(())
    }

    /// The agent of a host that runs is to be killed.
    fn doom(&mut self, host: &'static str) -> anyhow::Result<()> {
        self.doomed.insert(host, self.point);
        self.lab.doom(host, self.point, self.number)
    }

    /// Says that the host is to be forgotten, until that is durable; then it goes on by itself, as far as it can without the
    /// one that is off.
    fn forget(&mut self, id: &str) -> anyhow::Result<Proc> {
        self.doom(HEIR)?;
        self.doom(SEALER)?;
        let mut said = say(self.lab, id)?;
        eventually(TIMEOUT, "all that are there to seal", || {
            self.tend()?;
            let row = row_of(self.lab, HEIR, id)?;
            if row["heir"] == "" && said.ended()?.is_some() {
                ensure!(self.kills.contains_key(&Role::Heir), "it was not killed: {}", said.printed()?);
                said = say(self.lab, id)?;
            }
            ensure!(row["heir"] == HEIR && row["waits_for"] == json!([BACK]), "{row}; {}", said.printed()?);
            Ok(())
        })?;
        Ok(said)
    }

    /// The machines that were off boot.
    fn come_back(&mut self) -> anyhow::Result<()> {
        self.tend()?;
        self.stage = Stage::Return;
        let (point, nth) = (self.point, self.number);
        // One that is killed at its n-th write as the old host is killed there again, unless the first time has got it past
        // all that it does as that. The new one is to be killed at its own n-th write, so its life begins with a start.
        self.fates.insert(FORGOTTEN, vec![(point, nth), (point, nth), ("fenced", 1), (point, nth)]);
        self.fates.insert(BACK, vec![(point, nth)]);
        self.doom(HEIR)?;
        self.doom(SEALER)?;
        for host in [FORGOTTEN, BACK] {
            self.lab.reboot(host)?;
            self.start(host)?;
        }
        Ok(())
    }

    /// Waits until the one is forgotten and the others are members; the new identity of the machine that was forgotten.
    fn settled(&mut self, [old, kept]: &[String; 2], said: &mut Proc) -> anyhow::Result<String> {
        eventually(TIMEOUT, "all to come to its end", || {
            self.tend()?;
            let lab = &*self.lab;
            let row = row_of(lab, HEIR, old)?;
            if row["state"] != "forgotten" && row["waits_for"] == json!([]) && said.ended()?.is_some() {
                // Whoever came back at the same time had not sealed it yet, and let it in. The command says so.
                *said = say(lab, old)?;
                self.told_again = true;
            }
            ensure!(row["state"] == "forgotten", "{row}; {}", said.printed()?);
            let status = lab.json(BACK, "status")?;
            ensure!(status["host_id"] == kept.as_str() && status["phase"] == "established", "{status}");
            let status = lab.json(FORGOTTEN, "status")?;
            let new = status["host_id"].as_str().context("no id")?;
            ensure!(new != old && status["phase"] == "established", "{status}");
            for host in [HEIR, SEALER, BACK] {
                let row = row_of(lab, host, old)?;
                ensure!(row["state"] == "forgotten" && row["heir"] == HEIR, "{host}: {row}");
                let rows = lab.rows(host, "host ls")?;
                ensure!(rows.iter().all(|row| row["waits_for"] == json!([])), "{host} waits: {rows:?}");
            }
            Ok(new.to_owned())
        })
    }

    /// What comes after this is not to be killed any more.
    fn live(&mut self) -> anyhow::Result<()> {
        self.fates.clear();
        for host in HOSTS {
            self.lab.spare(host)?;
        }
        self.until("all to see all", |lab| all_see(lab, &HOSTS, 4))
    }

    /// Every address can be had, and once.
    fn check(&self, before: &Before, oracle: &Oracle) -> anyhow::Result<()> {
        let (lab, network) = (&*self.lab, &self.network);
        let [left, right, lost, kept, lent] = &before.ends;
        let name = format!("again-{}", self.number);
        let again = lab.connect(SEALER, network, &name, &format!("--ip {}", lost.address()?))?;
        oracle.also(&again)?;
        for host in [HEIR, FORGOTTEN, BACK] {
            let refused = refusal(lab, host, network, "twice", &format!("--ip {}", lost.address()?))?;
            ensure!(refused.contains(&format!("by endpoint `{name}` on host `{SEALER}`")), "{host} says {refused}");
        }
        let more = lab.connect(BACK, network, kept.name(), "").context("the container of the one that came back")?;
        ensure!(more.address()? == kept.address()?, "it has {:?}", more.address());
        oracle.also(&more)?;
        for there in [right, lent, &again, &more] {
            eventually(AGREED, "each endpoint to be reached", || left.ping(there.address()?, SECOND))?;
        }
        let used = before.ends.iter().map(Container::address).collect::<Result<BTreeSet<_>, _>>()?;
        for address in (2..15).map(|last| Ipv4Addr::new(10, 20, self.subnet, last)).filter(|a| !used.contains(a)) {
            let one = self.somewhere(address).with_context(|| format!("{address} is lost"))?;
            oracle.also(&one)?;
        }
        agree(lab, network)?;
        let rows = lab.rows(HEIR, &format!("endpoint ls {network}"))?;
        ensure!(rows.len() == 13, "{rows:?}");
        Ok(())
    }

    /// Attaches an endpoint with this address to one of the hosts, the one that holds it first: who has taken a share of the
    /// space keeps that, be it in use or not.
    fn somewhere(&self, address: Ipv4Addr) -> anyhow::Result<Container> {
        let rows = self.lab.rows(HEIR, &format!("lease ls {}", self.network))?;
        let end = |row: &Value, key: &str| row[key].as_str().and_then(|end| end.parse::<Ipv4Addr>().ok());
        let of = |row: &&Value| end(row, "first") <= Some(address) && Some(address) <= end(row, "last");
        // An address that is lent is in two rows, the block's and its own.
        let holders: Vec<_> = rows.iter().filter(of).map(|row| &row["holder"]).collect();
        let mut hosts = HOSTS;
        hosts.sort_by_key(|host| !holders.last().is_some_and(|holder| **holder == *host));
        let name = format!("at-{address}").replace('.', "-");
        let mut refused = anyhow::anyhow!("{holders:?} hold it");
        for host in hosts {
            match self.lab.connect(host, &self.network, &name, &format!("--ip {address}")) {
                Ok(container) => return Ok(container),
                Err(error) => refused = error.context(refused),
            }
        }
        Err(refused)
    }
}

fn say(lab: &Lab, id: &str) -> anyhow::Result<Proc> {
    lab.start_ctl(HEIR, &format!("host forget {id}"), "forget")
}

/// Do these hosts see so many, and have they caught up?
fn all_see(lab: &Lab, hosts: &[&str], count: usize) -> anyhow::Result<()> {
    for host in hosts {
        let rows = lab.rows(host, "host ls")?;
        let live = rows.iter().filter(|row| row["state"] == "alive").count();
        ensure!(live == count && lab.json(host, "status")?["synced"] == true, "{host} sees {rows:?}");
    }
    Ok(())
}

/// How often the machine that is to be forgotten has put the state of an identity aside.
fn put_aside(lab: &Lab) -> anyhow::Result<usize> {
    let files = fs::read_dir(lab.host(FORGOTTEN)?.state_dir())?;
    Ok(files.flatten().filter(|file| file.file_name().to_string_lossy().contains(".fenced-")).count())
}
