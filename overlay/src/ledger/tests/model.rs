//! The model checker of the ledger: every order in which things can happen to a few hosts, to the end.
//!
//! The hosts are the program's own [`Ledger`]s: what one decides is [`Ledger::step`], what it knows then is
//! [`Ledger::apply`], whom it asks is [`Ledger::wants`], what it says is [`Ledger::holding`]. Only the world is made up
//! here: machines that lose power, disks that are lost or put back, and a wire that keeps whatever was ever said and
//! delivers any of it at any time, any number of times, or never. So loss, delay, repetition, reordering and partitions
//! need no words of their own.
//!
//! A [`Setting`] bounds how much happens: each run is exhaustive within its setting. Time is no part of a state: whatever
//! rests has rested long enough. A request and its answer are one step, of which the answer may be lost.
//!
//! [`settings`] lists the runs: in some the protocol holds; in others a single rule is switched off, in the ledger
//! ([`SafetyRule`]) or in the world ([`Breach`]), and the checker has to find how that hurts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use crate::ledger::rules::SafetyRule;
use crate::model::id::HostId;
use crate::model::network::Network;
use actions::Action;
use pool::Pool;
use properties::{Goal, NO_ADDRESS_TWICE, NO_BLOCK_TWICE};
use world::{Host, Letter, World};

mod actions;
mod pool;
mod properties;
mod settings;
mod step;
mod world;

/// What can happen in a run, and how often.
#[derive(Debug, Clone)]
struct Setting {
    name: &'static str,
    hosts: usize,
    /// How many addresses are delegated and bound. With none, only blocks change hands.
    addresses: usize,
    /// Is the last host no member at the start?
    newcomer: bool,
    /// Hosts that have a cluster of their own: the first of them has founded it.
    apart: &'static [usize],
    check: Check,
    /// The rule of the ledger that is switched off.
    without: Option<SafetyRule>,
    /// What goes wrong around the ledger that may not.
    breach: Option<Breach>,
    /// The highest epoch of a block, and the highest count of an address within it, that is given away.
    epochs: u64,
    counts: u64,
    /// How often an agent is killed, a machine loses power, an old disk is put back, a disk is wiped.
    kills: u8,
    boots: u8,
    rolls: u8,
    wipes: u8,
    /// Which hosts may lose power, have their disk put back, be forgotten when they are off, and be heirs.
    down: &'static [usize],
    rolled: &'static [usize],
    forgets: &'static [usize],
    heirs: &'static [usize],
    /// Are answers lost also to hosts that boot or join? Those to heirs always are.
    lost_answers: bool,
    /// Do lenders hear that what they lent has arrived? All that comes of it is that they say it no more.
    hears_borrowers: bool,
    goals: Vec<Goal>,
}

/// How a host gets through its boot check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Those that can be reached are asked, and that may be any one of them.
    Reachable,
    /// All are.
    All,
    /// The operator answers for the disk.
    Trust,
}

/// What goes wrong around the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breach {
    /// Answers leave before what they say is durable.
    AnswerFirst,
    /// A wiped disk keeps its identity, and learns anew from the others.
    SameIdentity,
    /// Which endpoint has which address is not written down.
    BindingsInMemory,
    /// A host is forgotten that is not off.
    ForgetTheLiving,
    /// Hosts say of themselves what they heard of others.
    Hearsay,
}

const ALL: &[usize] = &[0, 1, 2, 3];

impl Default for Setting {
    fn default() -> Self {
        Self {
            name: "",
            hosts: 3,
            addresses: 1,
            newcomer: false,
            apart: &[],
            check: Check::Reachable,
            without: None,
            breach: None,
            epochs: 3,
            counts: 2,
            kills: 0,
            boots: 0,
            rolls: 0,
            wipes: 0,
            down: ALL,
            rolled: ALL,
            forgets: &[],
            heirs: ALL,
            lost_answers: false,
            hears_borrowers: false,
            goals: Vec::new(),
        }
    }
}

/// A setting, ready to be explored.
struct Protocol {
    setting: Setting,
    network: Network,
    /// The addresses that change hands.
    addresses: Vec<IpAddr>,
    everybody: BTreeSet<HostId>,
    hosts: Pool<Host>,
    said: Pool<BTreeSet<Letter>>,
}

impl Protocol {
    fn new(setting: Setting) -> Self {
        let network = world::network(setting.addresses);
        let first = network.blocks().next().expect("a network has a block");
        let addresses = network.assignable_in(first).take(setting.addresses).collect();
        let everybody = (0..setting.hosts).map(world::id).collect();
        Self { setting, network, addresses, everybody, hosts: Pool::default(), said: Pool::default() }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.beginning()]
    }

    fn actions(&self, world: &World, out: &mut Vec<Action>) {
        self.possible(world, out);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.after(world, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(&self.setting.goals)
    }
}

