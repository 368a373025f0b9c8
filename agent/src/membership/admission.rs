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
use overlay::cluster::bootstrap::{apart, asked, founds, reachable, seeks, witnesses};
use overlay::ledger::{Activation, Claim, Input, Ledger, SealRequest, Want};
use overlay::model::id::{HostId, NetworkId};
use overlay::model::member::Stamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::cluster::ClusterView;
use crate::peer::{CallError, Peers};
use crate::state;
use crate::state::store::StoreError;

/// Between two rounds if nothing happens and something is left to ask.
const PERIOD: Duration = Duration::from_millis(500);
/// For so long a host that starts may take hosts for alive that it knows by hearsay only, such as what it was itself before.
const HEARSAY: Duration = Duration::from_secs(5);
/// At most this many hosts are asked at the same time.
const AT_ONCE: usize = 16;
/// At most this many tell all that they know at the same time: that is long, and links may be slow.
const SEALS_AT_ONCE: usize = 8;

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

/// A host founds a cluster when for so many rounds of gossip nobody has come and nobody has gone: whom it hears has heard it by
/// then, also if a packet was lost.
const QUIET_ROUNDS: u32 = 3;

/// How long a host waits to hear those that were there before, until it founds a cluster without them.
const TIME_TO_HEAR: Duration = Duration::from_secs(30);

impl Policy {
    /// Is it for this host to found a cluster, which runs for so long, and hears these for so long?
    fn calls_for_founding(&self, me: HostId, (ran, quiet): (Duration, Duration), cluster: &Cluster) -> bool {
        let known = if ran < TIME_TO_HEAR { self.known.as_slice() } else { &[] };
        let awaited: Vec<SocketAddr> = self.join.iter().chain(known).copied().collect();
        let told = self.bootstrap && known.is_empty() && !seeks(me, cluster);
        told || quiet >= self.interval * QUIET_ROUNDS && founds(me, &awaited, cluster)
    }
}

/// Starts the task. It ends only with what it listens to.
pub fn spawn(local: state::Handle, seen: watch::Receiver<ClusterView>, peers: Peers, policy: Policy) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut admission = Admission {
            local,
            seen,
            peers,
            policy,
            start: Instant::now(),
            heard: (BTreeSet::new(), Instant::now()),
            introduced: BTreeSet::new(),
            others: BTreeMap::new(),
            sealing: BTreeMap::new(),
            lines: Arc::new(Semaphore::new(SEALS_AT_ONCE)),
        };
        while admission.round().await {}
    })
}

struct Admission {
    local: state::Handle,
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
    sealing: BTreeMap<HostId, JoinHandle<()>>,
    lines: Arc<Semaphore>,
}

/// What to ask of whom.
type Wants = BTreeMap<HostId, Vec<Want>>;

/// What goes with a question.
struct Sheet {
    me: HostId,
    stamp: Stamp,
    founder: Option<HostId>,
    claims: BTreeMap<NetworkId, Claim>,
    seal_requests: BTreeMap<HostId, SealRequest>,
}

