//! overlayd: the agent of the overlay network. Flags, configuration, logging; then [`overlay_agent::run`].

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use overlay_agent::config::Options;
use tracing_subscriber::EnvFilter;

/// Connects the containers of this host with those of others: run one on every host
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Says what the flags leave unsaid [default: /etc/overlayd/config.toml, if it is there]
    #[arg(long, env = "OVERLAYD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_env("OVERLAYD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn,chitchat=error"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    match start(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlayd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<()> {
    let config = flags.options.or_file(flags.config.as_deref())?.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(overlay_agent::run::run(config))?)
}
