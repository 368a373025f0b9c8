use overlay::ledger::{self, Share};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::intent::NetnsRef;
use overlay::model::member::Stamp;
use overlay::model::record::{Run, Statement};

use super::*;
use crate::state::store::tests::{Scratch, bring_disk_back, network, take_disk_away};
use overlay::ledger::{Input, Ledger, Outcome};
use overlay::model::host::Phase;
use overlay::model::id::{EndpointId, HostId};
use overlay::model::intent::Attachment;
use overlay::model::network::{Name, Network};
use overlay::operations::detach::Detach;
use overlay::operations::hear::{Bury, Inputs, RememberPeers};
use overlay::operations::{Change, Decision};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Changes that a test makes whatever the rules say.
pub(crate) struct Changes(pub Vec<Change>);

impl Request for Changes {
    type Answer = ();
    type Refusal = Infallible;

    fn decide(&self, _: &State, _: Millis) -> Result<Decision<()>, Infallible> {
        Ok(Decision { changes: self.0.clone(), answer: () })
    }
}

impl Handle {
    /// The ledger as it is on disk.
    pub(crate) fn ledger(&self) -> Ledger {
        self.state().ledger
    }

    /// Keeps the thread of the state busy until it is told to go on.
    pub(crate) async fn keep_busy(
        &self,
        until: std::sync::mpsc::Receiver<()>,
    ) -> Result<(), std::sync::mpsc::RecvError> {
        self.call(move |_| until.recv()).await
    }

    /// Takes an endpoint in that has its addresses already; the commit.
    pub(crate) async fn put(&self, attachment: &Attachment) -> Result<u64, StoreError> {
        let network = attachment.endpoint.network;
        let seat = self.state().intents.seat(network).expect("a few networks");
        let changes = vec![Change::Attach(Arc::new(attachment.clone())), Change::Seat(network, Some(seat))];
        Ok(self.tell(Changes(changes)).await?.commit)
    }
}

struct Host {
    scratch: Scratch,
    handle: Handle,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        drop(scratch.found().expect("a new state"));
        let handle = start(&scratch);
        Self { scratch, handle }
    }

    /// Another life of the agent on the same disk.
    fn restart(self) -> Self {
        let Self { scratch, handle } = self;
        // The file is closed when the owner's thread has ended, which the end of its channels shows.
        let mut committed = handle.committed.clone();
        drop(handle);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(async {
            let ended = async { while committed.changed().await.is_ok() {} };
            tokio::time::timeout(std::time::Duration::from_secs(10), ended).await
        });
        ended.expect("the owner ends with its last handle");
        let handle = start(&scratch);
        Self { scratch, handle }
    }

    fn tell<R>(&self, request: R) -> Result<Done<R::Answer>, StoreError>
    where
        R: Request<Refusal = Infallible> + Send + 'static,
        R::Answer: Send,
    {
        futures::executor::block_on(self.handle.tell(request))
    }

    fn step(&self, input: Input) -> Outcome {
        self.tell(input).expect("the disk takes it").answer
    }

    fn ledger(&self) -> Ledger {
        self.handle.ledger()
    }

    /// Works on the file itself, on the thread that owns it.
    fn on_store<T: Send + 'static>(&self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> T {
        futures::executor::block_on(self.handle.call(move |owner| work(owner.store())))
    }

    fn create(&self, number: u8) -> Network {
        let me = self.ledger().me();
        let network = network(number, me);
        assert_eq!(self.step(Input::Create(network.clone())), Outcome::Done);
        network
    }

    /// An address for an endpoint, and the endpoint with it, not yet attached.
    fn given(&self, network: &Network, number: u8, name: &str) -> Attachment {
        let (endpoint, name) = (EndpointId::from_bytes([number; 16]), label(name));
        let request = ledger::AddressRequest {
            network: network.id,
            endpoint,
            name: name.clone(),
            range: 0,
            address: None,
            reachable: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        let Outcome::Granted { address, lease } = self.step(Input::Allocate(request)) else {
            unreachable!("there is space")
        };
        let endpoint = Endpoint {
            id: endpoint,
            network: network.id,
            name,
            aliases: BTreeSet::new(),
            addresses: vec![Assigned { address, lease }],
            mac: Mac::of_address(address),
            created: 2,
        };
        let netns = NetnsRef { path: "/run/netns/c".into(), cookie: number.into() };
        Attachment { endpoint, netns, ifname: "eth0".parse().expect("a name"), metric: 0, published: BTreeMap::new() }
    }

    fn attach(&self, attachment: &Attachment) -> Result<u64, StoreError> {
        futures::executor::block_on(self.handle.put(attachment))
    }

    fn attached(&self, network: &Network, number: u8) -> Attachment {
        let attachment = self.given(network, number, &format!("web{number}"));
        self.attach(&attachment).expect("nothing speaks against it");
        attachment
    }

    fn commit(&self) -> u64 {
        self.handle.committed.borrow().commit
    }

    fn intents(&self) -> Arc<Intents> {
        self.handle.state().intents
    }

    fn record(&self) -> Arc<Record> {
        Arc::clone(&self.handle.record.borrow())
    }

    /// Everything that there is to see of it.
    fn all(&self) -> (Ledger, Arc<Intents>, u64, Arc<Record>) {
        (self.ledger(), self.intents(), self.commit(), self.record())
    }
}

