//! Whatever a ledger decides: the disk has it, and what is read back is that ledger.

use overlay::ledger::{Claim, SealRequest};
use overlay::model::lease::Version;
use overlay::model::network::BlockId;
use overlay::model::record::{Run, Statement};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// What may happen to a host: of two networks, and with three others.
fn inputs() -> impl Strategy<Value = Input> {
    let hosts = || (7_u8..10).prop_map(|number| HostId::from_bytes([number; 16]));
    // Mostly of its own cluster, as far as they say.
    let founders = || proptest::option::weighted(0.2, Just(HostId::from_bytes([9; 16])));
    let networks = || (1_u8..3).prop_map(|number| NetworkId::from_bytes([number; 16]));
    let addresses = || (0_u8..16).prop_map(|last| IpAddr::from([172, 38, 0, last]));
    let blocks = || (0_u16..8).prop_map(|index| BlockId { range: 0, index });
    let versions = || (1_u64..4, 0_u64..4).prop_map(|(epoch, count)| Version { epoch, count });
    let stamps = || {
        (0_u64..3, 0_u64..9).prop_map(|(generation, revision)| Stamp { boot: Boot { generation, nonce: 1 }, revision })
    };
    let held = || {
        let runs = proptest::collection::vec((blocks(), 1_u16..4, 1_u64..4), 0..3);
        let runs =
            runs.prop_map(|runs| runs.into_iter().map(|(start, len, epoch)| Run { start, len, epoch }).collect());
        (runs, proptest::collection::btree_map(addresses(), versions(), 0..3))
            .prop_map(|(runs, borrowed)| Claim { runs, borrowed })
    };
    let statement = |me: HostId| {
        prop_oneof![
            (blocks(), 1_u64..4).prop_map(move |(block, epoch)| Statement::Transfer { block, epoch, to: me }),
            (addresses(), versions()).prop_map(move |(address, version)| Statement::Delegate {
                address,
                version,
                to: me
            }),
            (addresses(), versions()).prop_map(|(address, version)| Statement::Return { address, version }),
        ]
    };
    let endpoint = |number| EndpointId::from_bytes([number; 16]);
    let name = |number: u8| format!("web{number}").parse().expect("a label");
    prop_oneof![
        4 => (networks(), 0_u8..6, proptest::option::of(addresses()))
            .prop_map(|(network, number, address)| allocate(network, number, address)),
        2 => (networks(), 0_u8..6).prop_map(move |(network, number)| {
            Input::Release { network, endpoint: endpoint(number), name: name(number) }
        }),
        1 => (networks(), hosts()).prop_map(|(network, to)| Input::GiveSpace { network, range: 0, to, share: Share::Quarter }),
        2 => (networks(), hosts(), addresses())
            .prop_map(|(network, to, address)| Input::GiveAddress { network, to, address }),
        2 => (networks(), hosts(), stamps(), held()).prop_map(|(network, from, stamp, Claim { runs, borrowed })| {
            Input::Holding { network, from, stamp, runs, borrowed }
        }),
        3 => (networks(), hosts(), stamps(), statement(ME)).prop_map(|(network, from, stamp, statement)| {
            Input::Stated { network, from, stamp, statement }
        }),
        2 => (hosts(), stamps(), founders())
            .prop_map(|(from, stamp, founder)| Input::Acknowledge { from, stamp, founder }),
        1 => networks().prop_map(Input::Close),
        2 => btree_set(networks(), 0..3).prop_map(|clear| Input::Tick { clear }),
        1 => hosts().prop_map(|host| Input::Forget { hosts: [(host, Boot::default())].into(), force: true }),
        1 => (hosts(), hosts(), founders()).prop_map(|(from, host, founder)| {
            let seal_request = SealRequest { founder, boot: Boot { generation: 9, nonce: 1 }, yielded: [].into() };
            Input::Seal { from, host, seal_request }
        }),
        1 => (hosts(), founders(), hosts(), any::<bool>()).prop_map(|(from, founder, host, done)| {
            Input::Belongs { from, founder, seals: [(host, Seal { heir: from, done })].into() }
        }),
    ]
}

