//! Wherever a crash cuts the writes off, what is found is a commit as a whole, and none before the last that was
//! answered.

use std::ops::RangeInclusive;

use fastrand::Rng;
use overlay::model::links::{Link, LinkDecision};

use super::disk::{Disk, Fate};
use super::*;

/// Of each cut, how many outcomes are drawn at random.
const DRAWS: usize = 2;

/// All that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    ledger: Ledger,
    seats: BTreeMap<NetworkId, Seat>,
    attachments: BTreeMap<EndpointId, Arc<Attachment>>,
    peers: BTreeMap<HostId, SocketAddr>,
    links: BTreeMap<NetworkId, Links>,
    commit: u64,
}

impl From<Loaded> for State {
    fn from(loaded: Loaded) -> Self {
        let Loaded { ledger, seats, attachments, peers, links, commit, .. } = loaded;
        Self { ledger, seats, attachments, peers, links, commit }
    }
}

impl State {
    fn apply(&mut self, writes: &[Change]) {
        self.commit += 1;
        for write in writes {
            match write.clone() {
                Change::Ledger(change) => {
                    if let ledger::Change::Close(id) = change {
                        self.links.remove(&id);
                    }
                    self.ledger.apply(&[change]);
                }
                Change::Seat(id, Some(seat)) => drop(self.seats.insert(id, seat)),
                Change::Seat(id, None) => drop(self.seats.remove(&id)),
                Change::Attach(attachment) => drop(self.attachments.insert(attachment.endpoint.id, attachment)),
                Change::Links(id, links) => drop(self.links.insert(id, links)),
                Change::Detach(id) => drop(self.attachments.remove(&id)),
                Change::Peer(id, Some(address)) => drop(self.peers.insert(id, address)),
                Change::Peer(id, None) => drop(self.peers.remove(&id)),
                Change::Ways(_) => {}
            }
        }
    }
}

/// What happens to a host, one commit each.
#[derive(Debug)]
enum Event {
    /// The ledger decides.
    Input(Input),
    /// The ledger decides of several things at once.
    Inputs(Vec<Input>),
    /// An endpoint that has an address is taken in.
    Attach(u8),
    /// One is let go.
    Detach(u8),
    /// Another host was heard.
    Heard(u8),
    /// So many links are known of this network.
    Linked(NetworkId, u8),
    /// So much that the file has to grow.
    Flood,
    /// The agent is started again.
    Restart,
    /// The machine is.
    Boot,
}

/// A state, from when on nothing older may be found, and who looks for it after a crash.
struct Answered {
    state: State,
    at: usize,
    machine: Machine,
}

/// A host, and all that it has been.
struct Life {
    scratch: Scratch,
    disk: Disk,
    store: Option<Store>,
    answered: Vec<Answered>,
}

fn open(scratch: &Scratch, disk: &Disk, machine: &Machine) -> Result<(Store, Loaded), StoreError> {
    let path = scratch.file();
    let mut store = Store::open_on(file::on(disk.clone(), &path)?, &path)?;
    let loaded = store.take_up(machine, &BTreeMap::new())?;
    Ok((store, loaded))
}

impl Life {
    /// Starts on a disk that has an empty file.
    fn begin() -> Self {
        let (scratch, made) = (Scratch::new(), Disk::default());
        drop(file::on(made.clone(), &scratch.file()).expect("an empty one"));
        let disk = Disk::holding(made.bytes());
        let mut life = Self { scratch, disk, store: None, answered: Vec::new() };
        life.start(&machine("a", "boot 1", 1000));
        life
    }

    fn start(&mut self, machine: &Machine) {
        self.store = None;
        let (store, loaded) = open(&self.scratch, &self.disk, machine).expect("it opens");
        self.store = Some(store);
        self.answer(loaded.into(), machine.clone());
    }

    fn answer(&mut self, state: State, machine: Machine) {
        let machine = Machine { ran: Some((state.ledger.me(), state.ledger.stamp())), ..machine };
        self.answered.push(Answered { state, at: self.disk.done(), machine });
    }

