use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use overlay::ledger::{AddressRequest, Input, Outcome, Share};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::id::{HostId, Vni};
use overlay::model::intent::NetnsRef;
use overlay::model::member::{Boot, Seal, Stamp};
use overlay::model::network::{Range, Settings};

use super::*;
use crate::state::run_marker::RunMarker;

mod crash;
mod disk;
pub(crate) mod full;
mod laws;

/// A directory that goes with its test, also when that fails.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("overlay-store-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory can be made");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.redb")
    }

    pub(crate) fn open(&self) -> Result<(Store, Loaded), StoreError> {
        self.open_as(&machine("a", "boot 1", 1000))
    }

    /// Leaves the trace in the run directory that a daemon would.
    fn open_as(&self, machine: &Machine) -> Result<(Store, Loaded), StoreError> {
        let trace = RunMarker::new(&self.0, &machine.boot);
        let opened = Store::open(&self.0, &Machine { ran: trace.find(), ..machine.clone() })?;
        trace.leave(opened.1.ledger.me(), opened.1.ledger.stamp());
        Ok(opened)
    }

    /// A store of the first host of a cluster, which knows one other.
    pub(crate) fn found(&self) -> Result<(Store, Loaded), StoreError> {
        let (mut store, mut loaded) = self.open()?;
        let other = HostId::from_bytes([9; 16]);
        let mut changes = loaded.ledger.step(&Input::Found, 0).changes;
        changes.push(ledger::Change::Member(other));
        store.commit(&changes.iter().cloned().map(Change::Ledger).collect::<Vec<_>>())?;
        loaded.ledger.apply(&changes);
        loaded.commit += 1;
        Ok((store, loaded))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is in the directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets a store lose its disk.
pub(crate) fn take_disk_away(store: &mut Store) {
    store.db = None;
    store.path = store.path.with_extension("away").join("state.redb");
}

impl Store {
    /// How many commits there were.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }
}

/// Gives it back.
pub(crate) fn bring_disk_back(store: &mut Store, scratch: &Scratch) {
    store.path = scratch.file();
}

fn machine(id: &str, boot: &str, now: Millis) -> Machine {
    Machine { id: id.to_owned(), boot: boot.to_owned(), now, ran: None, nonce: now }
}

pub(crate) fn network(number: u8, creator: HostId) -> Network {
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let name = format!("net{number}").parse().expect("a label");
    Network {
        id: NetworkId::from_bytes([number; 16]),
        name,
        ranges: vec![range],
        created: 1,
        creator,
        since: 0,
        settings: Settings::default(),
    }
}

pub(crate) fn attachment(number: u8, network: NetworkId) -> Attachment {
    let address = IpAddr::from([172, 38, 1, number]);
    let endpoint = Endpoint {
        id: EndpointId::from_bytes([number; 16]),
        network,
        name: format!("web{number}").parse().expect("a label"),
        aliases: BTreeSet::new(),
        addresses: vec![Assigned { address, lease: Default::default() }],
        mac: Mac::of_address(address),
        created: 2,
    };
    let netns = NetnsRef { path: format!("/run/netns/{number}").into(), cookie: number.into() };
    Attachment { endpoint, netns, ifname: "eth0".parse().expect("a name"), metric: 0, published: BTreeMap::new() }
}

fn allocate(network: NetworkId, number: u8, address: Option<IpAddr>) -> Input {
    let (endpoint, name) = (EndpointId::from_bytes([number; 16]), format!("web{number}").parse().expect("a label"));
    Input::Allocate(AddressRequest {
        network,
        endpoint,
        name,
        range: 0,
        address,
        reachable: [].into(),
        asked: [].into(),
    })
}

/// A new state that has lived.
fn opened(scratch: &Scratch) -> Result<(Store, Loaded), StoreError> {
    let (mut store, mut loaded) = scratch.open()?;
    live(&mut store, &mut loaded.ledger);
    Ok((store, loaded))
}

/// What a host lives through in a while: the ledger has something in every table then.
fn live(store: &mut Store, ledger: &mut Ledger) {
    let (me, other) = (ledger.me(), HostId::from_bytes([9; 16]));
    let (own, old) = (network(1, me), network(2, me));
    let address = |last| Some(IpAddr::from([172, 38, 1, last]));
    let inputs = [
        Input::Found,
        Input::Acknowledge { from: other, stamp: Stamp { revision: 3, ..Stamp::default() }, founder: None },
        Input::Create(own.clone()),
        Input::Create(old.clone()),
        allocate(own.id, 1, address(1)),
        allocate(own.id, 2, address(2)),
        Input::Release {
            network: own.id,
            endpoint: EndpointId::from_bytes([2; 16]),
            name: "web2".parse().expect("a label"),
        },
        Input::GiveAddress { network: own.id, to: other, address: IpAddr::from([172, 38, 1, 3]) },
        Input::GiveSpace { network: own.id, range: 0, to: other, share: Share::Quarter },
        allocate(old.id, 1, address(1)),
        Input::GiveSpace { network: old.id, range: 0, to: other, share: Share::Half },
        Input::Close(NetworkId::from_bytes([3; 16])),
        Input::Forget { hosts: [(other, Boot { generation: 3, nonce: 4 })].into(), force: false },
    ];
    for input in inputs {
        let step = ledger.step(&input, 1000);
        assert!(!matches!(step.outcome, Outcome::Denied(_)), "{input:?}: {:?}", step.outcome);
        let writes: Vec<Change> = step.changes.iter().cloned().map(Change::Ledger).collect();
        store.commit(&writes).expect("the disk takes it");
        ledger.apply(&step.changes);
    }
    let account = &ledger.accounts()[&own.id];
    let full = !account.bound.is_empty() && !account.resting.is_empty() && !account.addresses.is_empty();
    let membership = ledger.membership();
    let members = !membership.dealt.is_empty() && !membership.seals.is_empty() && !ledger.tombstones().is_empty();
    assert!(full && members && !account.outbox.is_empty(), "every table has rows");
}

#[test]
fn what_was_committed_is_there_after_opening_again() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = opened(&scratch)?;
    let ledger = loaded.ledger;
    let id = NetworkId::from_bytes([1; 16]);
    let seat = Seat { vni: Vni::new(4711).expect("24 bits"), transit: 3 };
    let (kept, gone) = (attachment(1, id), attachment(2, id));
    let (peer, address) = (HostId::from_bytes([9; 16]), SocketAddr::from(([192, 0, 2, 1], 7946)));
    store.commit(&[
        Change::Seat(id, Some(seat)),
        Change::Seat(NetworkId::from_bytes([2; 16]), Some(seat)),
        Change::Attach(kept.clone().into()),
        Change::Attach(gone.clone().into()),
        Change::Peer(peer, Some(address)),
    ])?;
    let last = [Change::Detach(gone.endpoint.id), Change::Seat(NetworkId::from_bytes([2; 16]), None)];
    let commit = store.commit(&last)?;
    drop(store);

    let (_, again) = scratch.open()?;
    assert_eq!(again.ledger, ledger);
    assert_eq!(again.identity.id(), loaded.identity.id());
    assert_eq!(again.seats, [(id, seat)].into());
    assert_eq!(again.attachments, [(kept.endpoint.id, Arc::new(kept))].into());
    assert_eq!(again.peers, [(peer, address)].into());
    assert_eq!(again.commit, commit);
    assert_eq!(again.put_aside, None);
    Ok(())
}

