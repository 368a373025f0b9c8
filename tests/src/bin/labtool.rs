//! Small programs that the lab runs inside its hosts; some are of use by hand.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use overlay_tests::sandbox;
use overlay_tests::tool::{capture, enter, flow, host, names, sctp, stream, visit};

#[derive(Parser)]
#[command(about = "Small programs that the lab runs inside its hosts")]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Run a program in a new sandbox: own network, mounts, processes.
    Sandbox {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Be a host, until killed.
    Host {
        #[arg(long)]
        name: String,
        #[arg(long)]
        directory: PathBuf,
    },
    /// Run a program inside a host.
    Enter {
        /// Pid 1 of the host.
        #[arg(long)]
        host: i32,
        /// A network namespace inside the host.
        #[arg(long)]
        netns: Option<PathBuf>,
        /// The file to show as /etc/resolv.conf.
        #[arg(long)]
        resolv_conf: Option<PathBuf>,
        /// Where to write the program's pid.
        #[arg(long)]
        pid_file: Option<PathBuf>,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Send back every UDP packet.
    Echo { port: u16 },
    /// Send numbered UDP packets until stdin ends, then say how many were lost.
    Flow {
        to: SocketAddr,
        /// Packets a second.
        #[arg(long, default_value_t = 1000)]
        rate: u32,
    },
    /// Send back all that comes on a TCP connection.
    StreamServe { port: u16 },
    /// Keep one TCP connection busy until stdin ends, then say how long it ever stood still.
    StreamDial {
        to: SocketAddr,
        /// The connection counts as lost if it stands still for longer, in seconds.
        #[arg(long, default_value_t = 30)]
        patience: u64,
    },
    /// Record what comes in on an interface until stdin ends.
    Capture { interface: String, file: PathBuf },
    /// Tell each client by TCP and UDP who answers, and the address that it is seen at.
    Doorman { name: String, port: u16 },
    /// Tell the same to each who opens an association by SCTP.
    SctpDoorman { name: String, port: u16 },
    /// Ask a doorman.
    Visit {
        protocol: String,
        to: SocketAddr,
        /// The UDP port to ask from.
        #[arg(long, default_value_t = 0)]
        from: u16,
        /// How long to wait, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        patience: u64,
    },
    /// A nameserver with one answer.
    Names {
        listen: Ipv4Addr,
        answer: Ipv4Addr,
        #[arg(long, value_enum, default_value_t = names::Manner::Plain)]
        manner: names::Manner,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().tool {
        Tool::Sandbox { command } => {
            sandbox::enter()?;
            let [program, arguments @ ..] = command.as_slice() else { anyhow::bail!("no program given") };
            let e = Command::new(program).args(arguments).exec();
            Err(e).with_context(|| format!("cannot run {}", program.display()))
        }
        Tool::Host { name, directory } => host::main(&name, &directory),
        Tool::Enter { host, netns, resolv_conf, pid_file, command } => {
            enter::main(enter::Enter { host, netns, resolv_conf, pid_file, command })
        }
        Tool::Doorman { name, port } => visit::doorman(&name, port),
        Tool::SctpDoorman { name, port } => sctp::doorman(&name, port),
        Tool::Visit { protocol, to, from, patience } => {
            println!("{}", visit::visit(&protocol, to, from, Duration::from_millis(patience))?);
            Ok(())
        }
        Tool::Echo { port } => flow::echo(port),
        Tool::Flow { to, rate } => print(&flow::send(to, rate)?),
        Tool::StreamServe { port } => stream::serve(port),
        Tool::StreamDial { to, patience } => print(&stream::dial(to, Duration::from_secs(patience))?),
        Tool::Capture { interface, file } => print(&capture::main(&interface, &file)?),
        Tool::Names { listen, answer, manner } => names::main(listen, answer, manner),
    }
}

fn print(report: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
