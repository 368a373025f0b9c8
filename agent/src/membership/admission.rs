//! Admission: what this host asks of others by itself, so that it may act: to be acknowledged when it joins, to be let in
//! when its machine has booted, and to seal what it was told to forget. The ledger says what to ask and what the answers
//! mean; this only asks, again and again, until nothing is left to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use overlay::cluster::Cluster;
use overlay::cluster::bootstrap::{Founding, Situation, apart, asked, own_decision, reachable};
use overlay::ledger::{Activation, Answer, Input, Question};
use overlay::model::id::HostId;
use overlay::model::member::Stamp;
use overlay::operations::hear::Inputs;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::cluster::ClusterView;
use crate::peer::{CallError, Peers};
use crate::state;

/// Between two rounds if nothing happens and something is left to ask.
const PERIOD: Duration = Duration::from_millis(500);
/// For so long a host that starts may take hosts for alive that it knows by hearsay only, such as what it was itself before.
const HEARSAY: Duration = Duration::from_secs(5);
/// At most this many hosts are asked at the same time.
const AT_ONCE: usize = 16;
/// At most this many tell all that they know at the same time: that is long, and links may be slow.
const SEALS_AT_ONCE: usize = 8;

mod sealing;

use sealing::Sealing;

/// How a host becomes one that may act.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Where the hosts are that it was told to join, itself left out.
    pub join: Vec<SocketAddr>,
    /// Does it found a cluster whatever it hears?
    pub bootstrap: bool,
    /// Where others were heard before this host was started, by it or by an identity that it gave up, if it belongs to no
    /// cluster. It founds none before it has had some time to hear them.
    pub known: Vec<SocketAddr>,
    /// After a boot, does it take all members to let it in, or those that can be reached?
    pub strict: bool,
    /// Between two rounds of gossip.
    pub interval: Duration,
}

impl Policy {
    /// What decides whether this host founds a cluster.
    fn founding(&self) -> Founding<'_> {
        Founding { join: &self.join, bootstrap: self.bootstrap, known: &self.known, interval: self.interval }
    }
}

/// Starts the task. It ends only with what it listens to.
pub fn spawn(state: state::Handle, seen: watch::Receiver<ClusterView>, peers: Peers, policy: Policy) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut admission = Admission {
            state,
            seen,
            peers,
            policy,
            start: Instant::now(),
            heard: (BTreeSet::new(), Instant::now()),
            introduced: BTreeSet::new(),
            others: BTreeMap::new(),
            sealing: Sealing::default(),
            lines: Arc::new(Semaphore::new(SEALS_AT_ONCE)),
        };
        while admission.round().await {}
    })
}

struct Admission {
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
    peers: Peers,
    policy: Policy,
    start: Instant,
    /// Who is heard, and since when it is those.
    heard: (BTreeSet<HostId>, Instant),
    /// The members that this life of the agent has asked to remember this host.
    introduced: BTreeSet<HostId>,
    /// The founders of other clusters of which somebody is heard, and since when; `None` once the log has told of them.
    others: BTreeMap<HostId, Option<Instant>>,
    /// Who is being asked to seal hosts: none is asked twice at the same time.
    sealing: Sealing,
    lines: Arc<Semaphore>,
}

/// What to ask of which host.
type Questions = BTreeMap<HostId, Vec<Question>>;

impl Admission {
    /// Asks what there is to ask, and waits until that may have changed; false when it never will again.
    async fn round(&mut self) -> bool {
        let mut membership = self.state.membership.clone();
        membership.borrow_and_update();
        let cluster = Arc::clone(&self.seen.borrow_and_update().cluster);
        let ledger = self.state.state().ledger;
        let founder = ledger.membership().founder;
        let questions = ledger.questions(&asked(&cluster, &self.policy.join, founder), &self.introduced);
        let expects = self.tell_of_others(&cluster, founder);
        let busy =
            expects || !questions.is_empty() || !matches!(*self.state.activation.borrow(), Activation::Established);
        self.decide().await;
        let others = self.seal_all(questions, ledger.stamp(), &cluster);
        self.ask_all(others, ledger.stamp(), &cluster).await;
        let changed = async {
            tokio::select! {
                changed = membership.changed() => changed.is_ok(),
                changed = self.seen.changed() => changed.is_ok(),
            }
        };
        let period = PERIOD.min(self.policy.interval);
        if busy { tokio::time::timeout(period, changed).await.unwrap_or(true) } else { changed.await }
    }

    /// Once of each: nothing comes of it by itself. True if there is one that may have to be told of soon.
    fn tell_of_others(&mut self, cluster: &Cluster, founder: Option<HostId>) -> bool {
        let there = apart(cluster, founder);
        self.others.retain(|founder, since| since.is_none() || there.contains_key(founder));
        for (founder, hosts) in there {
            let since = self.others.entry(founder).or_insert_with(|| Some(Instant::now()));
            if since.is_some_and(|since| since.elapsed() >= HEARSAY) {
                *since = None;
                let names: BTreeSet<&str> = hosts.iter().map(|id| cluster.hosts[id].info.name.as_str()).collect();
                let hosts = Vec::from_iter(names).join(", ");
                tracing::warn!(
                    %hosts,
                    "these hosts have the same cluster key, but belong to a cluster that was founded apart from this one: \
                     `overlayctl status` says how to make one of both"
                );
            }
        }
        self.others.values().any(Option::is_some)
    }