#[test]
fn the_commit_grows_by_one_with_each_commit_and_goes_on_after_opening_again() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = scratch.open()?;
    assert_eq!(loaded.commit, 0);
    assert_eq!((store.commit(&[])?, store.commit(&[])?), (1, 2));
    drop(store);
    let (mut store, loaded) = scratch.open()?;
    assert_eq!((loaded.commit, store.commit(&[])?), (2, 3));
    Ok(())
}

#[test]
fn no_generation_comes_twice_also_when_the_clock_goes_back() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, _) = scratch.open()?;
    assert_eq!((store.next_generation(5000)?, store.next_generation(5000)?), (5000, 5001));
    drop(store);
    let (mut store, _) = scratch.open()?;
    assert_eq!((store.next_generation(10)?, store.next_generation(9000)?), (5002, 9000));
    Ok(())
}

#[test]
fn closing_a_network_removes_its_rows_and_nobody_elses() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = opened(&scratch)?;
    let mut ledger = loaded.ledger;
    let closed = NetworkId::from_bytes([1; 16]);
    store.commit(&[Change::Ledger(ledger::Change::Close(closed))])?;
    ledger.apply(&[ledger::Change::Close(closed)]);
    for table in OF_ACCOUNT {
        let left = store.rows(table, |key, _| Ok(key.starts_with(closed.as_bytes())))?;
        assert!(!left.contains(&true), "{table}");
    }
    assert!(!ledger.accounts().is_empty());
    drop(store);
    assert_eq!(scratch.open()?.1.ledger, ledger);
    Ok(())
}

