//! What belongs to this host: its ledger and its intents. One thread owns them and the file that they are kept in; all
//! others call in. Whatever it answers, announces or wants of the kernel is durable before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay::cluster::own_record;
use overlay::ledger::{Activation, Change, Input, Ledger, Millis, Outcome};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::{Attachment, Intents};
use overlay::model::network::{Name, Network};
use overlay::model::publish::Published;
use overlay::model::record::Record;
use tokio::sync::{mpsc, oneshot, watch};

use crate::operations::ports::PortError;
use crate::state::run_marker::Trace;
use crate::state::store::{Loaded, Store, StoreError, Write};
use fail_points::Point;

pub mod fail_points;
pub mod identity;
mod links;
pub mod run_marker;
pub mod store;

/// Milliseconds since boot, sleep included.
pub fn now() -> Millis {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let time = nix::time::clock_gettime(clock).expect("Linux has had this clock since 2.6.39");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}

/// Intents, and the commit that they are as of.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Number of the commit.
    pub page: u64,
    /// The intents.
    pub intents: Arc<Intents>,
}

/// Why an endpoint was not taken in after all: what was free when it was looked at may no longer be.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The network was deleted meanwhile, and its addresses with it.
    #[error("the network is gone")]
    NoNetwork,
    /// Another endpoint of this host in the network got the name first.
    #[error("the name is in use")]
    NameInUse,
    /// A port of this host leads elsewhere.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Another endpoint of this host in the network has the MAC.
    #[error("the MAC is in use by `{}`", .0)]
    MacInUse(Name),
    /// The id of another endpoint of this host begins the same, and interfaces are named after that.
    #[error("the id begins like that of `{}`", .0)]
    IdTooClose(Name),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Call = Box<dyn FnOnce(&mut Local) + Send>;

/// The way in.
#[derive(Debug, Clone)]
pub struct Handle {
    calls: mpsc::UnboundedSender<Call>,
    /// What this host was asked for.
    pub kept: watch::Receiver<Kept>,
    /// What this host says of itself.
    pub record: watch::Receiver<Arc<Record>>,
    /// May it act?
    pub activation: watch::Receiver<Activation>,
}

impl Handle {
    /// Runs `work` on the owner's thread and gives its result.
    pub async fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Local) -> T + Send + 'static) -> T {
        let (answer, result) = oneshot::channel();
        // An answer that nobody waits for any more is no error: what was done is done.
        let call: Call = Box::new(move |local| drop(answer.send(work(local))));
        self.calls.send(call).expect("the owner lives as long as a handle");
        result.await.expect("the owner answers every call")
    }

    /// The same for a thread that may wait.
    pub fn call_and_block<T: Send + 'static>(&self, work: impl FnOnce(&mut Local) -> T + Send + 'static) -> T {
        let (answer, result) = std::sync::mpsc::channel();
        let call: Call = Box::new(move |local| drop(answer.send(work(local))));
        self.calls.send(call).expect("the owner lives as long as a handle");
        result.recv().expect("the owner answers every call")
    }
}

/// The owner of ledger and intents.
#[derive(Debug)]
pub struct Local {
    store: Store,
    ledger: Ledger,
    intents: Arc<Intents>,
    info: HostInfo,
    kept: watch::Sender<Kept>,
    record: watch::Sender<Arc<Record>>,
    activation: watch::Sender<Activation>,
    trace: Trace,
    /// Where the others were heard last.
    peers: BTreeMap<HostId, SocketAddr>,
    /// That this host gives its identity up, as long as the disk does not take it.
    owed: Vec<Write>,
}

/// Starts the owner's thread. It ends with the last handle.
///
/// # Errors
/// When what is on disk can't be put in order.
pub fn spawn(store: Store, loaded: Loaded, info: HostInfo, trace: Trace) -> Result<Handle, StoreError> {
    let intents = Intents {
        networks: networks(&loaded.ledger),
        seats: loaded.seats,
        attachments: loaded.attachments,
        links: loaded.links,
        tombstones: loaded.ledger.tombstones().clone(),
    };
    let (kept_tx, kept) = watch::channel(Kept::default());
    let (record_tx, record) = watch::channel(Arc::default());
    let (standing_tx, activation) = watch::channel(loaded.ledger.membership().activation.clone());
    let mut local = Local {
        store,
        ledger: loaded.ledger,
        intents: Arc::new(intents),
        info,
        kept: kept_tx,
        record: record_tx,
        activation: standing_tx,
        trace,
        peers: loaded.peers,
        owed: Vec::new(),
    };
    local.release_orphans()?;
    local.publish(loaded.page);
    let (calls, mut inbox) = mpsc::unbounded_channel::<Call>();
    let run = move || {
        while let Some(call) = inbox.blocking_recv() {
            call(&mut local);
        }
    };
    let thread = std::thread::Builder::new().name("local".to_owned());
    thread.spawn(run).expect("a thread can be started when the daemon starts");
    Ok(Handle { calls, kept, record, activation })
}