    fn last(&self) -> &Answered {
        self.answered.last().expect("it was started")
    }

    fn live(&mut self, event: Event) {
        let Answered { state, machine, .. } = self.last();
        let (mut state, machine) = (state.clone(), machine.clone());
        let told = format!("{event:?}");
        let writes = match event {
            Event::Restart => return self.start(&machine),
            Event::Boot => {
                return self.start(&Machine { boot: "boot 2".to_owned(), now: 50, ran: None, nonce: 7, ..machine });
            }
            Event::Input(input) => decide(&mut state.ledger.clone(), &[input]),
            Event::Inputs(inputs) => decide(&mut state.ledger.clone(), &inputs),
            Event::Attach(number) => {
                let attachment = attachment(number, NetworkId::from_bytes([1; 16]));
                let seat = Seat { vni: Vni::new(4711).expect("24 bits"), transit: 3 };
                vec![Change::Seat(attachment.endpoint.network, Some(seat)), Change::Attach(attachment.into())]
            }
            Event::Detach(number) => {
                let Endpoint { network, id, name, .. } = attachment(number, NetworkId::from_bytes([1; 16])).endpoint;
                let mut writes = decide(&mut state.ledger.clone(), &[Input::Release { network, endpoint: id, name }]);
                writes.push(Change::Detach(id));
                writes
            }
            Event::Flood => flood().collect(),
            Event::Linked(network, count) => {
                let name = |n: u8| format!("c{n}").parse().expect("a label");
                let link = |n| Link { from: name(n), to: name(n + 1), service: None };
                let links = (0..count).map(|n| (link(n), LinkDecision { at: 1, removed: false })).collect();
                vec![Change::Links(network, links)]
            }
            Event::Heard(number) => {
                vec![Change::Peer(
                    HostId::from_bytes([number; 16]),
                    Some(SocketAddr::from(([192, 0, 2, number], 7946))),
                )]
            }
        };
        assert!(!writes.is_empty(), "no commit: {told}");
        self.store.as_mut().expect("it was started").commit(&writes).expect("the disk takes it");
        state.apply(&writes);
        self.answer(state, machine);
    }

    /// Who looks after a cut, and what there may be then. `None` before the first state was there at all.
    fn after(&self, cut: usize) -> (&Machine, Option<Vec<&State>>) {
        let next = self.answered.partition_point(|answered| answered.at <= cut);
        let (Some(before), next) = (next.checked_sub(1).map(|at| &self.answered[at]), self.answered.get(next)) else {
            return (&self.answered[0].machine, None);
        };
        match next {
            // Whatever was there, that the machine has booted was noted when it was opened.
            Some(next) if next.machine.boot != before.machine.boot => (&next.machine, Some(vec![&next.state])),
            Some(next) => (&before.machine, Some(vec![&before.state, &next.state])),
            None => (&before.machine, Some(vec![&before.state])),
        }
    }

    /// What a daemon finds there.
    fn find(&self, disk: &Disk, machine: &Machine) -> Result<State, StoreError> {
        let (_store, loaded) = open(&self.scratch, disk, machine)?;
        Ok(loaded.into())
    }
}

fn decide(ledger: &mut Ledger, inputs: &[Input]) -> Vec<Change> {
    let step = |input| {
        let step = ledger.step(input, 1000);
        assert!(!matches!(step.outcome, Outcome::Denied(_) | Outcome::Ask(_)), "{input:?}: {:?}", step.outcome);
        ledger.apply(&step.changes);
        step.changes
    };
    inputs.iter().flat_map(step).map(Change::Ledger).collect()
}

