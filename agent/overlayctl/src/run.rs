//! `overlayctl run`: a command in a network namespace of its own, attached to a network for as long as it runs; or in the
//! host's, in that of another container, or in one that nothing leads out of.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::str::FromStr;

use clap::Args;
use nix::unistd::Pid;
use overlay_proto::v1::{ConnectRequest, DisconnectRequest, EndpointInfo, NetworkRef, StatusRequest};

use crate::client::Client;
use crate::endpoint::{Ports, named};
use crate::output::Failure;
use crate::sandbox;
use crate::signals;

mod resolv_conf;

/// The network namespace that this process is in.
const OWN_NETNS: &str = "/proc/self/ns/net";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Where it is to be: in a network, by its name or id; `host`, in this host's network namespace; `none`, in one of its own
    /// with nothing but the loopback interface; or `container:NAME`, in that of the endpoint NAME or NETWORK/NAME of this host
    #[arg(long, value_name = "NETWORK|host|none|container:NAME")]
    network: Mode,
    /// What it is to be called in the network: one DNS label
    #[arg(long)]
    name: Option<String>,
    /// The IPv4 address that it must have [default: any free one]
    #[arg(long)]
    ip: Option<String>,
    /// The IPv6 address that it must have [default: any free one]
    #[arg(long)]
    ip6: Option<String>,
    /// A further name, which it may share with others; may be given several times
    #[arg(long)]
    alias: Vec<String>,
    #[command(flatten)]
    publish: Ports,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Which network namespace a command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// One of its own, in this network.
    Network(String),
    /// The host's.
    Host,
    /// One of its own, in no network.
    None,
    /// That of an endpoint of this host.
    Container(String),
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "host" => Ok(Self::Host),
            None if text == "none" => Ok(Self::None),
            None => Ok(Self::Network(text.to_owned())),
            Some(("container", "")) => Err("no container is named: give container:NAME".to_owned()),
            Some(("container", name)) => Ok(Self::Container(name.to_owned())),
            Some((kind, _)) => Err(format!("there is no mode `{kind}:`: give a network, host, none or container:NAME")),
        }
    }
}

pub async fn run(arguments: Arguments, client: &Client) -> Result<ExitCode, Failure> {
    match &arguments.network {
        Mode::Network(network) => {
            let network = network.clone();
            in_network(network, arguments, client).await
        }
        Mode::Host => {
            arguments.check_alone()?;
            alone(&arguments, Some((OWN_NETNS.as_ref(), None)), sandbox::KEEP, client)
        }
        Mode::None => {
            arguments.check_alone()?;
            // It may be connected later.
            let status = client.connect().await?.status(StatusRequest {}).await?.into_inner();
            alone(&arguments, None, &own_resolv_conf(&status.dns), client)
        }
        Mode::Container(name) => {
            arguments.check_alone()?;
            let endpoints = client.connect().await?.list_endpoints(NetworkRef::default()).await?.into_inner().endpoints;
            let endpoint = named(&endpoints, name)?;
            let netns = (endpoint.netns.as_ref(), Some(endpoint.netns_cookie));
            alone(&arguments, Some(netns), &own_resolv_conf(&endpoint.dns), client)
        }
    }
}

/// Runs the command without an endpoint.
fn alone(
    arguments: &Arguments,
    netns: Option<(&Path, Option<u64>)>,
    resolv_conf: &str,
    client: &Client,
) -> Result<ExitCode, Failure> {
    let mut sandbox = Sandbox::start(&arguments.command, netns, client)?;
    if netns.is_none() {
        let pid = sandbox.child.id();
        eprintln!(
            "overlayctl: in no network; `overlayctl network connect NETWORK --pid {pid} --name NAME` connects it"
        );
    }
    sandbox.run(resolv_conf).map(ExitCode::from)
}

