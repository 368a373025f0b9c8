//! A seed is a run: whatever it shows can be looked at again.

use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::World;

struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.hash(&mut self.0);
        Ok(())
    }
}

impl Digest {
    fn of(value: &impl Debug) -> u64 {
        let mut digest = Self(DefaultHasher::new());
        write!(digest, "{value:?}").expect("a digest takes all");
        digest.0.finish()
    }
}

impl World {
    /// All that came of all, and all that there is now: equal only if nothing went differently. By part, so that a
    /// difference says where it is.
    pub fn digest(&self) -> [(&'static str, u64); 5] {
        let ledgers: Vec<_> = self.hosts.iter().map(|host| (host.ledger(), host.intents())).collect();
        let views: Vec<_> = self.hosts.iter().map(|host| (&host.cluster, host.own.age())).collect();
        let kernels: Vec<_> = self.hosts.iter().map(|host| (host.kernel.state(), host.kernel.applied())).collect();
        [
            ("outcomes", Digest::of(&(&self.log, &self.seen))),
            ("ledgers", Digest::of(&ledgers)),
            ("views", Digest::of(&views)),
            ("kernels", Digest::of(&kernels)),
            ("chance", Digest::of(&(self.now, self.rng.get_seed()))),
        ]
    }
}

fn digest_of(seed: u64, ops: u64) -> [(&'static str, u64); 5] {
    let mut world = World::new(seed, 5);
    world.run(5_000);
    for _ in 0..ops {
        world.op();
    }
    world.digest()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        println!("seed {seed}");
        assert_eq!(digest_of(seed, 2_000), digest_of(seed, 2_000));
    }
}

#[test]
fn a_run_that_differs_in_one_operation_has_another_digest() {
    assert_ne!(digest_of(0, 500), digest_of(0, 501));
    assert_ne!(digest_of(0, 500), digest_of(1, 500));
}
