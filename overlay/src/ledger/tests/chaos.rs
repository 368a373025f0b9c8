//! Anything happens, in any order: the oracle of [`World`] looks on, and in the end nothing may have leaked.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::world::{Body, Letter, Luck, World, id_of};
use super::*;

const SUBNET: &str = "10.0.0.0/27";
const MEMBERS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Attach { member: usize, endpoint: u8, name: u8, address: Option<Index>, cut_off: bool, asked: bool, luck: Luck },
    Detach { member: usize, endpoint: u8, name: u8, luck: Luck },
    Endow { from: usize, to: usize },
    Deliver { letter: Index, again: bool, luck: Luck },
    Lose { letter: Index },
    Gossip { member: usize },
    Wait { seconds: u64 },
    Tick { member: usize, luck: Luck },
    Restart { member: usize },
    Reboot { member: usize },
    Close { member: usize },
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![8 => Just(Luck::Good), 1 => Just(Luck::NothingWritten), 1 => Just(Luck::NothingSent)]
}

fn op() -> impl Strategy<Value = Op> {
    let member = || 0..MEMBERS;
    let address = prop::option::of(any::<Index>());
    prop_oneof![
        12 => (member(), 0_u8..6, 0_u8..4, address, prop::bool::weighted(0.1), any::<bool>(), luck()).prop_map(
            |(member, endpoint, name, address, cut_off, asked, luck)| Op::Attach {
                member, endpoint, name, address, cut_off, asked, luck
            }
        ),
        8 => (member(), 0_u8..6, 0_u8..4, luck())
            .prop_map(|(member, endpoint, name, luck)| Op::Detach { member, endpoint, name, luck }),
        1 => (member(), member()).prop_map(|(from, to)| Op::Endow { from, to }),
        24 => (any::<Index>(), prop::bool::weighted(0.3), luck())
            .prop_map(|(letter, again, luck)| Op::Deliver { letter, again, luck }),
        3 => any::<Index>().prop_map(|letter| Op::Lose { letter }),
        3 => member().prop_map(|member| Op::Gossip { member }),
        4 => (1_u64..90).prop_map(|seconds| Op::Wait { seconds }),
        4 => (member(), luck()).prop_map(|(member, luck)| Op::Tick { member, luck }),
        1 => member().prop_map(|member| Op::Restart { member }),
        1 => member().prop_map(|member| Op::Reboot { member }),
    ]
}

impl World {
    fn run(&mut self, op: &Op) {
        let network = self.network.id;
        let named = |n: u8| name(&format!("web{n}"));
        let own = |member: usize, e: u8| endpoint(16 * u8::try_from(member).expect("a small world") + e);
        match *op {
            Op::Attach { member, endpoint, name, ref address, cut_off, asked, luck } => {
                let reachable = if cut_off { BTreeSet::new() } else { self.others(member) };
                let space = reachable.iter().map(|of| Ask::Space { of: *of, range: 0 });
                let asked = if asked { space.collect() } else { BTreeSet::new() };
                let address = address.as_ref().map(|a| *a.get(&assignable(&self.network)));
                let (endpoint, name) = (own(member, endpoint), named(name));
                self.allocate(
                    member,
                    &AddressRequest { network, endpoint, name, range: 0, address, reachable, asked },
                    luck,
                );
            }
            Op::Detach { member, endpoint, name, luck } => {
                self.release(member, own(member, endpoint), &named(name), luck);
            }
            Op::Endow { from, to } => {
                self.send(to, id_of(from), Body::AskSpace(Share::Half));
            }
            Op::Deliver { ref letter, again, luck } if !self.wire.is_empty() => {
                let at = letter.index(self.wire.len());
                let letter = if again { self.wire[at].clone() } else { self.wire.swap_remove(at) };
                self.deliver(letter, luck);
            }
            Op::Lose { ref letter } if !self.wire.is_empty() => {
                drop(self.wire.swap_remove(letter.index(self.wire.len())));
            }
            Op::Deliver { .. } | Op::Lose { .. } => {}
            Op::Gossip { member } => self.gossip(member),
            Op::Wait { seconds } => self.wait(1000 * seconds),
            Op::Tick { member, luck } => {
                let passed = Input::tick(self.ledger(member));
                self.step(member, &passed, luck);
            }
            Op::Restart { member } => self.restart(member),
            Op::Reboot { member } => self.reboot(member),
            Op::Close { member } => drop(self.step(member, &Input::Close(network), Luck::Good)),
        }
    }