fn lived_through() -> Life {
    let mut life = Life::begin();
    let (me, other) = (life.last().state.ledger.me(), HostId::from_bytes([9; 16]));
    let (own, old) = (network(1, me), network(2, me));
    let address = |last| Some(IpAddr::from([172, 38, 1, last]));
    let stamp = |revision| Stamp { revision, ..Stamp::default() };
    let release = |number: u8| Input::Release {
        network: own.id,
        endpoint: EndpointId::from_bytes([number; 16]),
        name: format!("web{number}").parse().expect("a label"),
    };
    use Event::{Attach, Boot, Detach, Heard, Inputs, Linked, Restart};
    let one = Event::Input;
    for event in [
        one(Input::Found),
        one(Input::Acknowledge { from: other, stamp: stamp(3), founder: None }),
        one(Input::Acknowledge { from: HostId::from_bytes([8; 16]), stamp: stamp(4), founder: None }),
        one(Input::Create(own.clone())),
        one(Input::GiveSpace { network: own.id, range: 0, to: other, share: Share::Half }),
        one(allocate(own.id, 1, address(1))),
        Attach(1),
        Heard(9),
        Linked(own.id, 2),
        one(Input::Create(old.clone())),
        Linked(old.id, 1),
        one(allocate(old.id, 7, None)),
        one(Input::GiveAddress { network: own.id, to: other, address: IpAddr::from([172, 38, 1, 3]) }),
        one(allocate(own.id, 2, address(2))),
        Attach(2),
        Restart,
        Linked(own.id, 3),
        Detach(2),
        Inputs(vec![allocate(own.id, 4, address(4)), release(4), Input::Close(old.id)]),
        one(Input::Forget {
            hosts: [(other, overlay::model::member::Boot { generation: 3, nonce: 4 })].into(),
            force: false,
        }),
        one(allocate(own.id, 5, address(5))),
        Attach(5),
        Boot,
        one(Input::Trust),
        one(allocate(own.id, 6, address(6))),
        Attach(6),
        Detach(6),
    ] {
        life.live(event);
    }
    life
}

fn seed() -> u64 {
    let seed =
        std::env::var("OVERLAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: again with OVERLAY_SEED={seed}");
    seed
}

/// More than a new file has space for.
fn flood() -> impl Iterator<Item = Change> {
    (0..6000_u128).map(|number| {
        let mut attachment = attachment(1, NetworkId::from_bytes([1; 16]));
        attachment.endpoint.id = EndpointId::from_bytes((number << 64).to_be_bytes());
        Change::Attach(attachment.into())
    })
}

#[test]
fn a_crash_at_any_write_leaves_what_was_answered_or_the_commit_that_was_under_way() {
    let life = lived_through();
    let seen = crash_after(&life, 0..=life.disk.done(), &mut Rng::with_seed(seed()));
    assert!(seen[0] > 100 && seen[1] > 10, "both are seen: before and after the commit {seen:?} times");
}

#[test]
fn a_crash_while_the_file_grows_leaves_all_or_nothing_of_what_it_grows_for() {
    let mut life = Life::begin();
    let (before, small) = (life.disk.done(), life.disk.bytes().len());
    life.live(Event::Flood);
    life.live(Event::Heard(9));
    let (end, large) = (life.disk.done(), life.disk.bytes().len());
    assert!(large > small, "it has not grown: {small} bytes, then {large}");
    let mut random = Rng::with_seed(seed());
    // Its last writes all, where the commit is made, and a sample of the pages before.
    let early: BTreeSet<usize> = (0..30).map(|_| random.usize(before..end)).collect();
    let cuts = early.into_iter().chain(end.saturating_sub(30)..=end);
    let seen = crash_after(&life, cuts, &mut random);
    assert!(seen[0] > 20 && seen[1] > 0, "both are seen: before and after the commit {seen:?} times");
}

#[test]
fn a_daemon_that_is_killed_while_it_makes_the_file_makes_it_when_it_starts_again() {
    let made = Disk::default();
    drop(file::on(made.clone(), Path::new("made")).expect("an empty one"));
    let mut random = Rng::with_seed(seed());
    for cut in 0..=made.done() {
        for mut fate in [Fate::Killed, Fate::AllLost, Fate::SomeLost(random.fork())] {
            let scratch = Scratch::new();
            let half = scratch.file().with_extension("new");
            fs::write(&half, made.cut(cut, &mut fate)).expect("it can be written");
            let (_store, loaded) = scratch.open().unwrap_or_else(|error| unreachable!("{fate:?} after {cut}: {error}"));
            assert!(loaded.commit == 0 && !half.exists());
        }
    }
}

