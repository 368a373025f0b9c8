//! The simulation: many hosts in one process on virtual time, with the program's own ledgers, records, view, plan and a
//! fake kernel each, over a network that loses, delays, repeats and cuts. After each operation an oracle that sees all
//! of them at once looks whether an address is used twice; in the end all is healed, and all hosts must see the same.
//!
//! `OVERLAY_SEED` repeats one seed exactly, `OVERLAY_SEEDS` and `OVERLAY_OPS` say how many seeds and operations there are:
//!
//! ```text
//! OVERLAY_SEEDS=1000 OVERLAY_OPS=1000000 cargo test --release -p overlay-tests --test simulation -- --nocapture
//! ```

#![forbid(unsafe_code)]

use std::time::Instant;

mod agent;
mod calls;
mod disks;
mod gossip;
mod host;
mod ops;
mod oracle;
mod replay;
mod scenes;
mod size;
mod world;

use world::{Tally, World};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// After so many operations all is healed, whoever is gone is forgotten, and all have to see the same. Else the hosts of a long
/// life would end as newcomers that nobody can let in.
const ORDER: u64 = 500;

/// The operations of one seed, and what was seen.
fn run(seed: u64, ops: u64) -> Tally {
    let size = [3, 4, 5, 8, 12][usize::try_from(seed % 5).expect("small")];
    // Of three one has two clusters in it, and of four one asks all members at a boot.
    let mut world = if seed % 3 == 2 && size > 3 { World::apart(seed, size) } else { World::new(seed, size) };
    world.is_strict = seed % 4 == 1;
    world.run(5_000);
    for number in 1..=ops {
        world.op();
        world.check();
        // Now and then somebody puts all in order.
        if number % ORDER == 0 {
            world.settle();
            world.insists = false;
        }
    }
    world.settle();
    world.note_clusters();
    world.seen
}

#[test]
fn no_address_is_ever_used_twice() {
    let (seeds, ops) = (number("OVERLAY_SEEDS").unwrap_or(20), number("OVERLAY_OPS").unwrap_or(50_000));
    let first = number("OVERLAY_SEED");
    let seeds: Vec<u64> = first.map_or_else(|| (0..seeds).collect(), |seed| vec![seed]);
    let each = ops / number("OVERLAY_SEEDS").unwrap_or(20);
    let start = Instant::now();
    let mut all = Tally::default();
    for seed in &seeds {
        println!("seed {seed}: OVERLAY_SEED={seed} OVERLAY_SEEDS=1 OVERLAY_OPS={each} repeats it");
        for (what, count) in run(*seed, each).0 {
            *all.0.entry(what).or_default() += count;
        }
    }
    println!("{} seeds, {each} operations each, {:.1} s: {all:?}", seeds.len(), start.elapsed().as_secs_f64());
    for what in [
        "attached",
        "fenced: forgotten",
        "fenced: restored",
        "fenced: unjoined",
        "killed at a write",
        "disk wiped",
        "old disk put back",
        "machine copied",
        "forget",
        "cut",
        "network created",
        "network refused",
        "network deleted",
        "network kept",
        "container ended: endpoint released",
        "denied: unreachable",
        "denied: full",
        "two clusters to the end",
        "taken for a member, and of another cluster",
    ] {
        assert!(first.is_some() || all.0.contains_key(what), "a run without `{what}` shows nothing about it");
    }
}