/// What has to come of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Holds,
    Breaks,
}

/// What came of a run.
struct Run {
    /// How the first law was broken that hurts, action by action.
    broken: Option<(&'static str, Vec<Action>)>,
    /// The goals that nothing led to.
    unreached: Vec<&'static str>,
}

/// Explores a setting to the end, or until a law is broken; prints a row.
fn explore(setting: &Setting, expected: Expected, threads: usize) -> Run {
    let protocol = Protocol::new(setting.clone());
    let of = |expectation: Expectation| {
        let all = protocol.properties();
        all.into_iter().filter(|p| p.expectation == expectation).map(|p| p.name).collect::<BTreeSet<_>>()
    };
    let (laws, goals) = (of(Expectation::Always), of(Expectation::Sometimes));
    let hurts = if setting.addresses == 0 { NO_BLOCK_TWICE } else { NO_ADDRESS_TWICE };
    // Without a rule other laws break before the one that hurts people.
    let laws = if expected == Expected::Breaks { BTreeSet::from([hurts]) } else { laws };
    let until = HasDiscoveries::AnyOf(laws.clone());
    let mut clock = Clock::default();
    let checker = protocol.checker().threads(threads).finish_when(until).spawn_bfs().join_and_report(&mut clock);
    let mut found = checker.discoveries();
    let broken = laws.into_iter().find_map(|law| Some((law, found.remove(law)?.into_actions())));
    let unreached: Vec<_> = goals.into_iter().filter(|goal| !found.contains_key(goal)).collect();
    let verdict = match &broken {
        Some((law, trace)) => format!("BROKEN in {} steps: {law}", trace.len()),
        None => "HOLDS".to_owned(),
    };
    println!(
        "{:<64} {:>9} unique {:>10} generated  depth {:>2} {:>6.1} s  {verdict}",
        setting.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        clock.0.as_secs_f64(),
    );
    Run { broken, unreached }
}

/// How long a run took.
#[derive(Default)]
struct Clock(Duration);

impl Reporter<Protocol> for Clock {
    fn report_checking(&mut self, data: ReportData) {
        self.0 = data.duration;
    }

    fn report_discoveries(
        &mut self,
        _: &Protocol,
        _: std::collections::BTreeMap<&'static str, ReportDiscovery<Protocol>>,
    ) {
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(20)
    }
}

/// Explores each; all have to hold and to reach their goals.
fn all_hold(settings: Vec<Setting>, threads: usize) {
    let mut failed = Vec::new();
    for setting in settings {
        let run = explore(&setting, Expected::Holds, threads);
        if let Some((law, trace)) = &run.broken {
            print(law, trace);
        }
        for goal in &run.unreached {
            println!("    not reached: {goal}");
        }
        if run.broken.is_some() || !run.unreached.is_empty() {
            failed.push(setting.name);
        }
    }
    assert!(failed.is_empty(), "not as promised: {failed:#?}");
}

/// Explores each; all have to break.
fn all_break(settings: Vec<Setting>) {
    let mut failed = Vec::new();
    for setting in settings {
        match explore(&setting, Expected::Breaks, 1).broken {
            Some((law, trace)) => print(law, &trace),
            None => failed.push(setting.name),
        }
    }
    assert!(failed.is_empty(), "these rules could be left out: {failed:#?}");
}

/// The runs that were asked for: `MODEL=D4` is one, and by default all.
fn asked(settings: Vec<Setting>) -> Vec<Setting> {
    let wanted = std::env::var("MODEL").unwrap_or_default();
    settings.into_iter().filter(|setting| setting.name.starts_with(&wanted)).collect()
}

fn print(law: &str, trace: &[Action]) {
    println!("    {law}:");
    for (number, action) in (1..).zip(trace) {
        println!("    {number:>4}. {action:?}");
    }
}

#[test]
fn the_protocol_holds_within_small_bounds() {
    all_hold(settings::small(), 1);
}

#[test]
fn without_any_of_its_rules_the_protocol_breaks() {
    all_break(settings::broken().into_iter().filter(|setting| !settings::is_large(setting)).collect());
}

/// Minutes: `cargo test --release -p overlay --lib ledger::tests::model -- --include-ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn the_protocol_holds() {
    all_hold(asked(settings::full()), 2);
}

#[test]
#[ignore = "takes half a minute"]
fn without_a_rule_that_takes_longer_the_protocol_breaks() {
    all_break(asked(settings::broken().into_iter().filter(settings::is_large).collect()));
}