fn start(scratch: &Scratch) -> Handle {
    let (store, loaded) = scratch.open().expect("the state opens");
    let info = HostInfo {
        name: label("alpha"),
        vtep: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        peer: ([192, 0, 2, 1], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: loaded.ledger.stamp(),
        phase: Phase::Joining,
        founder: None,
    };
    spawn(store, loaded, info, RunMarker::new(&scratch.0, "boot 1")).expect("what is on disk is in order")
}

fn label(text: &str) -> Name {
    text.parse().expect("a label")
}

fn resting(host: &Host, network: &Network) -> Vec<Option<Name>> {
    let id = network.id;
    let rests = host.ledger().accounts()[&id].resting.clone();
    rests.into_values().map(|rest| rest.name).collect()
}

#[test]
fn an_attached_endpoint_is_wanted_said_and_kept() {
    let host = Host::new();
    let network = host.create(1);
    let attachment = host.attached(&network, 1);
    let id = attachment.endpoint.id;
    let seen = |host: &Host| (host.intents(), host.record());
    let before = seen(&host);
    let stamp = host.ledger().stamp();
    for (intents, record) in [before, seen(&host.restart())] {
        assert_eq!(intents.attachments.get(&id).map(|there| &**there), Some(&attachment));
        let seat = intents.seats.get(&network.id).expect("it has a seat");
        assert_eq!(record.endpoints.get(&id).map(|endpoint| &**endpoint), Some(&attachment.endpoint));
        assert_eq!(record.networks.get(&network.id).and_then(|m| m.vni), Some(seat.vni));
        assert_eq!(record.host.as_ref().map(|h| h.stamp), Some(stamp));
    }
}

#[test]
fn nobody_gets_into_a_network_that_is_deleted_and_it_is_not_learnt_again() {
    let host = Host::new();
    let network = host.create(1);
    let late = host.given(&network, 1, "web");
    let id = network.id;
    host.tell(Bury([id].into())).expect("the disk takes it");
    // Who read the view a moment ago tells the ledger of it once more.
    let learn = Input::Learn(network.clone());
    host.step(learn.clone());
    host.tell(Inputs(vec![learn])).expect("the disk takes it");
    let (endpoint, name) = (late.endpoint.id, late.endpoint.name);
    host.tell(Input::Release { network: id, endpoint, name }).expect("the disk takes it");
    let (ledger, intents, _, record) = host.all();
    assert!(ledger.accounts().is_empty() && intents.networks.is_empty() && intents.attachments.is_empty());
    assert_eq!((record.tombstones.clone(), record.networks.len()), ([id].into(), 0));
    let host = host.restart();
    assert!(host.ledger().accounts().is_empty());
    assert_eq!(host.record().tombstones, [id].into());
}

#[test]
fn a_crash_on_the_way_into_a_deleted_network_leaves_nothing_of_it() {
    let host = Host::new();
    let network = host.create(1);
    host.given(&network, 1, "web");
    let id = network.id;
    host.tell(Bury([id].into())).expect("the disk takes it");
    assert!(host.intents().networks.contains_key(&id), "somebody has an address in it");
    let host = host.restart();
    let (ledger, intents, _, record) = host.all();
    assert!(ledger.accounts().is_empty() && intents.networks.is_empty());
    assert_eq!((record.tombstones.clone(), record.networks.len()), ([id].into(), 0));
}

#[test]
fn a_deleted_network_stays_until_its_last_endpoint_is_let_go() {
    let host = Host::new();
    let network = host.create(1);
    let (one, two) = (host.attached(&network, 1).endpoint.id, host.attached(&network, 2).endpoint.id);
    let id = network.id;
    host.tell(Bury([id].into())).expect("the disk takes it");
    host.tell(Detach(vec![one])).expect("the disk takes it");
    let kept = host.intents();
    assert!(kept.networks.contains_key(&id) && kept.seats.contains_key(&id), "one is still in it");
    host.tell(Detach(vec![two])).expect("the disk takes it");
    let (ledger, intents, ..) = host.all();
    assert!(ledger.accounts().is_empty() && intents.networks.is_empty() && intents.seats.is_empty());
    let host = host.restart();
    assert!(host.ledger().accounts().is_empty(), "its rows are gone from the disk");
}

#[test]
fn a_commit_of_the_ledger_alone_is_a_later_one_of_the_same_intents() {
    let host = Host::new();
    let network = host.create(1);
    let attachment = host.given(&network, 1, "web");
    let (mut intents, mut record) = (host.handle.intents.clone(), host.handle.record.clone());
    intents.borrow_and_update();
    let commit = host.attach(&attachment).expect("nothing speaks against it");
    assert_eq!((intents.borrow_and_update().commit, record.has_changed().ok()), (commit, Some(true)));
    record.borrow_and_update();
    // An address that is given to an endpoint is in the ledger's books only: no task is woken.
    host.given(&network, 2, "next");
    assert_eq!((host.commit(), host.handle.intents.borrow().commit), (commit + 1, commit));
    assert_eq!((intents.has_changed().ok(), record.has_changed().ok()), (Some(false), Some(false)));
    assert_eq!(record.borrow().host.as_ref().map(|info| info.stamp), Some(host.ledger().stamp()), "but it is seen");
    let to = HostId::from_bytes([9; 16]);
    host.step(Input::GiveSpace { network: network.id, range: 0, to, share: Share::Quarter });
    assert_eq!((intents.has_changed().ok(), record.has_changed().ok()), (Some(false), Some(true)));
    // What changes nothing is no commit.
    let commit = host.commit();
    host.step(Input::Tick { clear: [network.id].into() });
    assert_eq!(host.commit(), commit);
}

#[test]
fn a_detached_endpoint_is_gone_and_its_address_rests_for_its_name() {
    let host = Host::new();
    let network = host.create(1);
    let (gone, stays) = (host.attached(&network, 1), host.attached(&network, 2));
    let ids = [gone.endpoint.id];
    let commit = host.tell(Detach(ids.to_vec())).expect("the disk takes it").commit;
    let intents = host.intents();
    assert_eq!((host.commit(), intents.attachments.keys().copied().collect()), (commit, vec![stays.endpoint.id]));
    assert!(intents.seats.contains_key(&network.id), "one is still in it");
    assert_eq!(resting(&host, &network), [Some(gone.endpoint.name.clone())]);
    // It comes back under its name, also after a restart.
    let host = host.restart();
    assert_eq!(host.given(&network, 3, "web1").endpoint.addresses, gone.endpoint.addresses);
    // Once more is no error, and no commit: who waits for the intents of the answer has them already, whatever the ledger has
    // written since.
    let (last, intents) = (host.commit(), host.handle.intents.borrow().commit);
    assert!(intents < last, "the address that was given is a commit of the ledger alone");
    assert_eq!(host.tell(Detach(ids.to_vec())).ok().map(|done| done.commit), Some(intents));
    assert_eq!(host.commit(), last);
}

#[test]
fn the_seat_goes_with_the_last_endpoint() {
    let host = Host::new();
    let network = host.create(1);
    let id = host.attached(&network, 1).endpoint.id;
    host.tell(Detach(vec![id])).expect("the disk takes it");
    assert!(host.intents().seats.is_empty());
    assert_eq!(host.record().networks.get(&network.id).map(|m| m.vni), Some(None), "known, but not received");
    assert!(host.restart().intents().seats.is_empty());
}

#[test]
fn a_disk_that_fails_leaves_all_as_it_was() {
    let host = Host::new();
    let (network, doomed) = (host.create(1), host.create(2));
    let (there, late) = (host.attached(&network, 1), host.given(&network, 2, "late"));
    let before = host.all();
    host.on_store(take_disk_away);

    host.attach(&late).expect_err("an attach");
    let id = there.endpoint.id;
    host.tell(Detach(vec![id])).expect_err("a detach");
    host.tell(Bury([doomed.id].into())).expect_err("a burial");
    let give = Input::GiveSpace { network: network.id, range: 0, to: HostId::from_bytes([9; 16]), share: Share::Half };
    let learn = Input::Learn(self::network(3, HostId::from_bytes([9; 16])));
    host.tell(give).expect_err("a step");
    host.tell(Inputs(vec![learn])).expect_err("many steps");
    assert_eq!(host.all(), before);

    let Host { scratch, handle } = host;
    let host = Host { scratch: Scratch::new(), handle };
    let scratch = host.on_store(move |store| {
        bring_disk_back(store, &scratch);
        scratch
    });
    let host = Host { scratch, ..host };
    assert_eq!(host.all(), before);
    host.attach(&late).expect("it goes on with the disk");
    let all = host.all();
    assert_eq!(host.restart().all(), all);
}

#[test]
fn each_of_many_steps_sees_those_before_it_and_all_are_one_commit() {
    let host = Host::new();
    let other = HostId::from_bytes([9; 16]);
    let theirs = network(7, other);
    let run = Run { start: theirs.blocks().next().expect("it has blocks"), len: 4, epoch: 1 };
    let holding = Input::Holding {
        network: theirs.id,
        from: other,
        stamp: Stamp::default(),
        runs: vec![run],
        borrowed: BTreeMap::new(),
    };
    let before = host.commit();
    let inputs = [Input::Learn(theirs.clone()), holding];
    host.tell(Inputs(inputs.to_vec())).expect("the disk takes it");
    let id = theirs.id;
    assert_eq!(host.ledger().accounts()[&id].held_by(other).count(), 4);
    assert_eq!(host.commit(), before + 1);
    assert_eq!(host.intents().networks, [(id, theirs)].into());
}

#[test]
fn an_address_that_was_given_to_nobody_is_free_after_a_restart() {
    let host = Host::new();
    let network = host.create(1);
    let (lost, kept) = (host.given(&network, 1, "lost"), host.attached(&network, 2));
    let id = network.id;
    let bound = |host: &Host| -> Vec<EndpointId> { host.ledger().accounts()[&id].bound.values().copied().collect() };
    assert_eq!(bound(&host).len(), 2);
    let host = host.restart();
    assert_eq!(bound(&host), [kept.endpoint.id]);
    assert_eq!(resting(&host, &network), [None], "for nobody's name");
    // It rests like any other that was let go: another gets the next one.
    assert_ne!(host.given(&network, 3, "other").endpoint.addresses, lost.endpoint.addresses);
}

#[test]
fn a_host_says_what_it_holds_and_owes_and_keeps_alive() {
    let host = Host::new();
    let other = HostId::from_bytes([9; 16]);
    let (own, theirs) = (host.create(1), network(2, other));
    host.step(Input::Learn(theirs.clone()));
    let record = host.record();
    assert_eq!(record.networks.keys().copied().collect::<Vec<_>>(), [own.id], "of the other it has nothing");
    let whole = &record.blocks[&own.id];
    assert_eq!(whole.iter().map(|run| run.len).sum::<u16>(), own.ranges[0].blocks());

    host.step(Input::GiveSpace { network: own.id, range: 0, to: other, share: Share::Half });
    let record = host.record();
    assert_eq!(record.blocks[&own.id].iter().map(|run| run.len).sum::<u16>(), own.ranges[0].blocks() / 2);
    let owed = &record.outbox[&own.id];
    assert_eq!(owed.len(), usize::from(own.ranges[0].blocks() / 2));
    assert!(owed.iter().all(|s| matches!(s, Statement::Transfer { to, .. } if *to == other)));

    // A block that comes here makes this host one of those who keep the network alive.
    let block = theirs.blocks().next().expect("it has blocks");
    let statement = Statement::Transfer { block, epoch: 2, to: host.ledger().me() };
    assert_eq!(
        host.step(Input::Stated { network: theirs.id, from: other, stamp: Stamp::default(), statement }),
        Outcome::Done
    );
    assert!(host.record().networks.contains_key(&theirs.id));
}

#[test]
fn the_owner_ends_with_its_last_handle() {
    // `restart` waits for just that, and the file could not be opened again before.
    let host = Host::new();
    let commit = host.commit();
    let host = host.restart().restart();
    assert_eq!(host.commit(), commit);
}

#[test]
fn a_host_that_gives_its_identity_up_wants_nothing_of_the_kernel_any_more() {
    let host = Host::new();
    host.step(Input::Found);
    let network = host.create(1);
    host.attached(&network, 1);
    let commit = host.commit();
    let mut activation = host.handle.activation.clone();
    activation.borrow_and_update();
    let (me, by) = (host.ledger().me(), HostId::from_bytes([9; 16]));
    host.step(Input::Refused { by, denial: overlay::ledger::Denial::Sealed { host: me } });
    assert!(matches!(*activation.borrow_and_update(), Activation::Fenced(_)));
    let intents = host.handle.intents.borrow().clone();
    assert!(intents.commit > commit, "a task that waits for this commit waits for what it wants");
    assert_eq!(*intents.intents, Intents::default());
    assert!(host.record().endpoints.is_empty() && host.record().networks.is_empty(), "{:?}", host.record());
}

/// A host with an endpoint that hears, while its disk is away, that it was forgotten.
fn fenced_without_disk() -> Host {
    let host = Host::new();
    host.step(Input::Found);
    let network = host.create(1);
    let late = (host.attached(&network, 1), host.given(&network, 2, "late")).1;
    let commit = host.commit();
    let (me, by) = (host.ledger().me(), HostId::from_bytes([9; 16]));
    host.on_store(take_disk_away);
    host.step(Input::Refused { by, denial: overlay::ledger::Denial::Sealed { host: me } });
    assert!(matches!(*host.handle.activation.borrow(), Activation::Fenced(_)));
    assert_eq!((host.commit(), &*host.intents()), (commit + 1, &Intents::default()));
    futures::executor::block_on(host.handle.write_owed()).expect_err("the disk is away");
    host.attach(&late).expect_err("nobody is taken in any more");
    host
}

#[test]
fn an_identity_is_given_up_in_memory_until_the_disk_takes_it() {
    let Host { scratch, handle } = fenced_without_disk();
    let host = Host { scratch: Scratch::new(), handle };
    let scratch = host.on_store(move |store| {
        bring_disk_back(store, &scratch);
        scratch
    });
    let host = Host { scratch, ..host };
    let me = host.ledger().me();
    futures::executor::block_on(host.handle.write_owed()).expect("the disk is back");
    let host = host.restart();
    assert_ne!(host.ledger().me(), me);
}

#[test]
fn a_host_that_is_killed_before_the_disk_takes_it_does_not_act() {
    let host = fenced_without_disk();
    let me = host.ledger().me();
    let host = host.restart();
    assert_eq!(host.ledger().me(), me);
    assert!(matches!(*host.handle.activation.borrow(), Activation::Unchecked { .. }));
    assert!(host.intents().attachments.is_empty());
}

#[test]
fn a_generation_can_be_asked_for_on_a_thread_that_belongs_to_a_runtime() {
    let host = Host::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let handle = host.handle.clone();
    let two = runtime.block_on(async move { [handle.next_generation_blocking(7), handle.next_generation_blocking(7)] });
    assert_eq!(two.map(|next| next.expect("the disk takes it")), [7, 8]);
}

#[test]
fn where_a_host_was_heard_last_is_known_until_it_is_forgotten() {
    let host = Host::new();
    host.step(Input::Found);
    // The state knows of one member from the start.
    let (peer, other) = (HostId::from_bytes([9; 16]), HostId::from_bytes([8; 16]));
    let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 7946));
    let peers = |host: &Host| host.handle.state().peers.as_ref().clone();
    let hear = |host: &Host, id, at| {
        host.tell(RememberPeers([(id, at)].into())).expect("the disk takes it");
    };
    hear(&host, peer, at(9));
    hear(&host, other, at(8));
    hear(&host, peer, at(7));
    assert_eq!(peers(&host), [(peer, at(7)), (other, at(8))].into());
    let host = host.restart();
    assert_eq!(peers(&host), [(peer, at(7)), (other, at(8))].into());
    // What is said again changes nothing.
    let commit = host.commit();
    hear(&host, peer, at(7));
    assert_eq!(host.commit(), commit);

    let forget = Input::Forget { hosts: [(peer, overlay::model::member::Boot::default())].into(), force: false };
    host.step(forget);
    assert!(host.ledger().membership().is_forgotten(peer), "there is nobody to wait for");
    assert_eq!(peers(&host), [(other, at(8))].into());
    // Gossip tells of it for a while.
    hear(&host, peer, at(7));
    let host = host.restart();
    assert_eq!(peers(&host), [(other, at(8))].into());
}