#[test]
fn two_daemons_do_not_share_a_directory() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let first = scratch.open()?;
    let second = scratch.open().map(drop);
    assert!(matches!(&second, Err(StoreError::InUse(path)) if *path == scratch.file()), "{second:?}");
    drop(first);
    scratch.open().map(drop)
}

#[test]
fn the_key_of_the_host_is_for_the_owner_only() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let dir = scratch.0.join("made");
    let _open = Store::open(&dir, &machine("a", "boot 1", 1000))?;
    let mode = |path: &Path| fs::metadata(path).map(|m| m.permissions().mode() & 0o777).ok();
    assert_eq!((mode(&dir), mode(&dir.join("state.redb"))), (Some(0o700), Some(0o600)));
    Ok(())
}

#[test]
fn the_state_of_another_machine_is_put_aside_whole() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (store, loaded) = opened(&scratch)?;
    let ledger = loaded.ledger;
    drop(store);

    let (store, other) = scratch.open_as(&machine("b", "boot 7", 500))?;
    assert_ne!(other.identity.id(), loaded.identity.id());
    assert!(other.ledger.accounts().is_empty() && other.commit == 0);
    let (aside, why) = other.put_aside.expect("it says where");
    assert_eq!(why, OfNoUse::OtherMachine);
    drop(store);
    fs::rename(aside, scratch.file()).expect("it is there");
    let back =
        Machine { ran: Some((ledger.me(), Stamp { revision: 0, ..ledger.stamp() })), ..machine("a", "boot 1", 1000) };
    assert_eq!(Store::open(&scratch.0, &back)?.1.ledger, ledger);
    Ok(())
}

#[test]
fn the_state_of_a_host_that_gave_its_identity_up_is_put_aside() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = scratch.found()?;
    let by = HostId::from_bytes([9; 16]);
    let seals = [(loaded.ledger.me(), Seal { heir: by, done: true })].into();
    let told = loaded.ledger.step(&Input::Belongs { from: by, founder: None, seals }, 0);
    store.commit(&told.changes.into_iter().map(Change::Ledger).collect::<Vec<_>>())?;
    let peer = ([192, 0, 2, 9], 7946).into();
    store.commit(&[Change::Peer(by, Some(peer))])?;
    drop(store);
    let (store, again) = scratch.open()?;
    assert_ne!(again.identity.id(), loaded.identity.id());
    assert_eq!(again.peers, [(by, peer)].into(), "there it is let in again");
    drop(store);
    assert_eq!(scratch.open()?.1.peers, again.peers, "also if it is started once more before that");
    assert!(matches!(again.put_aside, Some((_, OfNoUse::Fenced(Fencing::Forgotten { by: b }))) if b == by));
    Ok(())
}

