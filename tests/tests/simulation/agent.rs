//! The agent of a host when it looks: it takes in what it heard, tells its state, and makes its kernel follow, all by the program's own
//! view, feed and rounds. What is made up here is when it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::cluster::Derivation;
use overlay::cluster::bootstrap::{Founding, Situation, own_decision};
use overlay::datapath::attention::Look;
use overlay::datapath::observed::Observed;
use overlay::datapath::plan::Knowledge;
use overlay::datapath::report::Report;
use overlay::datapath::rounds::{AUDIT, Rounds};
use overlay::datapath::status::ReconcileStatus;
use overlay::ledger::{Input, Millis, REST};
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::Intents;
use overlay::model::member::Boot;
use overlay::model::record::{Incarnation, Record, Records};
use overlay::operations::detach::DetachLost;
use overlay::operations::feed::{Feed, Received, Told};

use crate::gossip::{Detector, INTERVAL, Letter, put};
use crate::host::{Host, peer};

/// How long an agent that has started waits to hear of the others.
const LISTENING: Millis = 5_000;

/// What an agent knows until it ends.
pub struct Agent {
    started: Millis,
    /// What the state was told of the others.
    feed: Feed,
    derivation: Derivation,
    /// What the cluster is made from.
    records: Records,
    /// Where the others were heard.
    addresses: BTreeMap<HostId, SocketAddr>,
    /// What is said under the host's own id by other lives of it or by a copy of its disk, by the boot of each.
    selves: BTreeMap<Boot, Arc<Record>>,
    /// Which hosts it can ask, and since when it is those.
    reachable: (BTreeSet<HostId>, Millis),
    /// How each looked when its records were taken.
    seen: Vec<Option<Sight>>,
    rounds: Rounds,
    /// How the last round ended, and what it knew of the others.
    status: ReconcileStatus,
    knowledge: Knowledge,
    /// When everything was last looked at.
    audited: Millis,
    /// The virtual time 0, for what goes by the clock of the process.
    epoch: Instant,
    /// How many endpoints it has released because their containers had ended.
    pub released: u64,
}

/// What decides how a host looks to another.
type Sight = ((u64, u64), Liveness);

impl Agent {
    /// It has heard nothing yet.
    pub fn started(now: Millis) -> Self {
        Self {
            started: now,
            feed: Feed::default(),
            derivation: Derivation::default(),
            records: Records::new(),
            addresses: BTreeMap::new(),
            selves: BTreeMap::new(),
            reachable: (BTreeSet::new(), now),
            seen: Vec::new(),
            rounds: Rounds::default(),
            status: ReconcileStatus::default(),
            knowledge: Knowledge::Partial,
            audited: now,
            epoch: Instant::now(),
            released: 0,
        }
    }

    /// Somebody says this under the host's own id.
    pub fn hear_of_itself(&mut self, record: Arc<Record>) {
        if let Some(boot) = record.host.as_ref().map(|host| host.stamp.boot) {
            self.selves.insert(boot, record);
        }
    }

    fn instant(&self, now: Millis) -> Instant {
        self.epoch + Duration::from_millis(now)
    }
}

impl Host {
    /// A letter arrives. What others still say of an earlier life of this host is nothing that it says now.
    pub fn receive(&mut self, letter: Letter) {
        for (_, news) in letter.news.iter().filter(|(slot, _)| *slot == self.slot) {
            if news.generation < self.own.generation {
                self.agent.hear_of_itself(Arc::clone(&news.record));
            }
        }
        self.heard.take(letter);
    }

    /// What there is to see, told to the ledger and done to the kernel. `answers` says which machines answer a call.
    pub fn look(&mut self, now: Millis, detector: Detector, answers: impl Fn(HostId) -> bool) {
        self.say();
        let changed = self.notice(now, detector, answers);
        if changed {
            let founder = self.founder();
            self.cluster = Arc::clone(self.agent.derivation.derive(&self.agent.records, founder));
        }
        let is_alive = self.listen(now).is_some();
        if is_alive && (changed || self.unsaid || self.is_round_due(now)) {
            // An agent that is killed at it does nothing more.
            let _ = self.reconcile(now);
        }
    }

    /// Takes the records of those that look other than before; false if none does.
    fn notice(&mut self, now: Millis, detector: Detector, answers: impl Fn(HostId) -> bool) -> bool {
        let Self { heard, own, slot: own_slot, agent, .. } = self;
        let others = heard.iter().map(|(slot, news, beat)| {
            let liveness = detector.judge((beat, agent.started), now, || answers(news.id));
            (slot, news, news.generation, liveness)
        });
        let Agent { feed, records, addresses, seen, .. } = agent;
        let mut changed = false;
        for (slot, news, generation, liveness) in others.chain([(*own_slot, &*own, u64::MAX, Liveness::Live)]) {
            let sight = Some((news.age(), liveness));
            if seen.get(slot) != Some(&sight) {
                put(seen, slot, sight);
                let lives = records.entry(news.id).or_default();
                lives.clear();
                lives.push(Incarnation { generation, complete: true, liveness, record: Arc::clone(&news.record) });
                if news.id != own.id {
                    addresses.extend(news.record.host.as_ref().map(|host| (news.id, host.peer)));
                    feed.note([news.id]);
                }
                changed = true;
            }
        }
        changed
    }

