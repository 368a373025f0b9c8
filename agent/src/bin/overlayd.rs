//! overlayd: the agent of the overlay network. Flags, configuration, logging; then [`overlay_agent::run`].

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use overlay_agent::config::Options;
use tracing_subscriber::EnvFilter;

/// Connects the containers of this host with those of others: run one on every host
#[derive(Debug, Parser)]
#[command(name = "overlayd", version)]
struct Flags {
    /// Says what the flags leave unsaid [default: /etc/overlayd/config.toml, if it is there]
    #[arg(long, env = "OVERLAYD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return misuse(&error),
    };
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

/// What clap has to say: help as it is, an error as one line.
fn misuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody left to tell is no reason to panic.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let said = text.trim_start_matches("error:").lines().map(str::trim).take_while(|line| !line.is_empty());
    eprintln!("overlayd: {}; see `overlayd --help`", said.collect::<Vec<_>>().join(" "));
    ExitCode::from(2)
}

fn start(flags: Flags) -> anyhow::Result<()> {
    let config = flags.options.or_file(flags.config.as_deref())?.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(overlay_agent::run::run(config))?)
}