#[test]
fn an_identity_that_is_given_up_is_found_again_until_the_new_one_is_whole() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = scratch.found()?;
    let (by, peer) = (HostId::from_bytes([9; 16]), ([192, 0, 2, 9], 7946).into());
    let seals = [(loaded.ledger.me(), Seal { heir: by, done: true })].into();
    let told = loaded.ledger.step(&Input::Belongs { from: by, founder: None, seals }, 0);
    store.commit(
        &told.changes.into_iter().map(Change::Ledger).chain([Change::Peer(by, Some(peer))]).collect::<Vec<_>>(),
    )?;
    drop(store);
    // The new one can't take the place of the old one, as if the daemon were killed there.
    let found = StartupState::look(&scratch.0, &machine("a", "boot 1", 1000))?;
    fs::create_dir_all(scratch.0.join("state.redb.fenced-1000")).expect("it can be made");
    found.take_up().map(drop).expect_err("it can't be put aside");

    let (_, again) = scratch.open_as(&machine("a", "boot 1", 2000))?;
    assert_ne!(again.identity.id(), loaded.identity.id());
    assert_eq!(again.peers, [(by, peer)].into());
    assert!(matches!(again.put_aside, Some((_, OfNoUse::Fenced(_)))));
    let files = fs::read_dir(&scratch.0).expect("it is there").filter_map(Result::ok);
    let left: Vec<_> = files.map(|file| file.file_name()).filter(|name| name == "state.fresh").collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_disk_that_is_not_the_one_that_ran_is_checked_like_one_after_a_boot() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, loaded) = scratch.found()?;
    let mut ledger = loaded.ledger;
    let id = NetworkId::from_bytes([1; 16]);
    for input in [Input::Create(network(1, ledger.me())), allocate(id, 1, Some(IpAddr::from([172, 38, 1, 1])))] {
        let step = ledger.step(&input, 0);
        store.commit(&step.changes.iter().cloned().map(Change::Ledger).collect::<Vec<_>>())?;
        ledger.apply(&step.changes);
    }
    store.commit(&[Change::Attach(attachment(1, id).into())])?;
    let boot = ledger.membership().boot;
    let revision = ledger.stamp().revision;
    let (before, copy) = (scratch.file(), scratch.0.join("copy"));
    fs::copy(&before, &copy).expect("it can be read");
    let step = ledger.step(&Input::Create(network(2, ledger.me())), 0);
    store.commit(&step.changes.iter().cloned().map(Change::Ledger).collect::<Vec<_>>())?;
    ledger.apply(&step.changes);
    RunMarker::new(&scratch.0, "boot 1").leave(ledger.me(), ledger.stamp());
    drop(store);
    assert_eq!(scratch.open()?.1.ledger, ledger, "the one that ran is as it was");
    fs::rename(&copy, &before).expect("it is there");
    let restored = scratch.open()?.1;
    assert!(restored.attachments.is_empty(), "it lets go of all that it had");
    let restored = restored.ledger;
    assert_eq!(restored.stamp().revision, revision, "by that it must not come up to what the others have seen");
    assert!(restored.accounts()[&id].bound.is_empty() && restored.membership().boot.supersedes(boot));
    assert!(matches!(restored.membership().activation, Activation::Unchecked { .. }));
    Ok(())
}

#[test]
fn after_a_reboot_rests_start_again_by_the_new_clock() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (store, _) = opened(&scratch)?;
    drop(store);
    let since = |loaded: &Loaded| {
        let resting = loaded.ledger.accounts().values().flat_map(|a| a.resting.values().map(|rest| rest.since));
        resting.collect::<Vec<_>>()
    };
    assert_eq!(since(&scratch.open_as(&machine("a", "boot 1", 9000))?.1), [1000], "no reboot");
    assert_eq!(since(&scratch.open_as(&machine("a", "boot 2", 7))?.1), [7]);
    assert_eq!(since(&scratch.open_as(&machine("a", "boot 2", 50))?.1), [7], "it is kept");
    Ok(())
}

#[test]
fn a_directory_that_can_not_be_used_is_named() {
    let scratch = Scratch::new();
    let file = scratch.0.join("file");
    fs::write(&file, "").expect("a file");
    let error =
        Store::open(&file.join("dir"), &machine("a", "boot 1", 1)).map(drop).expect_err("a file is no directory");
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("can't use the state directory {}", file.display())), "{error}");
}