    /// What is new, told to the state. `None` if the agent is killed at it.
    fn listen(&mut self, now: Millis) -> Option<()> {
        let Agent { feed, records, addresses, selves, .. } = &mut self.agent;
        let selves: Vec<Arc<Record>> = selves.values().cloned().collect();
        let received = Received { cluster: &self.cluster, records, addresses, selves: &selves };
        let Some(batch) = feed.next(&self.state, received) else { return Some(()) };
        for request in batch.requests() {
            let Ok(()) = self.tell(&request, now)?;
        }
        self.agent.feed.told(batch, Told::all_but([]));
        Some(())
    }

    /// Has it heard of all members since it started, or listened for long enough?
    pub fn is_synced(&self, now: Millis) -> bool {
        let is_clear = |id: HostId| self.cluster.hosts.get(&id).is_some_and(|host| host.liveness != Liveness::Suspect);
        now - self.agent.started >= LISTENING || self.ledger().membership().others().all(is_clear)
    }

    fn knowledge(&self, now: Millis) -> Knowledge {
        if self.is_synced(now) { Knowledge::Whole } else { Knowledge::Partial }
    }

    /// Is there reason for a round other than what the hosts say and were asked for?
    fn is_round_due(&self, now: Millis) -> bool {
        let Agent { rounds, status, knowledge, .. } = &self.agent;
        let is_news = rounds.has_news(self.kernel.news()) || *knowledge != self.knowledge(now);
        is_news || !status.failures.is_empty() || self.is_audit_due(now)
    }

    fn is_audit_due(&self, now: Millis) -> bool {
        Duration::from_millis(now - self.agent.audited) >= AUDIT
    }

    /// A round. `None` if the agent is killed at it.
    fn reconcile(&mut self, now: Millis) -> Option<()> {
        let (place, knowledge, intents) = (self.place(), self.knowledge(now), Arc::clone(&self.state.intents));
        let (is_audit_due, began) = (self.is_audit_due(now), self.agent.instant(now));
        let Agent { rounds, status, audited, .. } = &mut self.agent;
        if is_audit_due {
            rounds.audit();
        }
        let due = rounds.next((&self.cluster, &intents), &place, knowledge, self.kernel.news().clone());
        if due.look == Look::Everything {
            *audited = now;
        }
        let outcome = futures::executor::block_on(rounds.carry_out(&mut self.kernel, &due, began));
        *status = ReconcileStatus::after(status, &due, began, &outcome);
        self.agent.knowledge = knowledge;
        let (observed, report) = outcome.expect("the fake kernel can be looked at");
        self.release_the_lost(now, (&observed, &report), &intents)
    }

    /// Releases the endpoints whose containers have ended. Nothing else is a reason for a step to fail.
    fn release_the_lost(
        &mut self,
        now: Millis,
        (observed, report): (&Observed, &Report),
        intents: &Intents,
    ) -> Option<()> {
        let is_lost = |network, id, netns| observed.is_lost(network, id, self.kernel.at_path(netns));
        let gone = report.without_namespace().filter(|(network, id, netns)| is_lost(*network, *id, netns));
        let lost: Vec<EndpointId> = gone.map(|(_, id, _)| id).collect();
        assert_eq!(lost.len(), report.failed.len(), "h{}: {:?}", self.index, report.failed);
        if lost.is_empty() {
            return Some(());
        }
        let Ok(released) = self.tell(&DetachLost::of(lost, intents), now)?;
        self.agent.released += u64::try_from(released.len()).expect("a few");
        Some(())
    }

    /// What it tells its ledger by itself.
    pub fn own_decision(&mut self, now: Millis, strict: bool) -> Option<Input> {
        let reachable = self.reachable();
        if reachable != self.agent.reachable.0 {
            self.agent.reachable = (reachable, now);
        }
        let join = (self.join != self.index).then(|| peer(self.join));
        let interval = Duration::from_millis(INTERVAL);
        let founding = Founding { join: join.as_slice(), bootstrap: false, known: &self.known, interval };
        let since = |then| Duration::from_millis(now - then);
        let times = (since(self.agent.started), since(self.agent.reachable.1));
        let may_found = founding.is_due(self.id, times, &self.cluster);
        own_decision(self.ledger(), &self.cluster, Situation { synced: self.is_synced(now), strict, may_found })
    }

    /// The networks of which nothing is left in the kernel that was let go of long enough ago.
    pub fn clear(&self, now: Millis) -> BTreeSet<NetworkId> {
        let now = self.agent.instant(now);
        let is_clear = |id: &NetworkId| self.agent.status.is_clear(*id, Duration::from_millis(REST), now);
        self.ledger().accounts().keys().copied().filter(is_clear).collect()
    }
}