/// Stands for the host itself, whose identity the store makes up.
const ME: HostId = HostId::from_bytes([0; 16]);

/// The same, said to the host `me`.
fn to(me: HostId, input: Input) -> Input {
    let statement = |statement| match statement {
        Statement::Transfer { block, epoch, .. } => Statement::Transfer { block, epoch, to: me },
        Statement::Delegate { address, version, .. } => Statement::Delegate { address, version, to: me },
        returned @ Statement::Return { .. } => returned,
    };
    match input {
        Input::Stated { network, from, stamp, statement: said } => {
            Input::Stated { network, from, stamp, statement: statement(said) }
        }
        other => other,
    }
}

/// Decides, makes it durable, and only then believes it. What was written goes to the end of `log`.
fn step(store: &mut Store, ledger: &mut Ledger, log: &mut Vec<ledger::Change>, input: &Input, now: Millis) {
    let step = ledger.step(input, now);
    let writes: Vec<Change> = step.changes.iter().cloned().map(Change::Ledger).collect();
    if !writes.is_empty() {
        store.commit(&writes).expect("the disk takes it");
    }
    ledger.apply(&step.changes);
    log.extend(step.changes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_read_back_is_the_ledger_that_was_written(
        inputs in proptest::collection::vec((inputs(), 0_u64..40_000), 1..40),
        closed in any::<proptest::sample::Index>(),
    ) {
        let scratch = Scratch::new();
        let (mut store, loaded) = scratch.open().expect("a new store");
        let (mut ledger, mut replayed, mut log) = (loaded.ledger.clone(), loaded.ledger, Vec::new());
        let (me, mut now) = (ledger.me(), 1_000);
        for input in [Input::Found, Input::Create(network(1, me)), Input::Learn(network(2, HostId::from_bytes([9; 16])))] {
            step(&mut store, &mut ledger, &mut log, &input, now);
        }
        let closed = closed.index(inputs.len());
        for (number, (input, pause)) in inputs.into_iter().enumerate() {
            now += pause;
            step(&mut store, &mut ledger, &mut log, &to(me, input), now);
            if number == closed {
                drop(store);
                let again = scratch.open().expect("it was closed");
                prop_assert_eq!(&again.1.ledger, &ledger);
                store = again.0;
            }
        }
        drop(store);
        let read = scratch.open().expect("it was closed").1.ledger;
        prop_assert_eq!(&read, &ledger);
        replayed.apply(&log);
        prop_assert_eq!(&replayed, &ledger, "the changes in order are the ledger as well");
    }
}

/// A law over a ledger in which nothing happens proves nothing.
#[test]
fn the_law_is_about_every_kind_of_change() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let me = HostId::from_bytes([5; 16]);
        let (mut ledger, mut now) = (Ledger::new(me), 0);
        let inputs = proptest::collection::vec((inputs(), 0_u64..40_000), 40).new_tree(&mut runner);
        let start =
            [Input::Found, Input::Create(network(1, me)), Input::Learn(network(2, HostId::from_bytes([9; 16])))];
        let start = start.map(|input| (input, 0)).into_iter();
        for (input, pause) in start.chain(inputs.expect("some inputs").current()) {
            now += pause;
            let step = ledger.step(&to(me, input), now);
            ledger.apply(&step.changes);
            seen.extend(step.changes.iter().map(kind));
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>().join(" "), ALL);
}

/// All that a ledger writes but `Boot`, which the store has tests of its own for.
const ALL: &str = "Activation Address Bind Block Close Dealt Dequeue Enqueue Foreign Forget Founder Member Open Rested Revision Seal Tombstone \
                   Unbind Withdraw";

fn kind(change: &ledger::Change) -> String {
    format!("{change:?}").split('(').next().unwrap_or_default().to_owned()
}
