//! overlayctl: the admin CLI of the overlay network. One file a noun; data goes to stdout, talk to stderr; it exits with
//! 0 if all is well, 1 if something failed, and 2 if it was called the wrong way.

#![deny(unsafe_code)]
// A new case of an enum must be looked at wherever the enum is matched.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod client;
mod cluster;
mod endpoint;
mod fdb;
mod filter;
mod host;
mod inspect;
mod kernel;
mod lease;
mod link;
mod network;
mod output;
mod run;
mod sandbox;
mod signals;
mod status;

use client::Client;
use output::{Failure, Format};

/// Administers the overlay network through the overlayd of this host
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    /// The run directory of the overlayd to talk to
    #[arg(long, env = "OVERLAYD_RUN_DIR", value_name = "DIR", default_value = "/run/overlayd", global = true)]
    run_dir: PathBuf,
    /// How to print [default: table; `inspect` json]
    #[arg(short, long, value_enum, global = true)]
    output: Option<Format>,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Is everything as it should be?
    Status,
    /// The cluster's secret
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// The hosts of the cluster
    #[command(subcommand)]
    Host(host::Verb),
    /// Networks, and who is in them
    #[command(subcommand)]
    Network(network::Verb),
    /// The endpoints of all hosts
    #[command(subcommand)]
    Endpoint(endpoint::Verb),
    /// Which containers reach each other, in networks where not all do
    #[command(subcommand)]
    Link(link::Verb),
    /// Who may use which addresses
    #[command(subcommand)]
    Lease(lease::Verb),
    /// Where a network's MACs are, and whether the kernel knows
    Fdb {
        /// Name or id of the network
        network: String,
    },
    /// Run a command in a network namespace of its own, with one interface in a network
    Run(run::Arguments),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The inner half of `run`
    #[command(hide = true, name = sandbox::NAME)]
    Sandbox(sandbox::Arguments),
}

#[cfg_attr(not(test), expect(clippy::wildcard_enum_match_arm, reason = "all other nouns are asked of the daemon"))]
fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::misuse(&error),
    };
    let result = match cli.noun {
        Noun::Sandbox(arguments) => sandbox::enter(&arguments, &cli.run_dir),
        Noun::Completions { shell } => completions(shell).map(|()| ExitCode::SUCCESS),
        noun => with_daemon(noun, &Client::new(&cli.run_dir), cli.output),
    };
    result.unwrap_or_else(|failure| failure.report())
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "overlayctl", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

fn with_daemon(noun: Noun, client: &Client, output: Option<Format>) -> Result<ExitCode, Failure> {
    // One thread: what `run` starts must not outlive it, and the kernel watches the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed(format!("can't start: {e}")))?;
    let format = output.unwrap_or(Format::Table);
    runtime.block_on(async {
        match noun {
            Noun::Status => status::run(client, format).await?,
            Noun::Cluster(verb) => cluster::run(&verb, client, format).await?,
            Noun::Host(verb) => host::run(&verb, client, format).await?,
            Noun::Network(verb) => network::run(verb, client, output).await?,
            Noun::Endpoint(verb) => endpoint::run(verb, client, format).await?,
            Noun::Link(verb) => link::run(verb, client, format).await?,
            Noun::Lease(verb) => lease::run(&verb, client, format).await?,
            Noun::Fdb { network } => fdb::run(network, client, format).await?,
            Noun::Run(arguments) => return run::run(arguments, client).await,
            Noun::Sandbox(_) | Noun::Completions { .. } => unreachable!("these need no daemon"),
        }
        Ok(ExitCode::SUCCESS)
    })
}