fn phase(activation: &Activation) -> Phase {
    match activation {
        Activation::Joining { .. } => Phase::Joining,
        // The agent of a fenced host ends.
        Activation::Unchecked { .. } | Activation::Fenced(_) => Phase::Unchecked,
        Activation::Established => Phase::Established,
    }
}

fn networks(ledger: &Ledger) -> BTreeMap<NetworkId, Network> {
    ledger.accounts().iter().map(|(id, account)| (*id, account.network.clone())).collect()
}

impl Local {
    /// The ledger, to look at.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The intents, to look at.
    pub fn intents(&self) -> &Intents {
        &self.intents
    }

    /// Where the gossip of the others was heard last, also before the daemon started.
    pub fn peers(&self) -> &BTreeMap<HostId, SocketAddr> {
        &self.peers
    }

    /// Gives an input to the ledger. What it decides is durable when this returns.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub fn step(&mut self, input: &Input) -> Result<Outcome, StoreError> {
        let step = self.ledger.step(input, now());
        self.commit(&step.changes, Vec::new())?;
        Ok(step.outcome)
    }

    /// Gives many inputs to the ledger, of which nobody waits for the outcomes, in one commit.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub fn step_all(&mut self, inputs: &[Input]) -> Result<(), StoreError> {
        // Each input sees what those before it changed; the ledger itself changes only when all of it is on disk.
        let mut draft = self.ledger.clone();
        let mut changes = Vec::new();
        for input in inputs {
            let step = draft.step(input, now());
            draft.apply(&step.changes);
            changes.extend(step.changes);
        }
        self.commit(&changes, Vec::new()).map(drop)
    }

    /// Hears of networks of the cluster that `founder` founded: of none if this host belongs to another by now than when
    /// they were seen.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub fn learn(
        &mut self,
        networks: impl IntoIterator<Item = Network>,
        founder: Option<HostId>,
    ) -> Result<(), StoreError> {
        if self.ledger.membership().founder != founder {
            return Ok(());
        }
        self.step_all(&networks.into_iter().map(Input::Learn).collect::<Vec<_>>())
    }

    /// Takes an endpoint in, with its host's seat in the network. Here its name, its MAC and its addresses are looked at
    /// for the last time: of those who saw them free at the same moment, one gets in.
    ///
    /// # Errors
    /// When it can't be taken in, or not be made durable; then nothing has happened.
    pub fn attach(&mut self, attachment: Attachment) -> Result<u64, AdmitError> {
        self.admit(&attachment)?;
        let before = Arc::clone(&self.intents);
        let (id, network) = (attachment.endpoint.id, attachment.endpoint.network);
        let seat = self.intents.seat(network);
        let intents = Arc::make_mut(&mut self.intents);
        intents.attachments.insert(id, attachment.clone());
        intents.seats.insert(network, seat);
        let written = self.commit(&[], vec![Write::Attach(attachment), Write::Seat(network, Some(seat))]);
        if written.is_err() {
            self.intents = before;
        }
        Ok(written?)
    }

    /// Lets just these ports of this host lead to an endpoint; one that is gone has none.
    ///
    /// # Errors
    /// When it can't be made durable; then all is as it was.
    pub fn publish_ports(&mut self, endpoint: EndpointId, published: Published) -> Result<u64, StoreError> {
        let Some(before) = self.intents.attachments.get(&endpoint).cloned() else {
            return self.commit(&[], Vec::new());
        };
        let after = Attachment { published, ..before.clone() };
        Arc::make_mut(&mut self.intents).attachments.insert(endpoint, after.clone());
        let written = self.commit(&[], vec![Write::Attach(after)]);
        if written.is_err() {
            Arc::make_mut(&mut self.intents).attachments.insert(endpoint, before);
        }
        written
    }

    /// Lets endpoints go: their addresses rest, for them if they come back under their names.
    ///
    /// # Errors
    /// When it can't be made durable; then they are still there.
    pub fn detach(&mut self, endpoints: &[EndpointId]) -> Result<u64, StoreError> {
        let before = Arc::clone(&self.intents);
        let intents = Arc::make_mut(&mut self.intents);
        let (mut changes, mut writes, mut draft) = (Vec::new(), Vec::new(), self.ledger.clone());
        for id in endpoints {
            let Some(Attachment { endpoint, .. }) = intents.attachments.remove(id) else { continue };
            let release = Input::Release { network: endpoint.network, endpoint: *id, name: endpoint.name };
            let released = draft.step(&release, now()).changes;
            draft.apply(&released);
            changes.extend(released);
            writes.push(Write::Detach(*id));
            if intents.attached(endpoint.network).next().is_none() {
                intents.seats.remove(&endpoint.network);
                writes.push(Write::Seat(endpoint.network, None));
            }
        }
        let written = self.commit(&changes, writes);
        if written.is_err() {
            self.intents = before;
        }
        written
    }

    /// Lets go of whatever an endpoint has, be it attached or only given an address.
    ///
    /// # Errors
    /// When it can't be made durable; then it is still there, until the daemon starts again at the latest if it is only
    /// an address.
    pub fn abandon(&mut self, network: NetworkId, endpoint: EndpointId, name: Name) -> Result<u64, StoreError> {
        if self.intents.attachments.contains_key(&endpoint) {
            return self.detach(&[endpoint]);
        }
        self.step(&Input::Release { network, endpoint, name })?;
        Ok(self.kept.borrow().page)
    }

    /// Networks are deleted for good. Endpoints that are still in one here stay until they are let go.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub fn bury(&mut self, networks: &BTreeSet<NetworkId>) -> Result<(), StoreError> {
        let inputs: Vec<Input> = networks.difference(self.ledger.tombstones()).copied().map(Input::Close).collect();
        self.step_all(&inputs)
    }

    /// Remembers where the gossip of others was heard, to find them after a restart.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub fn remember_peers(&mut self, peers: &BTreeMap<HostId, SocketAddr>) -> Result<(), StoreError> {
        let membership = self.ledger.membership();
        let news = peers.iter().filter(|(id, at)| self.peers.get(id) != Some(at) && !membership.is_forgotten(**id));
        let writes: Vec<Write> = news.map(|(id, address)| Write::Peer(*id, Some(*address))).collect();
        self.commit(&[], writes).map(drop)
    }

    /// Is it on disk that this host gave its identity up?
    ///
    /// # Errors
    /// When it can't be made durable. Then the endpoints are cut off all the same.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        if !self.owed.is_empty() {
            self.store.commit(&self.owed)?;
            self.owed.clear();
        }
        Ok(())
    }

    /// A gossip generation that this host never had.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub fn next_generation(&mut self, now_ms: u64) -> Result<u64, StoreError> {
        self.store.next_generation(now_ms)
    }

    fn admit(&self, attachment: &Attachment) -> Result<(), AdmitError> {
        let endpoint = &attachment.endpoint;
        let account = self.ledger.accounts().get(&endpoint.network);
        let bound = |a: IpAddr| account.is_some_and(|account| account.bound.get(&a) == Some(&endpoint.id));
        let deleted = self.intents.tombstones.contains(&endpoint.network);
        if deleted || !endpoint.addresses.iter().all(|a| bound(a.address)) {
            return Err(AdmitError::NoNetwork);
        }
        let others = self.intents.attachments.values().map(|a| &a.endpoint).filter(|e| e.id != endpoint.id);
        if let Some(other) = others.into_iter().find(|e| e.id.tag() == endpoint.id.tag()) {
            return Err(AdmitError::IdTooClose(other.name.clone()));
        }
        for other in self.intents.attached(endpoint.network).map(|a| &a.endpoint).filter(|e| e.id != endpoint.id) {
            if other.name == endpoint.name {
                return Err(AdmitError::NameInUse);
            }
            if other.mac == endpoint.mac {
                return Err(AdmitError::MacInUse(other.name.clone()));
            }
        }
        Ok(())
    }

    /// A crash between granting an address and writing the endpoint leaves an address with nobody. If it was the last
    /// one in a deleted network, that goes with it.
    fn release_orphans(&mut self) -> Result<(), StoreError> {
        let orphans = self.ledger.release_unused(|id| self.intents.attachments.contains_key(&id), now());
        self.commit(&orphans, Vec::new())?;
        let deleted = self.ledger.tombstones().iter().filter(|id| self.ledger.accounts().contains_key(id));
        let drained: Vec<Input> = deleted.copied().map(Input::Close).collect();
        self.step_all(&drained)
    }

    /// Disk first, then memory, then the world. Only an identity is given up whatever the disk says: others use what it had.
    /// Killed before the disk takes it, the host finds a ledger that is behind what it ran on, and asks before it acts.
    fn commit(&mut self, changes: &[Change], mut writes: Vec<Write>) -> Result<u64, StoreError> {
        if changes.is_empty() && writes.is_empty() {
            return Ok(self.kept.borrow().page);
        }
        self.settle()?;
        writes.extend(changes.iter().filter_map(|change| match change {
            // Nobody asks it for anything any more. Its machine, if it comes back, is another host, and is heard as that.
            Change::Seal(host, seal) if seal.done && self.peers.contains_key(host) => Some(Write::Peer(*host, None)),
            _ => None,
        }));
        writes.extend(changes.iter().cloned().map(Write::Ledger));
        let fenced = changes.iter().any(|c| matches!(c, Change::Activation(Activation::Fenced(_))));
        let page = match self.store.commit(&writes) {
            Err(_) if fenced => {
                self.owed.clone_from(&writes);
                self.kept.borrow().page + 1
            }
            committed => committed?,
        };
        self.ledger.apply(changes);
        self.tell_of_withdrawn(changes);
        for write in writes {
            match write {
                Write::Peer(host, Some(address)) => drop(self.peers.insert(host, address)),
                Write::Peer(host, None) => drop(self.peers.remove(&host)),
                _ => {}
            }
        }
        if fenced {
            fail_points::reach(Point::Fenced);
            // Nothing of it is this host's any more, and the kernel is to know before the next life begins.
            self.intents = Arc::default();
        }
        let networks_changed =
            changes.iter().any(|c| matches!(c, Change::Open(_) | Change::Close(_) | Change::Tombstone(_)));
        if networks_changed {
            let intents = Arc::make_mut(&mut self.intents);
            intents.networks = networks(&self.ledger);
            intents.tombstones = self.ledger.tombstones().clone();
            intents.links.retain(|id, _| intents.networks.contains_key(id));
        }
        self.publish(page);
        fail_points::reach(Point::BeforeAnswer);
        Ok(page)
    }

    /// Whoever had said that these are off may wait for an answer no more.
    fn tell_of_withdrawn(&self, changes: &[Change]) {
        let (me, seals) = (self.ledger.me(), &self.ledger.membership().seals);
        let is_open = |host: &HostId| seals.get(host).is_some_and(|seal| seal.heir == me && !seal.done);
        for change in changes {
            if let Change::Withdraw(host) = change
                && is_open(host)
            {
                tracing::warn!(
                    host = %host.short(),
                    "not forgotten: a member has heard of it since it was said to be off; if it is off now, say `overlayctl \
                     host forget` again"
                );
            }
        }
    }

    /// The underlay carries this many bytes now: what this host says of itself follows.
    pub fn carries(&mut self, underlay_mtu: u32) {
        self.info.underlay_mtu = underlay_mtu;
        let page = self.kept.borrow().page;
        self.publish(page);
    }

    fn publish(&mut self, page: u64) {
        let activation = &self.ledger.membership().activation;
        self.info.stamp = self.ledger.stamp();
        self.info.phase = phase(activation);
        self.info.founder = self.ledger.membership().founder;
        self.trace.leave(self.ledger.me(), self.info.stamp);
        self.kept.send_replace(Kept { page, intents: Arc::clone(&self.intents) });
        self.record.send_replace(Arc::new(own_record::by(&self.ledger, &self.intents, &self.info)));
        // Last: who waits for it finds the rest as it is under that standing.
        self.activation.send_if_modified(|known| {
            known != activation && {
                *known = activation.clone();
                true
            }
        });
    }
}

#[cfg(test)]
mod tests;
