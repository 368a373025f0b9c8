//! `overlayctl network`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use overlay_proto::v1::{
    ConnectRequest, CreateNetworkRequest, DisconnectRequest, EndpointInfo, InspectNetworkReply, ListNetworksRequest,
    NetworkInfo, NetworkRef, RemoveNetworkRequest,
};

use crate::client::Client;
use crate::endpoint;
use crate::output::{Failure, Format, json, line, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a network
    Create {
        /// What it is to be called: one DNS label
        name: String,
        /// Its addresses in CIDR format, like 172.38.0.0/16
        #[arg(long, value_name = "CIDR", required = true)]
        subnet: Vec<String>,
        /// The address of its gateway, on every host [default: the first of the subnet]
        #[arg(long, value_name = "IP")]
        gateway: Option<String>,
    },
    /// List the networks
    Ls,
    /// Show a network, its hosts and its endpoints
    Inspect {
        /// Name or id of the network
        network: String,
    },
    /// Remove a network for good
    Rm {
        /// Name or id of the network
        network: String,
        /// Also if endpoints are in it: those of this host are disconnected, those of others when somebody does it there;
        /// of a network that is deleted already this disconnects what is left of it here
        #[arg(long)]
        force: bool,
    },
    /// Give a container, or any network namespace of this host, an interface in a network
    Connect(Connect),
    /// Take it away again
    Disconnect {
        /// Name or id of the network
        network: String,
        /// Name of the endpoint
        name: String,
        /// Only if it is the endpoint with this id; that it is gone already is no error then
        #[arg(long, value_name = "ID")]
        endpoint_id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Connect {
    /// Name or id of the network
    network: String,
    #[command(flatten)]
    place: Place,
    /// What it is to be called: one DNS label
    #[arg(long)]
    name: String,
    /// The address that it must have [default: any free one]
    #[arg(long)]
    ip: Option<String>,
    /// The MAC that it must have [default: 02:42 and the address]
    #[arg(long)]
    mac: Option<String>,
    /// A further name, which it may share with others; may be given several times
    #[arg(long)]
    alias: Vec<String>,
    /// What the interface is to be called in there
    #[arg(long, default_value = "eth0")]
    ifname: String,
    /// What it is to be known by, 32 hexadecimal digits drawn at random: with the same id the same request can be made
    /// again, and gets the same answer [default: a new one]
    #[arg(long, value_name = "ID")]
    endpoint_id: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The network namespace, like /run/netns/web
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// A process in it
    #[arg(long)]
    pid: Option<u32>,
}

impl Place {
    /// The path as the daemon is to open it.
    fn path(&self) -> Result<String, Failure> {
        let of_pid = || self.pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        let path = self.netns.clone().or_else(of_pid).unwrap_or_default();
        let path = std::path::absolute(&path).unwrap_or(path);
        if path.starts_with("/proc/self") || path.starts_with("/proc/thread-self") {
            let shown = path.display();
            return Err(Failure::misused(format!(
                "{shown} is another process for overlayd: give --pid a process's number"
            )));
        }
        Ok(path.display().to_string())
    }
}

pub async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    let mut daemon = client.connect().await?;
    match verb {
        Verb::Create { name, subnet, gateway } => {
            let request = CreateNetworkRequest { name, subnets: subnet, gateway: gateway.unwrap_or_default() };
            show(&daemon.create_network(request).await?.into_inner(), format)
        }
        Verb::Ls => {
            let networks = daemon.list_networks(ListNetworksRequest {}).await?.into_inner().networks;
            print(format, &networks, HEADER, networks.iter().map(row))
        }
        Verb::Inspect { network } => {
            let reply = daemon.inspect_network(NetworkRef { network }).await?.into_inner();
            match format {
                Format::Json => json(&reply),
                Format::Table => inspect(&reply),
            }
        }
        Verb::Rm { network, force } => {
            let removed = daemon.remove_network(RemoveNetworkRequest { network, force }).await?.into_inner();
            said(format, &removed, &removed.name)
        }
        Verb::Connect(connect) => {
            let request = ConnectRequest {
                network: connect.network,
                netns: connect.place.path()?,
                name: connect.name,
                ip: connect.ip.unwrap_or_default(),
                mac: connect.mac.unwrap_or_default(),
                aliases: connect.alias,
                ifname: connect.ifname,
                endpoint_id: connect.endpoint_id.unwrap_or_default(),
            };
            let info: EndpointInfo = daemon.connect_endpoint(request).await?.into_inner();
            match format {
                Format::Json => json(&info),
                Format::Table => endpoint::table(format, &[info]),
            }
        }
        Verb::Disconnect { network, name, endpoint_id } => {
            let endpoint_id = endpoint_id.unwrap_or_default();
            let request = DisconnectRequest { network, name, endpoint_id };
            let info = daemon.disconnect_endpoint(request).await?.into_inner();
            said(format, &info, &info.name)
        }
    }
}

const HEADER: [&str; 7] = ["NETWORK", "ID", "SUBNET", "GATEWAY", "ENDPOINTS", "HOSTS", "VNI HERE"];

fn row(n: &NetworkInfo) -> [String; 7] {
    let vni = if n.vni == 0 { "-".to_owned() } else { n.vni.to_string() };
    let short = n.id.chars().take(8).collect();
    let (endpoints, hosts) = (n.endpoints.to_string(), n.hosts.to_string());
    [n.name.clone(), short, n.subnets.join(" "), n.gateways.join(" "), endpoints, hosts, vni]
}

fn show(network: &NetworkInfo, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => json(network),
        Format::Table => print(format, network, HEADER, [row(network)]),
    }
}

/// A name, as Docker prints it when something is gone.
fn said(format: Format, value: &impl serde::Serialize, name: &str) -> Result<(), Failure> {
    match format {
        Format::Json => json(value),
        Format::Table => line(name),
    }
}

fn inspect(reply: &InspectNetworkReply) -> Result<(), Failure> {
    let table = Format::Table;
    print(table, reply, HEADER, reply.network.iter().map(row))?;
    if !reply.netns.is_empty() {
        line(&format!("\nsegment here: {} (MTU {})", reply.netns, reply.mtu))?;
    }
    line("")?;
    let members = reply.members.iter().map(|m| [m.host.clone(), m.state.clone(), m.vtep.clone(), m.vni.to_string()]);
    print(table, reply, ["HOST", "STATE", "VTEP", "VNI"], members)?;
    line("")?;
    endpoint::table(table, &reply.endpoints)
}
