//! Many hosts: that what holds for a dozen holds for a thousand, and ends.
//!
//! ```text
//! OVERLAY_HOSTS=1000 cargo test --profile lab -p overlay-tests --test simulation -- --ignored --nocapture
//! ```

use std::time::Instant;

use overlay::id::NetworkId;

use crate::gossip::INTERVAL;
use crate::host::Power;
use crate::number;
use crate::world::World;

/// Of so many at once the machines are switched on, and then it is waited until they are members.
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
        on().all(|host| host.ledger.is_established() && host.ledger.membership().others().count() == others)
    }

    fn attach_some(&mut self, count: usize, network: NetworkId) {
        for _ in 0..count {
            let index = self.rng.usize(0..self.hosts.len());
            self.begin_attach(index, network, None);
            let pause = self.rng.u64(0..40);
            self.run(pause);
        }
    }

    fn detach_some(&mut self, count: usize) {
        for _ in 0..count {
            let all: Vec<_> = self.live.values().copied().collect();
            let Some((index, endpoint)) = self.rng.choice(all) else { return };
            self.detach(index, endpoint);
            let pause = self.rng.u64(0..40);
            self.run(pause);
        }
    }
}

/// They join, share a network, are cut in two, heal, and all see the same.
fn a_cluster_of(hosts: usize, seed: u64) {
    println!("seed {seed}, {hosts} hosts");
    // Word takes longer to get round, the more there are.
    let bound = 10 * INTERVAL + 2 * INTERVAL * u64::from(hosts.ilog2());
    let mut world = World::dark(seed, hosts);
    world.calm = true;
    let mut clock = Clock::new(&world);
    world.power_on(0);
    world.found();
    for wave in (1..hosts).collect::<Vec<_>>().chunks(WAVE) {
        wave.iter().for_each(|index| world.power_on(*index));
        world.until(60_000, "all are members", World::are_members);
    }
    clock.tell(&world, "all are members");
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
#[ignore = "takes minutes: OVERLAY_HOSTS=1000 with --profile lab"]
fn as_many_hosts_as_wanted_are_one_cluster() {
    let hosts = number("OVERLAY_HOSTS").unwrap_or(1_000).try_into().expect("as many as memory holds");
    a_cluster_of(hosts, number("OVERLAY_SEED").unwrap_or(0));
}
