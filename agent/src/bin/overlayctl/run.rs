//! `overlayctl run`: a command in a network namespace of its own, attached to a network for as long as it runs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overlay_proto::v1::{ConnectRequest, DisconnectRequest, EndpointInfo};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::output::Failure;
use crate::sandbox;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or id of the network
    #[arg(long)]
    network: String,
    /// What it is to be called: one DNS label
    #[arg(long)]
    name: String,
    /// The address that it must have [default: any free one]
    #[arg(long)]
    ip: Option<String>,
    /// A further name, which it may share with others; may be given several times
    #[arg(long)]
    alias: Vec<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub async fn run(arguments: Arguments, client: &Client) -> Result<ExitCode, Failure> {
    let mut daemon = client.connect().await?;
    // Caught from here on: the command decides what a signal means, and the endpoint goes in any case.
    let mut signals = Signals::catch()?;
    let mut sandbox = Sandbox::start(&arguments.command, client)?;
    let request = ConnectRequest {
        network: arguments.network,
        netns: format!("/proc/{}/ns/net", sandbox.child.id()),
        name: arguments.name,
        ip: arguments.ip.unwrap_or_default(),
        mac: String::new(),
        aliases: arguments.alias,
        ifname: "eth0".to_owned(),
    };
    let info = match daemon.connect_endpoint(request).await {
        Ok(info) => info.into_inner(),
        Err(status) => {
            sandbox.abandon();
            return Err(status.into());
        }
    };
    let ended = match sandbox.go(&info) {
        Ok(()) => signals.forward_until_end(&mut sandbox.child).await,
        Err(failure) => {
            sandbox.abandon();
            Err(failure)
        }
    };
    let request = DisconnectRequest { network: info.network, name: info.name };
    match daemon.disconnect_endpoint(request).await {
        Ok(_) => {}
        // The daemon has noticed by itself that the namespace is gone.
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(status) => eprintln!("overlayctl: the endpoint is still there: {}", status.message()),
    }
    ended.map(exit_code)
}

/// As shells have it: the command's own status, or 128 and the signal that ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The inner half, waiting in its namespaces.
struct Sandbox {
    child: Child,
    go: Option<File>,
}

impl Sandbox {
    fn start(command: &[String], client: &Client) -> Result<Self, Failure> {
        let failed = |what: &str, e: &dyn std::fmt::Display| Failure::failed(format!("can't {what}: {e}"));
        let pipe = || nix::unistd::pipe().map_err(|e| failed("make a pipe", &e));
        let (ready, ready_writer): (OwnedFd, OwnedFd) = pipe()?;
        let (go_reader, go): (OwnedFd, OwnedFd) = pipe()?;
        let mut inner = Command::new("/proc/self/exe");
        inner.arg(sandbox::NAME).args(sandbox::fds(&ready_writer, &go_reader, [&ready, &go])).arg("--run-dir");
        inner.arg(client.run_dir()).arg("--").args(command);
        let child = inner.spawn().map_err(|e| failed("start the sandbox", &e))?;
        drop((ready_writer, go_reader));
        let mut said = String::new();
        File::from(ready).read_to_string(&mut said).map_err(|e| failed("hear from the sandbox", &e))?;
        let mut sandbox = Self { child, go: Some(File::from(go)) };
        if said == sandbox::READY {
            return Ok(sandbox);
        }
        sandbox.abandon();
        Err(Failure::failed(if said.is_empty() { "the sandbox ended before it was set up".to_owned() } else { said }))
    }

    /// Tells it where to ask for names, and to go on.
    fn go(&mut self, info: &EndpointInfo) -> Result<(), Failure> {
        let resolv_conf = format!("# Written by overlayctl run.\nnameserver {}\noptions ndots:0\n", info.dns);
        let mut go = self.go.take().ok_or_else(|| Failure::failed("the sandbox goes on already"))?;
        go.write_all(resolv_conf.as_bytes()).map_err(|e| Failure::failed(format!("the sandbox ended: {e}")))
    }

    fn abandon(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The signals that people and supervisors end a command with.
struct Signals {
    child: tokio::signal::unix::Signal,
    term: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|e| Failure::failed(format!("can't handle signals: {e}")));
        Ok(Self {
            child: catch(SignalKind::child())?,
            term: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    async fn forward_until_end(&mut self, child: &mut Child) -> Result<ExitStatus, Failure> {
        loop {
            let ended = child.try_wait().map_err(|e| Failure::failed(format!("can't wait for the command: {e}")))?;
            if let Some(status) = ended {
                return Ok(status);
            }
            tokio::select! {
                _ = self.child.recv() => {}
                _ = self.term.recv() => pass_on(child, Signal::SIGTERM),
                _ = self.hangup.recv() => pass_on(child, Signal::SIGHUP),
                // The terminal gives it to the command as well.
                _ = self.interrupt.recv() => {}
            }
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It fails only if the command has ended already, and then that is seen next.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