#[test]
fn an_identity_is_never_there_without_the_addresses_that_it_began_with() {
    let scratch = Scratch::new();
    let peers: BTreeMap<HostId, SocketAddr> =
        [(HostId::from_bytes([9; 16]), SocketAddr::from(([192, 0, 2, 9], 7946)))].into();
    let (made, machine) = (Disk::default(), machine("a", "boot 1", 1000));
    drop(file::on(made.clone(), &scratch.file()).expect("an empty one"));
    let disk = Disk::holding(made.bytes());
    let find = |disk: &Disk| Store::open_on(file::on(disk.clone(), &scratch.file())?, &scratch.file());
    find(&disk).and_then(|mut store| store.take_up(&machine, &peers)).expect("a new identity");
    let (mut random, mut seen) = (Rng::with_seed(seed()), [0; 2]);
    for cut in 0..=disk.done() {
        for mut fate in [Fate::Killed, Fate::AllLost, Fate::SomeLost(random.fork())] {
            let mut store = find(&disk.left(cut, &mut fate)).expect("it is whole");
            let is_there = store.meta("key").expect("it can be read").is_some();
            seen[usize::from(is_there)] += 1;
            let known = store.peers().expect("it can be read");
            assert_eq!(known == peers, is_there, "{fate:?} after {cut}: {known:?}");
            for with_it in ["machine", "boot"] {
                let there = store.meta(with_it).expect("it can be read").is_some();
                assert_eq!(there, is_there, "{fate:?} after {cut}: `{with_it}`");
            }
        }
    }
    assert!(seen[0] > 2 && seen[1] > 0, "both are seen: before and after {seen:?} times");
}

/// Crashes after each of so many writes, in all ways, and looks what is there. How often was it the state before the
/// commit that was under way, and how often the one after it?
fn crash_after(life: &Life, cuts: impl IntoIterator<Item = usize>, random: &mut Rng) -> [usize; 2] {
    let mut seen = [0; 2];
    for cut in cuts {
        let (machine, allowed) = life.after(cut);
        let drawn: Vec<Fate> = (0..DRAWS).map(|_| Fate::SomeLost(random.fork())).collect();
        for mut fate in [Fate::Killed, Fate::AllLost].into_iter().chain(drawn) {
            let told = format!("{fate:?} after {cut} of {}", life.disk.done());
            let disk = life.disk.left(cut, &mut fate);
            let start = disk.done();
            let (store, loaded) = open(&life.scratch, &disk, machine).unwrap_or_else(|e| unreachable!("{told}: {e}"));
            // What it writes when it is closed comes later.
            let (state, end) = (State::from(loaded), disk.done());
            drop(store);
            let Some(allowed) = &allowed else {
                assert!(state.commit == 0 && state.ledger.accounts().is_empty(), "{told}: there is nothing yet");
                continue;
            };
            let which = allowed.iter().position(|allowed| **allowed == state);
            let which = which
                .unwrap_or_else(|| unreachable!("{told}: commit {} is none of {:?}", state.commit, commits(allowed)));
            seen[which] += 1;
            crash_again(life, (&disk, start..=end), &state, (machine, allowed), random);
        }
    }
    seen
}

/// What is found after a crash may be answered: another one takes it back no more.
fn crash_again(
    life: &Life,
    (disk, opening): (&Disk, RangeInclusive<usize>),
    state: &State,
    (machine, allowed): (&Machine, &[&State]),
    random: &mut Rng,
) {
    let find = |cut, mut fate: Fate| life.find(&disk.left(cut, &mut fate), machine).expect("it opens again");
    let cut = random.usize(opening.clone());
    let halfway = find(cut, Fate::SomeLost(random.fork()));
    assert!(allowed.contains(&&halfway), "while it opens, after {cut} of {opening:?}: commit {}", halfway.commit);
    assert!(find(*opening.end(), Fate::AllLost) == *state, "commit {} was found, and is gone again", state.commit);
}

fn commits(states: &[&State]) -> Vec<u64> {
    states.iter().map(|state| state.commit).collect()
}
