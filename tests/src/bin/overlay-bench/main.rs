//! The benchmarks: what the overlay costs beside the bare underlay, and how long things take.
//!
//! Three hosts of the lab, real agents, containers on them. Owns what is measured and how; no test passes or fails by
//! it. What can be measured on the underlay too is measured on both in turns, in random order.

#![forbid(unsafe_code)]

mod attach;
mod crash;
mod ctl;
mod dice;
mod echo;
mod figure;
mod growth;
mod idle;
mod machine;
mod names;
mod netns;
mod redis;
mod rounds;
mod rows;
mod throughput;

use std::time::Instant;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use overlay_tests::lab::{Lab, tails};
use overlay_tests::sandbox;

use dice::{Dice, fresh_seed};
use figure::{Figure, table};
use rounds::Path;

/// Measures the overlay network on three hosts made of namespaces, and prints a table in Markdown
#[derive(Parser)]
#[command(name = "bench.sh", version)]
struct Cli {
    /// What to measure [default: all but growth]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How many times to measure what takes turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The order of the turns, to have it again [default: a new one]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// TCP between two hosts, by iperf3: underlay and overlay
    Throughput,
    /// Redis GET between two hosts, by redis-benchmark: underlay and overlay
    Redis,
    /// Questions to the name server of a network
    Dns,
    /// From `network connect` to its return, to the first ping reply, and to the FDB row on another host
    #[value(alias = "convergence")]
    Attach,
    /// From the crash of a host to its names and rows withdrawn
    Crash,
    /// Processor and memory of an agent at rest
    Idle,
    /// Connects, disconnects and changes elsewhere beside 1,000 endpoints, and beside 100 networks (5 minutes)
    Growth,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    sandbox::enter()?;
    let start = Instant::now();
    let facts = machine::facts();
    let seed = cli.seed.unwrap_or_else(fresh_seed);
    eprintln!("{facts}; seed {seed}");
    let figures =
        measure(&cli, seed).inspect_err(|_| eprintln!("{}", tails())).with_context(|| format!("seed {seed}"))?;
    println!("{facts}.");
    println!("`./tests/bench.sh --seed {seed} --rounds {}`, {} s.\n", cli.rounds, start.elapsed().as_secs());
    print!("{}", table(&figures));
    Ok(())
}

fn measure(cli: &Cli, seed: u64) -> anyhow::Result<Vec<Figure>> {
    let wanted = |part: Part| cli.parts.is_empty() || cli.parts.contains(&part);
    let mut dice = Dice::new(seed);
    let mut lab = Lab::with_agents(3)?;
    let mut figures = Vec::new();

    // First, while there is nothing else that an agent could have to do or to remember.
    let idle = if wanted(Part::Idle) { idle::measure(&lab)? } else { Vec::new() };

    let mut lanes = Vec::new();
    if wanted(Part::Throughput) || wanted(Part::Redis) {
        let paths = Path::both(&lab)?;
        if wanted(Part::Throughput) {
            lanes.extend(throughput::lanes(&paths)?);
        }
        if wanted(Part::Redis) {
            lanes.extend(redis::lanes(&paths)?);
        }
    }
    if wanted(Part::Dns) {
        lanes.push(names::lane(&lab)?);
    }
    rounds::run(&mut lanes, cli.rounds, &mut dice)?;
    // With its lane goes the server.
    figures.extend(lanes.into_iter().map(|lane| lane.figure));

    if wanted(Part::Attach) {
        figures.extend(attach::measure(&lab, &mut dice)?);
    }
    if wanted(Part::Crash) {
        figures.extend(crash::measure(&mut lab)?);
    }
    figures.extend(idle);
    drop(lab);
    if cli.parts.contains(&Part::Growth) {
        figures.extend(growth::measure()?);
    }
    Ok(figures)
}