    /// Every address can be had: by number from anywhere, and all of them by one host that asks for any.
    fn use_it_up(&mut self) {
        for (n, address) in assignable(&self.network).into_iter().enumerate() {
            let member = n % self.size();
            let outcome =
                self.attach(member, endpoint(u8::try_from(n).expect("a small network")), "all", Some(address));
            assert!(matches!(outcome, Outcome::Granted { address: a, .. } if a == address), "{address}: {outcome:?}");
        }
        self.settle();
        for n in 0..assignable(&self.network).len() {
            let outcome = self.attach(1, endpoint(u8::try_from(n).expect("a small network")), "all", None);
            assert!(matches!(outcome, Outcome::Granted { .. }), "address {n}: {outcome:?}");
        }
        let outcome = self.attach(1, endpoint(255), "all", None);
        assert!(matches!(outcome, Outcome::Denied(Denial::Full { .. })), "{outcome:?}");
    }
}

fn config(cases: u32) -> Config {
    Config { cases, max_shrink_iters: 20_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn nothing_is_given_twice_and_nothing_leaks(ops in prop::collection::vec(op(), 1..250)) {
        let mut world = World::new(MEMBERS, SUBNET);
        for op in &ops {
            world.run(op);
        }
        world.wire.clear();
        for n in 0..world.size() {
            world.restart(n);
        }
        world.settle();
        world.use_it_up();
    }

    #[test]
    fn a_network_that_some_have_closed_is_still_safe(
        ops in prop::collection::vec(prop_oneof![20 => op(), 1 => (0..MEMBERS).prop_map(|member| Op::Close { member })], 1..120),
    ) {
        let mut world = World::new(MEMBERS, SUBNET);
        for op in &ops {
            world.run(op);
        }
    }

    #[test]
    fn what_was_taken_once_changes_nothing_when_it_comes_again(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(MEMBERS, SUBNET);
        let mut old: Vec<Letter> = Vec::new();
        for op in &ops {
            world.run(op);
            old.extend(world.wire.iter().filter(|l| matches!(l.body, Body::Stated(_) | Body::Holding(..))).cloned());
        }
        world.wire.clear();
        world.talk();
        for letter in old {
            let (to, before) = (letter.to, world.ledger(letter.to).clone());
            world.deliver(letter.clone(), Luck::Good);
            prop_assert_eq!(world.ledger(to), &before, "{:?} is old and changed something", letter);
        }
    }
}

/// Laws that hold because nothing happens prove nothing.
#[test]
fn the_chaos_reaches_all_that_it_is_about() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut elsewhere = 0;
    for _ in 0..30 {
        let ops = prop::collection::vec(op(), 200..250).new_tree(&mut runner).expect("a list of operations");
        let mut world = World::new(MEMBERS, SUBNET);
        for op in ops.current() {
            world.run(&op);
        }
        world.seen.iter().for_each(|(kind, count)| *seen.entry(kind).or_default() += count);
        elsewhere += (1..MEMBERS).filter_map(|n| world.account(n)).map(|a| a.bound.len()).sum::<usize>();
        assert_eq!(world.ledger(0).me(), id_of(0));
    }
    let rare: Vec<_> = seen.iter().filter(|(kind, count)| **kind != "open" && **count < 5).collect();
    assert!(seen.len() >= 12 && rare.is_empty() && elsewhere > 30, "{seen:?}, {elsewhere} in use on other hosts");
}