async fn in_network(network: String, arguments: Arguments, client: &Client) -> Result<ExitCode, Failure> {
    let Some(name) = arguments.name else {
        return Err(Failure::misused(format!("what is in network `{network}` needs a name there: give --name")));
    };
    let mut daemon = client.connect().await?;
    let mut sandbox = Sandbox::start(&arguments.command, None, client)?;
    let request = ConnectRequest {
        network,
        netns: format!("/proc/{}/ns/net", sandbox.child.id()),
        name,
        ip: arguments.ip.unwrap_or_default(),
        ip6: arguments.ip6.unwrap_or_default(),
        mac: String::new(),
        aliases: arguments.alias,
        ifname: String::new(),
        gw_priority: 0,
        endpoint_id: String::new(),
        publish: Some(arguments.publish.into()),
    };
    let info = match daemon.connect_endpoint(request).await {
        Ok(info) => info.into_inner(),
        Err(status) => {
            sandbox.abandon();
            return Err(status.into());
        }
    };
    drop(daemon);
    let ended = sandbox.run(&own_resolv_conf(&info.dns));
    if let Err(failure) = let_go(info, client).await {
        eprintln!("overlayctl: the endpoint is still there: {failure}");
    }
    ended.map(ExitCode::from)
}

impl Arguments {
    /// Without a network of its own there is nobody to give it these.
    fn check_alone(&self) -> Result<(), Failure> {
        let given = [
            ("--name", self.name.is_some()),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--alias", !self.alias.is_empty()),
            ("--publish", self.publish.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => {
                Err(Failure::misused(format!("{flag} is of a network, and --network names none: leave it out")))
            }
            None => Ok(()),
        }
    }
}

/// What programs of the command ask for names. A host without a resolv.conf has nothing to say about it.
fn own_resolv_conf(server: &str) -> String {
    let host = std::fs::read(sandbox::names::RESOLV_CONF).unwrap_or_default();
    resolv_conf::in_network(&String::from_utf8_lossy(&host), server)
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
    /// In a network namespace of its own, or in one by its path and, if that may be another's by now, the kernel's number for it.
    fn start(command: &[String], netns: Option<(&Path, Option<u64>)>, client: &Client) -> Result<Self, Failure> {
        let failed = |what: &str, e: &dyn std::fmt::Display| Failure::failed(format!("can't {what}: {e}"));
        // Taken from here on: the command decides what a signal means, and an endpoint goes in any case.
        signals::block().map_err(|e| failed("handle signals", &e))?;
        let pipe = || nix::unistd::pipe().map_err(|e| failed("make a pipe", &e));
        let (ready, ready_writer): (OwnedFd, OwnedFd) = pipe()?;
        let (go_reader, go): (OwnedFd, OwnedFd) = pipe()?;
        let mut inner = Command::new("/proc/self/exe");
        inner.arg(sandbox::NAME).args(sandbox::fds(&ready_writer, &go_reader, [&ready, &go])).arg("--run-dir");
        inner.arg(client.run_dir());
        if let Some((netns, cookie)) = netns {
            inner.arg("--netns").arg(netns);
            inner.args(cookie.map(|cookie| format!("--netns-cookie={cookie}")));
        }
        inner.arg("--").args(command);
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
    fn run(&mut self, resolv_conf: &str) -> Result<u8, Failure> {
        // While there is no command yet to decide, a signal means an end.
        let failed = |e| Failure::failed(format!("can't wait for the command: {e}"));
        if let Some(signal) = signals::end_wanted().map_err(failed)? {
            self.abandon();
            return Ok(signals::status_of(signal));
        }
        let pid = i32::try_from(self.child.id()).expect("the kernel's pids have 22 bits");
        let ended = self.go(resolv_conf).and_then(|()| signals::supervise(Pid::from_raw(pid)).map_err(failed));
        if ended.is_err() {
            self.abandon();
        }
        ended
    }

    /// Tells it where to ask for names, and to go on.
    fn go(&mut self, resolv_conf: &str) -> Result<(), Failure> {
        let mut go = self.go.take().ok_or_else(|| Failure::failed("the sandbox goes on already"))?;
        go.write_all(resolv_conf.as_bytes()).map_err(|e| Failure::failed(format!("the sandbox ended: {e}")))
    }

    fn abandon(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
