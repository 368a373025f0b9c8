use overlay::ledger::{Request, Share};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::intent::NetnsRef;
use overlay::model::member::Stamp;
use overlay::model::record::{Run, Statement};

use super::*;
use crate::state::store::tests::{Scratch, bring_disk_back, network, take_disk_away};

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
        let mut kept = handle.kept.clone();
        drop(handle);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(async {
            let ended = async { while kept.changed().await.is_ok() {} };
            tokio::time::timeout(std::time::Duration::from_secs(10), ended).await
        });
        ended.expect("the owner ends with its last handle");
        let handle = start(&scratch);
        Self { scratch, handle }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Local) -> T + Send + 'static) -> T {
        self.handle.call_and_block(work)
    }

    fn step(&self, input: Input) -> Outcome {
        self.run(move |local| local.step(&input)).expect("the disk takes it")
    }

    fn create(&self, number: u8) -> Network {
        let me = self.run(|local| local.ledger().me());
        let network = network(number, me);
        assert_eq!(self.step(Input::Create(network.clone())), Outcome::Done);
        network
    }

    /// An address for an endpoint, and the endpoint with it, not yet attached.
    fn given(&self, network: &Network, number: u8, name: &str) -> Attachment {
        let (endpoint, name) = (EndpointId::from_bytes([number; 16]), label(name));
        let request = Request {
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

    fn attach(&self, attachment: &Attachment) -> Result<u64, AdmitError> {
        let attachment = attachment.clone();
        self.run(move |local| local.attach(attachment))
    }

    fn attached(&self, network: &Network, number: u8) -> Attachment {
        let attachment = self.given(network, number, &format!("web{number}"));
        self.attach(&attachment).expect("nothing speaks against it");
        attachment
    }

    fn kept(&self) -> Kept {
        self.handle.kept.borrow().clone()
    }

    fn record(&self) -> Arc<Record> {
        Arc::clone(&self.handle.record.borrow())
    }

    /// Everything that there is to see of it.
    fn all(&self) -> (Ledger, Intents, u64, Arc<Record>) {
        let (ledger, intents) = self.run(|local| (local.ledger().clone(), local.intents().clone()));
        (ledger, intents, self.kept().page, self.record())
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
        stamp: loaded.ledger.stamp(),
        phase: Phase::Joining,
        founder: None,
    };
    spawn(store, loaded, info, Trace::new(&scratch.0, "boot 1")).expect("what is on disk is in order")
}

fn label(text: &str) -> Name {
    text.parse().expect("a label")
}

fn resting(host: &Host, network: &Network) -> Vec<Option<Name>> {
    let id = network.id;
    let rests = host.run(move |local| local.ledger().accounts()[&id].resting.clone());
    rests.into_values().map(|rest| rest.name).collect()
}

#[test]
fn an_attached_endpoint_is_wanted_said_and_kept() {
    let host = Host::new();
    let network = host.create(1);
    let attachment = host.attached(&network, 1);
    let id = attachment.endpoint.id;
    let seen = |host: &Host| (host.kept(), host.record());
    let before = seen(&host);
    let stamp = host.run(|local| local.ledger().stamp());
    for (kept, record) in [before, seen(&host.restart())] {
        assert_eq!(kept.intents.attachments.get(&id), Some(&attachment));
        let seat = kept.intents.seats.get(&network.id).expect("it has a seat");
        assert_eq!(record.endpoints.get(&id).map(|endpoint| &**endpoint), Some(&attachment.endpoint));
        assert_eq!(record.networks.get(&network.id).and_then(|m| m.vni), Some(seat.vni));
        assert_eq!(record.host.as_ref().map(|h| h.stamp), Some(stamp));
    }
}

#[test]
fn the_page_of_an_intent_is_the_one_that_it_is_seen_under() {
    let host = Host::new();
    let network = host.create(1);
    let attachment = host.given(&network, 1, "web");
    let mut kept = host.handle.kept.clone();
    kept.borrow_and_update();
    let page = host.attach(&attachment).expect("nothing speaks against it");
    assert_eq!((host.kept().page, kept.has_changed().ok()), (page, Some(true)));
    // A commit of the ledger alone is a later page of the same intents.
    let before = host.kept().intents;
    host.step(Input::GiveSpace {
        network: network.id,
        range: 0,
        to: HostId::from_bytes([9; 16]),
        share: Share::Quarter,
    });
    assert_eq!((host.kept().page, host.kept().intents), (page + 1, before));
    // What changes nothing is no commit.
    host.step(Input::Tick { clear: [network.id].into() });
    assert_eq!(host.kept().page, page + 1);
}

#[test]
fn who_comes_second_with_a_name_or_a_mac_is_refused_and_changes_nothing() {
    let host = Host::new();
    let network = host.create(1);
    let (first, same_name) = (host.given(&network, 1, "web"), host.given(&network, 2, "web"));
    let mut same_mac = host.given(&network, 3, "other");
    same_mac.endpoint.mac = first.endpoint.mac;
    host.attach(&first).expect("the first one");
    let before = host.all();
    assert!(matches!(host.attach(&same_name), Err(AdmitError::NameInUse)));
    assert!(matches!(host.attach(&same_mac), Err(AdmitError::MacInUse(name)) if name == first.endpoint.name));
    assert_eq!(host.all(), before);
    // In another network both are free, and the same one may say it again.
    let elsewhere = host.create(2);
    let mut there = host.given(&elsewhere, 4, "web");
    there.endpoint.mac = first.endpoint.mac;
    host.attach(&there).expect("another network");
    host.attach(&first).expect("the same endpoint");
}

#[test]
fn without_its_address_an_endpoint_is_not_taken_in() {
    let host = Host::new();
    let network = host.create(1);
    let late = host.given(&network, 1, "web");
    let (id, name) = (late.endpoint.id, late.endpoint.name.clone());
    host.run(move |local| local.abandon(network.id, id, name)).expect("the disk takes it");
    assert!(matches!(host.attach(&late), Err(AdmitError::NoNetwork)));
    assert!(host.kept().intents.attachments.is_empty());
}

#[test]
fn nobody_gets_into_a_network_that_is_deleted_and_it_is_not_learnt_again() {
    let host = Host::new();
    let network = host.create(1);
    let late = host.given(&network, 1, "web");
    let id = network.id;
    host.run(move |local| local.bury(&[id].into())).expect("the disk takes it");
    assert!(matches!(host.attach(&late), Err(AdmitError::NoNetwork)));
    // Who read the view a moment ago tells the ledger of it once more.
    let learn = Input::Learn(network.clone());
    host.step(learn.clone());
    host.run(move |local| local.step_all(&[learn])).expect("the disk takes it");
    let (endpoint, name) = (late.endpoint.id, late.endpoint.name);
    host.run(move |local| local.abandon(id, endpoint, name)).expect("the disk takes it");
    let (ledger, intents, _, record) = host.all();
    assert!(ledger.accounts().is_empty() && intents.networks.is_empty() && intents.attachments.is_empty());
    assert_eq!((record.tombstones.clone(), record.networks.len()), ([id].into(), 0));
    let host = host.restart();
    assert!(host.run(|local| local.ledger().accounts().is_empty()));
    assert_eq!(host.record().tombstones, [id].into());
}

#[test]
fn a_crash_on_the_way_into_a_deleted_network_leaves_nothing_of_it() {
    let host = Host::new();
    let network = host.create(1);
    host.given(&network, 1, "web");
    let id = network.id;
    host.run(move |local| local.bury(&[id].into())).expect("the disk takes it");
    assert!(host.kept().intents.networks.contains_key(&id), "somebody has an address in it");
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
    host.run(move |local| local.bury(&[id].into())).expect("the disk takes it");
    host.run(move |local| local.detach(&[one])).expect("the disk takes it");
    let kept = host.kept().intents;
    assert!(kept.networks.contains_key(&id) && kept.seats.contains_key(&id), "one is still in it");
    host.run(move |local| local.detach(&[two])).expect("the disk takes it");
    let (ledger, intents, ..) = host.all();
    assert!(ledger.accounts().is_empty() && intents.networks.is_empty() && intents.seats.is_empty());
    let host = host.restart();
    assert!(host.run(|local| local.ledger().accounts().is_empty()), "its rows are gone from the disk");
}

#[test]
fn a_detached_endpoint_is_gone_and_its_address_rests_for_its_name() {
    let host = Host::new();
    let network = host.create(1);
    let (gone, stays) = (host.attached(&network, 1), host.attached(&network, 2));
    let ids = [gone.endpoint.id];
    let page = host.run(move |local| local.detach(&ids)).expect("the disk takes it");
    let kept = host.kept();
    assert_eq!((kept.page, kept.intents.attachments.keys().copied().collect()), (page, vec![stays.endpoint.id]));
    assert!(kept.intents.seats.contains_key(&network.id), "one is still in it");
    assert_eq!(resting(&host, &network), [Some(gone.endpoint.name.clone())]);
    // It comes back under its name, also after a restart.
    let host = host.restart();
    assert_eq!(host.given(&network, 3, "web1").endpoint.addresses, gone.endpoint.addresses);
    // Once more is no error, and no commit.
    assert_eq!(host.run(move |local| local.detach(&ids)).ok(), Some(host.kept().page));
}

#[test]
fn the_seat_goes_with_the_last_endpoint() {
    let host = Host::new();
    let network = host.create(1);
    let id = host.attached(&network, 1).endpoint.id;
    host.run(move |local| local.detach(&[id])).expect("the disk takes it");
    assert!(host.kept().intents.seats.is_empty());
    assert_eq!(host.record().networks.get(&network.id).map(|m| m.vni), Some(None), "known, but not received");
    assert!(host.restart().kept().intents.seats.is_empty());
}

#[test]
fn a_disk_that_fails_leaves_all_as_it_was() {
    let host = Host::new();
    let (network, doomed) = (host.create(1), host.create(2));
    let (there, late) = (host.attached(&network, 1), host.given(&network, 2, "late"));
    let before = host.all();
    host.run(|local| take_disk_away(&mut local.store));

    assert!(matches!(host.attach(&late), Err(AdmitError::Store(_))));
    let id = there.endpoint.id;
    host.run(move |local| local.detach(&[id])).expect_err("a detach");
    host.run(move |local| local.bury(&[doomed.id].into())).expect_err("a burial");
    let give = Input::GiveSpace { network: network.id, range: 0, to: HostId::from_bytes([9; 16]), share: Share::Half };
    let learn = Input::Learn(self::network(3, HostId::from_bytes([9; 16])));
    host.run(move |local| local.step(&give)).expect_err("a step");
    host.run(move |local| local.step_all(&[learn])).expect_err("many steps");
    assert_eq!(host.all(), before);

    let Host { scratch, handle } = host;
    let scratch = handle.call_and_block(move |local| {
        bring_disk_back(&mut local.store, &scratch);
        scratch
    });
    let host = Host { scratch, handle };
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
    let before = host.kept().page;
    let inputs = [Input::Learn(theirs.clone()), holding];
    host.run(move |local| local.step_all(&inputs)).expect("the disk takes it");
    let id = theirs.id;
    assert_eq!(host.run(move |local| local.ledger().accounts()[&id].held_by(other).count()), 4);
    assert_eq!(host.kept().page, before + 1);
    assert_eq!(host.kept().intents.networks, [(id, theirs)].into());
}

#[test]
fn an_address_that_was_given_to_nobody_is_free_after_a_restart() {
    let host = Host::new();
    let network = host.create(1);
    let (lost, kept) = (host.given(&network, 1, "lost"), host.attached(&network, 2));
    let id = network.id;
    let bound = |host: &Host| -> Vec<EndpointId> {
        host.run(move |local| local.ledger().accounts()[&id].bound.values().copied().collect())
    };
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
    let statement = Statement::Transfer { block, epoch: 2, to: host.run(|local| local.ledger().me()) };
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
    let page = host.kept().page;
    let host = host.restart().restart();
    assert_eq!(host.kept().page, page);
}

#[test]
fn a_host_that_gives_its_identity_up_wants_nothing_of_the_kernel_any_more() {
    let host = Host::new();
    host.step(Input::Found);
    let network = host.create(1);
    host.attached(&network, 1);
    let page = host.kept().page;
    let mut activation = host.handle.activation.clone();
    activation.borrow_and_update();
    let (me, by) = (host.run(|local| local.ledger().me()), HostId::from_bytes([9; 16]));
    host.step(Input::Refused { by, denial: overlay::ledger::Denial::Sealed { host: me } });
    assert!(matches!(*activation.borrow_and_update(), Activation::Fenced(_)));
    let kept = host.kept();
    assert!(kept.page > page, "who waits for this commit waits for what it wants");
    assert_eq!(*kept.intents, Intents::default());
    assert!(host.record().endpoints.is_empty() && host.record().networks.is_empty(), "{:?}", host.record());
}

/// A host with an endpoint that hears, while its disk is away, that it was forgotten.
fn fenced_without_disk() -> Host {
    let host = Host::new();
    host.step(Input::Found);
    let network = host.create(1);
    let late = (host.attached(&network, 1), host.given(&network, 2, "late")).1;
    let page = host.kept().page;
    let (me, by) = (host.run(|local| local.ledger().me()), HostId::from_bytes([9; 16]));
    host.run(|local| take_disk_away(&mut local.store));
    host.step(Input::Refused { by, denial: overlay::ledger::Denial::Sealed { host: me } });
    assert!(matches!(*host.handle.activation.borrow(), Activation::Fenced(_)));
    assert_eq!((host.kept().page, &*host.kept().intents), (page + 1, &Intents::default()));
    host.run(Local::settle).expect_err("the disk is away");
    host.attach(&late).expect_err("nobody is taken in any more");
    host
}

#[test]
fn an_identity_is_given_up_in_memory_until_the_disk_takes_it() {
    let Host { scratch, handle } = fenced_without_disk();
    let (scratch, me) = handle.call_and_block(move |local| {
        bring_disk_back(&mut local.store, &scratch);
        (scratch, local.ledger().me())
    });
    let host = Host { scratch, handle };
    host.run(Local::settle).expect("the disk is back");
    let host = host.restart();
    assert_ne!(host.run(|local| local.ledger().me()), me);
}

#[test]
fn a_host_that_is_killed_before_the_disk_takes_it_does_not_act() {
    let host = fenced_without_disk();
    let me = host.run(|local| local.ledger().me());
    let host = host.restart();
    assert_eq!(host.run(|local| local.ledger().me()), me);
    assert!(matches!(*host.handle.activation.borrow(), Activation::Unchecked { .. }));
    assert!(host.kept().intents.attachments.is_empty());
}

#[test]
fn where_a_host_was_heard_last_is_known_until_it_is_forgotten() {
    let host = Host::new();
    host.step(Input::Found);
    // The state knows of one member from the start.
    let (peer, other) = (HostId::from_bytes([9; 16]), HostId::from_bytes([8; 16]));
    let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 7946));
    let peers = |host: &Host| host.run(|local| local.peers().clone());
    let hear = |host: &Host, id, at| {
        host.run(move |local| local.remember_peers(&[(id, at)].into())).expect("the disk takes it");
    };
    hear(&host, peer, at(9));
    hear(&host, other, at(8));
    hear(&host, peer, at(7));
    assert_eq!(peers(&host), [(peer, at(7)), (other, at(8))].into());
    let host = host.restart();
    assert_eq!(peers(&host), [(peer, at(7)), (other, at(8))].into());
    // What is said again changes nothing.
    let page = host.kept().page;
    hear(&host, peer, at(7));
    assert_eq!(host.kept().page, page);

    let forget = Input::Forget { hosts: [(peer, overlay::model::member::Boot::default())].into(), force: false };
    host.step(forget);
    assert!(host.run(move |local| local.ledger().membership().is_forgotten(peer)), "there is nobody to wait for");
    assert_eq!(peers(&host), [(other, at(8))].into());
    // Gossip tells of it for a while.
    hear(&host, peer, at(7));
    let host = host.restart();
    assert_eq!(peers(&host), [(other, at(8))].into());
}