/// The bytes of a file that has lived.
fn lived(scratch: &Scratch) -> Vec<u8> {
    drop(opened(scratch).expect("a new one"));
    fs::read(scratch.file()).expect("it is there")
}

/// Refused, and the file is as it was.
fn assert_refused(scratch: &Scratch, bytes: &[u8], what: &str) {
    fs::write(scratch.file(), bytes).expect("it can be written");
    assert_corrupt(scratch, what);
    assert!(fs::read(scratch.file()).expect("it is there") == bytes, "{what}: the file was changed");
}

/// Refused with one line that names the file and says what to do.
fn assert_corrupt(scratch: &Scratch, what: &str) {
    let error = scratch.open().map(drop).expect_err(what);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
    let line = error.to_string();
    let whole = line.contains(&scratch.file().display().to_string()) && line.contains("move it away");
    assert!(whole && !line.contains('\n'), "{what}: {line}");
}

#[test]
fn what_is_no_state_file_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    assert_refused(&scratch, b"not a database at all", "a text");
    assert_refused(&scratch, &[0; 4096], "zeros");
    assert_refused(&scratch, &[0xff; 100_000], "ones");
}

#[test]
fn a_truncated_file_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    let whole = lived(&scratch);
    for len in [1, 64, 511, 4096, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        assert_refused(&scratch, &whole[..len], &format!("the first {len} of {} bytes", whole.len()));
    }
}

/// Wherever a bit flips: what is opened is what was written, or it is refused.
#[test]
fn a_flipped_bit_is_noticed_or_without_meaning() {
    let scratch = Scratch::new();
    let whole = lived(&scratch);
    let (_, before) = scratch.open().expect("a whole file");
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refused = 0;
    // A third of the header, and a sample of all else that is not empty.
    for at in (0..320).step_by(3).chain(used.iter().copied().step_by(used.len() / 60)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(scratch.file(), &bytes).expect("it can be written");
        match scratch.open() {
            Ok((_, after)) => {
                assert_eq!(after.ledger, before.ledger, "byte {at}");
                assert_eq!((after.identity.id(), after.commit), (before.identity.id(), before.commit), "byte {at}");
            }
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(other) => unreachable!("byte {at}: {other}"),
        }
    }
    assert!(refused > 30, "most of it has meaning: {refused}");
}

#[test]
fn a_row_that_says_nothing_sensible_is_refused() {
    for (table, key) in
        [(BLOCKS, &[1_u8; 19][..]), (NETWORKS, &[1; 3]), (PEERS, &[1; 16]), (META, super::COMMIT.as_bytes())]
    {
        let scratch = Scratch::new();
        let (mut store, _) = scratch.open().expect("a new one");
        store.transact(|txn| put(txn, table, key, b"\xff\xff\xff")).expect("it takes any row");
        drop(store);
        assert_corrupt(&scratch, &table.to_string());
    }
}

#[test]
fn after_a_reboot_nobody_is_attached_and_the_addresses_rest_for_their_names() -> Result<(), StoreError> {
    let scratch = Scratch::new();
    let (mut store, _) = opened(&scratch)?;
    let id = NetworkId::from_bytes([1; 16]);
    let seat = Seat { vni: Vni::new(4711).expect("24 bits"), transit: 3 };
    let old = attachment(1, id);
    store.commit(&[Change::Seat(id, Some(seat)), Change::Attach(old.clone().into())])?;
    drop(store);
    assert_eq!(scratch.open()?.1.attachments.len(), 1, "no reboot");

    for now in [7, 50] {
        let loaded = scratch.open_as(&machine("a", "boot 2", now))?.1;
        assert!(loaded.attachments.is_empty() && loaded.seats.is_empty());
        let account = &loaded.ledger.accounts()[&id];
        assert!(account.bound.values().all(|endpoint| *endpoint != old.endpoint.id));
        let kept = account.resting.values().filter(|rest| rest.name.as_ref() == Some(&old.endpoint.name));
        assert_eq!(kept.map(|rest| rest.since).collect::<Vec<_>>(), [7]);
    }
    Ok(())
}
