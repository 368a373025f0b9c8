//! Many hosts: that what holds for a dozen holds for a thousand, and ends.
//!
//! ```text
//! OVERLAY_HOSTS=1000 cargo test --release -p overlay-tests --test simulation size::as_many -- --ignored --nocapture
//! ```
//!
//! A thousand took 11 minutes of processor time on a busy machine, and 3.7 GB or more.

use std::time::Instant;

use overlay::ledger::Outcome;
use overlay::model::id::{HostId, NetworkId};

use crate::gossip::INTERVAL;
use crate::host::Power;
use crate::number;
use crate::world::World;

/// At least of so many at once the machines are switched on, then of as many as there are, and each time it is waited until
/// they are members.
const WAVE: usize = 50;

/// Says how long each part took, in virtual and in real time.
struct Clock {
    start: Instant,
    last: (Instant, u64),
}

impl Clock {
    fn new(world: &World) -> Self {
        let now = Instant::now();
        Self { start: now, last: (now, world.now) }
    }

    fn tell(&mut self, world: &World, what: &str) {
        let (real, simulated) = (self.last.0.elapsed().as_secs_f64(), world.now - self.last.1);
        println!("{what}: {simulated} ms in {real:.1} s, {:.1} s so far", self.start.elapsed().as_secs_f64());
        self.last = (Instant::now(), world.now);
    }
}

impl World {
    fn are_members(&self) -> bool {
        let on = || self.hosts.iter().filter(|host| host.power == Power::On);
        let others = on().count() - 1;
        on().all(|host| host.ledger().is_established() && host.ledger().membership().others().count() == others)
    }

    fn attach_some(&mut self, count: usize, network: NetworkId) {
        for _ in 0..count {
            let index = self.rng.usize(0..self.hosts.len());
            self.begin_attach(index, network, None);
            let pause = self.rng.u64(0..40);
            self.run(pause);
            self.check();
        }
    }

    /// Some lose power for good and some lose their agents; those come back as they were, and these are forgotten, and come
    /// back as new hosts.
    fn crash_some(&mut self, crashed: usize, killed: usize) {
        let others = 1..self.hosts.len();
        let some = self.rng.choose_multiple(others, crashed + killed);
        let (crashed, killed) = some.split_at(crashed);
        killed.iter().for_each(|index| self.kill_agent(*index));
        for index in crashed {
            self.power_off(*index);
            self.check();
        }
        self.run(5_000);
        for index in killed {
            self.start_agent(*index);
            self.check();
        }
        let gone: Vec<HostId> = crashed.iter().map(|index| self.hosts[*index].id).collect();
        assert_eq!(self.forget(0, &gone), Outcome::Done, "they are off");
        self.until(60_000, "all that crashed are forgotten", |world| {
            world.check();
            world.hosts[0].ledger().membership().forgets.is_empty()
        });
        for index in crashed {
            self.power_on(*index);
            self.check();
        }
        self.until(60_000, "they are back as new hosts", |world| {
            world.check();
            crashed.iter().zip(&gone).all(|(index, old)| world.hosts[*index].id != *old) && world.are_members()
        });
    }

    fn detach_some(&mut self, count: usize) {
        for _ in 0..count {
            let all: Vec<_> = self.live.values().copied().collect();
            let Some((index, endpoint)) = self.rng.choice(all) else { return };
            self.detach(index, endpoint);
            let pause = self.rng.u64(0..40);
            self.run(pause);
            self.check();
        }
    }
}

/// They join, share a network, are cut in two, heal, and all see the same; so they do when some crash for good and are
/// forgotten. After each operation nothing is doubled.
fn a_cluster_of(hosts: usize, seed: u64) {
    println!("seed {seed}, {hosts} hosts");
    // Word takes longer to get round, the more there are.
    let bound = 10 * INTERVAL + 2 * INTERVAL * u64::from(hosts.ilog2());
    let mut world = World::dark(seed, hosts);
    let mut clock = Clock::new(&world);
    world.power_on(0);
    world.found(0);
    let mut on = 1;
    while on < hosts {
        let wave = on..hosts.min(on + on.max(WAVE));
        on = wave.end;
        wave.for_each(|index| world.power_on(index));
        world.until(60_000, "all are members", World::are_members);
        clock.tell(&world, &format!("{on} are members"));
    }
    let network = world.create("10.0.0.0/16");
    world.run(bound);
    world.attach_some(hosts / 2, network);
    let took = world.until(60_000, "all see all", World::is_agreed);
    clock.tell(&world, &format!("{} endpoints, seen by all {took} ms after the last", world.live.len()));
    world.check();

    for (index, part) in world.part.iter_mut().enumerate() {
        *part = u8::from(index % 3 == 0);
    }
    world.attach_some(hosts / 10, network);
    world.detach_some(hosts / 10);
    world.run(10_000);
    world.check();
    clock.tell(&world, "cut in two, more of them came and went");
    world.part.fill(0);
    let took = world.until(2 * bound, "after the heal all see the same", World::is_agreed);
    clock.tell(&world, &format!("agreed {took} ms after the heal"));

    world.crash_some(hosts / 100 + 1, hosts / 50 + 1);
    clock.tell(&world, "some crashed, were forgotten and came back as new hosts");
    world.attach_some(hosts / 10, network);
    let took = world.until(2 * bound, "with those that came back all see the same", World::is_agreed);
    clock.tell(&world, &format!("agreed {took} ms after the last attach"));
    let denied = world.log.iter().filter(|(.., result)| result.is_err()).count();
    println!("{} endpoints, {denied} attaches refused, {:?}", world.live.len(), world.seen);
    assert!(denied < hosts / 10, "there is space for all");
    world.check();
}

#[test]
fn sixty_hosts_are_one_cluster() {
    a_cluster_of(60, 0);
}

#[test]
#[ignore = "a thousand hosts take 11 minutes of processor time with --release"]
fn as_many_hosts_as_wanted_are_one_cluster() {
    let hosts = number("OVERLAY_HOSTS").unwrap_or(1_000).try_into().expect("as many as memory holds");
    a_cluster_of(hosts, number("OVERLAY_SEED").unwrap_or(0));
}
