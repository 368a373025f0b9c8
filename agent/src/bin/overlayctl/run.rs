//! `overlayctl run`: a command in a network namespace of its own, attached to a network for as long as it runs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitCode};

use clap::Args;
use nix::unistd::Pid;
use overlay_proto::v1::{ConnectRequest, DisconnectRequest, EndpointInfo};

use crate::client::Client;
use crate::output::Failure;
use crate::sandbox;
use crate::signals;

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
    // Taken from here on: the command decides what a signal means, and the endpoint goes in any case.
    signals::block().map_err(|e| Failure::failed(format!("can't handle signals: {e}")))?;
    let mut sandbox = Sandbox::start(&arguments.command, client)?;
    let request = ConnectRequest {
        network: arguments.network,
        netns: format!("/proc/{}/ns/net", sandbox.child.id()),
        name: arguments.name,
        ip: arguments.ip.unwrap_or_default(),
        mac: String::new(),
        aliases: arguments.alias,
        ifname: "eth0".to_owned(),
        endpoint_id: String::new(),
    };
    let info = match daemon.connect_endpoint(request).await {
        Ok(info) => info.into_inner(),
        Err(status) => {
            sandbox.abandon();
            return Err(status.into());
        }
    };
    drop(daemon);
    let ended = sandbox.run(&info);
    if let Err(failure) = let_go(info, client).await {
        eprintln!("overlayctl: the endpoint is still there: {failure}");
    }
    ended.map(ExitCode::from)
}

/// Connects anew: the command may have run for days, and the daemon may have been restarted since.
async fn let_go(info: EndpointInfo, client: &Client) -> Result<(), Failure> {
    let request = DisconnectRequest { network: info.network, name: info.name, endpoint_id: info.id };
    // That the daemon has noticed by itself that the namespace is gone is no error.
    client.connect().await?.disconnect_endpoint(request).await?;
    Ok(())
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

    /// Lets the command run to its end, and gives its status. Nothing else goes on here meanwhile.
    fn run(&mut self, info: &EndpointInfo) -> Result<u8, Failure> {
        // While there is no command yet to decide, a signal means an end.
        let failed = |e| Failure::failed(format!("can't wait for the command: {e}"));
        if let Some(signal) = signals::end_wanted().map_err(failed)? {
            self.abandon();
            return Ok(signals::status_of(signal));
        }
        let pid = i32::try_from(self.child.id()).expect("the kernel's pids have 22 bits");
        let ended = self.go(info).and_then(|()| signals::supervise(Pid::from_raw(pid)).map_err(failed));
        if ended.is_err() {
            self.abandon();
        }
        ended
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