impl Admission {
    /// Asks what there is to ask, and waits until that may have changed; false when it never will again.
    async fn round(&mut self) -> bool {
        let mut activation = self.local.activation.clone();
        let mut record = self.local.record.clone();
        activation.borrow_and_update();
        record.borrow_and_update();
        let cluster = Arc::clone(&self.seen.borrow_and_update().cluster);
        let (around, introduced, join) = (Arc::clone(&cluster), self.introduced.clone(), self.policy.join.clone());
        let (wants, sheet) = self
            .local
            .call(move |local| {
                let founder = local.ledger().membership().founder;
                look(local.ledger(), &asked(&around, &join, founder), &introduced)
            })
            .await;
        let expects = self.tell_of_others(&cluster, sheet.founder);
        let busy = expects || !wants.is_empty() || !matches!(*self.local.activation.borrow(), Activation::Established);
        self.decide().await;
        let sheet = Arc::new(sheet);
        let wants = self.seal_all(wants, &sheet, &cluster);
        self.ask_all(wants, sheet, &cluster).await;
        let changed = async {
            tokio::select! {
                changed = activation.changed() => changed.is_ok(),
                changed = record.changed() => changed.is_ok(),
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
    fn seal_all(&mut self, wants: Wants, sheet: &Arc<Sheet>, cluster: &Cluster) -> Wants {
        self.sealing.retain(|_, asking| !asking.is_finished());
        let there = reachable(cluster);
        let (mut others, mut seals) = (Wants::new(), BTreeMap::new());
        for (by, wants) in wants {
            let (sealed, rest): (Vec<Want>, Vec<Want>) =
                wants.into_iter().partition(|want| matches!(want, Want::Seal(_)));
            if !rest.is_empty() {
                others.insert(by, rest);
            }
            if !sealed.is_empty() && !self.sealing.contains_key(&by) {
                seals.insert((!there.contains(&by), by), sealed);
            }
        }
        for ((_, by), wants) in seals {
            let asking =
                seal(self.local.clone(), self.peers.clone(), (by, wants), Arc::clone(sheet), Arc::clone(&self.lines));
            self.sealing.insert(by, tokio::spawn(asking));
        }
        others
    }

    /// Those that are there first, and each answer counts at once: who does not answer holds nobody up.
    async fn ask_all(&mut self, wants: Wants, sheet: Arc<Sheet>, cluster: &Cluster) {
        let there = reachable(cluster);
        let (first, last): (Vec<_>, Vec<_>) = wants.into_iter().partition(|(host, _)| there.contains(host));
        let questions = first.into_iter().chain(last);
        let questions = questions.flat_map(|(host, wants)| wants.into_iter().map(move |want| (host, want)));
        let asked = questions.map(|(host, want)| {
            let (peers, sheet) = (self.peers.clone(), Arc::clone(&sheet));
            async move { (host, want.clone(), ask(&peers, host, want, &sheet).await) }
        });
        let mut answers = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((host, want, answer)) = answers.next().await {
            let Some(input) = answered(host, &want, answer) else { continue };
            if want == Want::Acknowledge && matches!(input, Input::Acknowledged { .. }) {
                self.introduced.insert(host);
            }
            self.tell(input).await;
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
        let activation = self.local.activation.borrow().clone();
        let (me, is_alone) =
            self.local.call(|local| (local.ledger().me(), local.ledger().membership().others().next().is_none())).await;
        match activation {
            Activation::Unchecked { .. } if synced || self.policy.strict || is_alone => {
                let reachable = (!self.policy.strict).then(|| witnesses(&cluster));
                self.tell(Input::Conclude { reachable }).await;
            }
            Activation::Joining { .. } => {
                let times = (self.start.elapsed(), self.heard.1.elapsed());
                if self.policy.calls_for_founding(me, times, &cluster) {
                    self.tell(Input::Found).await;
                }
            }
            Activation::Established if seeks(me, &cluster) => self.tell(Input::Seek).await,
            _ => {}
        }
    }

    async fn tell(&self, input: Input) {
        tell(&self.local, input).await;
    }
}

async fn tell(local: &state::Handle, input: Input) {
    let told: Result<_, StoreError> = local.call(move |local| local.step(&input)).await;
    if let Err(error) = told {
        tracing::error!(%error, "what a member answered could not be kept");
    }
}

/// What an answer is to the ledger; nothing if there was none.
fn answered(host: HostId, want: &Want, answer: Result<Input, CallError>) -> Option<Input> {
    match answer {
        Ok(input) => Some(input),
        Err(CallError::Denied(denial)) => {
            tracing::debug!(host = %host.short(), ?want, %denial, "refused");
            Some(Input::Refused { by: host, denial })
        }
        Err(error) => {
            tracing::debug!(host = %host.short(), ?want, %error, "not asked");
            None
        }
    }
}

/// Asks one host to seal others, one after the other. Each answer counts at once.
async fn seal(
    local: state::Handle,
    peers: Peers,
    (by, wants): (HostId, Vec<Want>),
    sheet: Arc<Sheet>,
    lines: Arc<Semaphore>,
) {
    let mut is_done = true;
    for want in wants {
        let line = lines.acquire().await.expect("it is never closed");
        let answer = ask(&peers, by, want.clone(), &sheet).await;
        drop(line);
        is_done &= answer.is_ok();
        let answer = answered(by, &want, answer);
        let Some(input) = answer else { break };
        tell(&local, input).await;
    }
    if !is_done {
        // Nobody else asks it before.
        tokio::time::sleep(PERIOD).await;
    }
}

fn look(ledger: &Ledger, heard: &BTreeSet<HostId>, introduced: &BTreeSet<HostId>) -> (Wants, Sheet) {
    let membership = ledger.membership();
    let mut wants = ledger.wants(heard);
    for host in ledger.introductions(heard, introduced) {
        wants.entry(host).or_default().push(Want::Acknowledge);
    }
    let seal_requests =
        membership.forgets.keys().filter_map(|host| Some((*host, ledger.seal_request(*host)?))).collect();
    let sheet = Sheet {
        me: ledger.me(),
        stamp: ledger.stamp(),
        founder: membership.founder,
        claims: ledger.claims(),
        seal_requests,
    };
    (wants, sheet)
}

async fn ask(peers: &Peers, by: HostId, want: Want, sheet: &Sheet) -> Result<Input, CallError> {
    debug_assert_ne!(by, sheet.me, "nobody asks himself");
    Ok(match want {
        Want::Acknowledge => {
            Input::Acknowledged { by, member_list: peers.acknowledge(by, sheet.stamp, sheet.founder).await? }
        }
        Want::Admit => {
            Input::Admitted { by, member_list: peers.admit(by, (sheet.stamp, sheet.founder), &sheet.claims).await? }
        }
        Want::Seal(host) => {
            let seal_request = sheet.seal_requests.get(&host).ok_or(CallError::Unknown(host))?;
            Input::Sealed { by, host, ledger_snapshot: peers.seal(by, host, seal_request).await? }
        }
    })
}

#[cfg(test)]
mod tests;
