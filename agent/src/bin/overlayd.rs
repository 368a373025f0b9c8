//! overlayd: the agent of the overlay network. Flags, configuration, logging; then [`overlay_agent::run`].

#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ContextKind;
use overlay_agent::config::Options;
use overlay_agent::run::Ended;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged, in the words of `tracing_subscriber::EnvFilter`.
const LOG: &str = "OVERLAYD_LOG";

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
    let filter = match log_filter() {
        Ok(filter) => filter,
        Err((said, error)) => {
            eprintln!(
                "overlayd: {LOG} `{said}`: {error}; give a level like `debug`, or several like `info,overlay=debug`"
            );
            return ExitCode::from(2);
        }
    };
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    match start(flags) {
        Ok(Ended::Told) => ExitCode::SUCCESS,
        Ok(Ended::Fenced) => again(),
        Err(error) => {
            eprintln!("overlayd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to log, as the environment has it; or what it has, and what is wrong with that.
fn log_filter() -> Result<EnvFilter, (String, ParseError)> {
    match std::env::var(LOG) {
        Ok(said) if !said.is_empty() => EnvFilter::try_new(&said).map_err(|error| (said, error)),
        Ok(_) | Err(_) => Ok(EnvFilter::new("info,hickory_server=warn,chitchat=error")),
    }
}

/// The environment variable that a wrong value comes from; none if it comes from a flag.
fn variable(error: &clap::Error) -> Option<String> {
    let (flag, value) = (error.get(ContextKind::InvalidArg)?, error.get(ContextKind::InvalidValue)?.to_string());
    let flag = flag.to_string();
    let flag = flag.split_whitespace().next()?.trim_start_matches("--");
    let given = std::env::args().any(|a| a.strip_prefix("--").is_some_and(|a| a.split('=').next() == Some(flag)));
    let variable = format!("OVERLAYD_{}", flag.replace('-', "_").to_uppercase());
    (!given && std::env::var(&variable).is_ok_and(|set| set == value)).then_some(variable)
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
    let source = variable(error).map_or_else(String::new, |variable| format!("{variable}: "));
    eprintln!("overlayd: {source}{}; see `overlayd --help`", said.collect::<Vec<_>>().join(" "));
    ExitCode::from(2)
}

fn start(flags: Flags) -> anyhow::Result<Ended> {
    let config = flags.options.or_file(flags.config.as_deref())?.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(overlay_agent::run::run(config))?)
}

/// Replaces this program by a new run of it: no state in memory survives, and the process id stays the same.
fn again() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let error = std::process::Command::new("/proc/self/exe").arg0(program).args(arguments).exec();
    eprintln!("overlayd: can't start again under a new identity: {error}; start it by hand");
    ExitCode::FAILURE
}