    /// Has the hosts asked to seal what this one is to forget, beside all else; what else there is to ask of them. Those that
    /// are there first.
    fn seal_all(&mut self, questions: Questions, stamp: Stamp, cluster: &Cluster) -> Questions {
        self.sealing.part_with_ended();
        let there = reachable(cluster);
        let (mut others, mut seals) = (Questions::new(), BTreeMap::new());
        for (by, questions) in questions {
            let (sealed, rest): (Vec<Question>, Vec<Question>) =
                questions.into_iter().partition(|question| matches!(question, Question::Seal { .. }));
            if !rest.is_empty() {
                others.insert(by, rest);
            }
            if !sealed.is_empty() && !self.sealing.is_asking(by) {
                seals.insert((!there.contains(&by), by), sealed);
            }
        }
        for ((_, by), questions) in seals {
            let asking = seal(self.state.clone(), self.peers.clone(), (by, questions), stamp, Arc::clone(&self.lines));
            self.sealing.start(by, asking);
        }
        others
    }

    /// Those that are there first, and each answer counts at once: a host that does not answer holds no other up.
    async fn ask_all(&mut self, questions: Questions, stamp: Stamp, cluster: &Cluster) {
        let there = reachable(cluster);
        let (first, last): (Vec<_>, Vec<_>) = questions.into_iter().partition(|(host, _)| there.contains(host));
        let all = first.into_iter().chain(last);
        let all = all.flat_map(|(host, questions)| questions.into_iter().map(move |question| (host, question)));
        let asked = all.map(|(host, question)| {
            let peers = self.peers.clone();
            async move { (host, ask(&peers, host, &question, stamp).await, question) }
        });
        let mut answers = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((host, answer, question)) = answers.next().await {
            let Some(answer) = answered(host, &question, answer) else { continue };
            if matches!(answer, Answer::MemberList(_)) && matches!(question, Question::Acknowledge { .. }) {
                self.introduced.insert(host);
            }
            tell(&self.state, question.answered((host, stamp), answer)).await;
            self.decide().await;
        }
    }

    /// Is what was answered enough, or is there nobody to ask?
    async fn decide(&mut self) {
        let ClusterView { cluster, synced, .. } = self.seen.borrow().clone();
        let heard = reachable(&cluster);
        if heard != self.heard.0 {
            self.heard = (heard, Instant::now());
        }
        let ledger = self.state.state().ledger;
        let times = (self.start.elapsed(), self.heard.1.elapsed());
        let may_found = self.policy.founding().is_due(ledger.me(), times, &cluster);
        let situation = Situation { synced, strict: self.policy.strict, may_found };
        if let Some(input) = own_decision(&ledger, &cluster, situation) {
            tell(&self.state, vec![input]).await;
        }
    }
}

async fn tell(state: &state::Handle, inputs: Vec<Input>) {
    if let Err(error) = state.tell(Inputs(inputs)).await {
        tracing::error!(%error, "what a member answered could not be kept");
    }
}

/// The answer of a host; nothing if there was none.
fn answered(host: HostId, question: &Question, answer: Result<Answer, CallError>) -> Option<Answer> {
    match answer {
        Ok(answer) => Some(answer),
        Err(CallError::Denied(denial)) => {
            tracing::debug!(host = %host.short(), ?question, %denial, "refused");
            Some(Answer::Denied(denial))
        }
        Err(error) => {
            tracing::debug!(host = %host.short(), ?question, %error, "not asked");
            None
        }
    }
}

/// Asks one host to seal others, one after the other. Each answer counts at once.
async fn seal(
    state: state::Handle,
    peers: Peers,
    (by, questions): (HostId, Vec<Question>),
    stamp: Stamp,
    lines: Arc<Semaphore>,
) {
    let mut is_done = true;
    for question in questions {
        let line = lines.acquire().await.expect("it is never closed");
        let answer = ask(&peers, by, &question, stamp).await;
        drop(line);
        is_done &= answer.is_ok();
        let Some(answer) = answered(by, &question, answer) else { break };
        tell(&state, question.answered((by, stamp), answer)).await;
    }
    if !is_done {
        // It is not asked again before.
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ask(peers: &Peers, by: HostId, question: &Question, stamp: Stamp) -> Result<Answer, CallError> {
    match question {
        Question::Acknowledge { founder } => peers.acknowledge(by, stamp, *founder).await.map(Answer::MemberList),
        Question::Admit { founder, claims } => peers.admit(by, (stamp, *founder), claims).await.map(Answer::MemberList),
        Question::Seal { host, request } => peers.seal(by, *host, request).await.map(Answer::Sealed),
        Question::Space { .. } | Question::Address { .. } | Question::Deliver { .. } => {
            unreachable!("no membership comes of {question:?}")
        }
    }
}

#[cfg(test)]
mod tests;
