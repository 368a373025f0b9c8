//! `overlayctl network`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use overlay_proto::v1::control_client::ControlClient;
use overlay_proto::v1::{
    ConnectRequest, CreateNetworkRequest, DisconnectRequest, EndpointInfo, InspectNetworkReply, ListNetworksRequest,
    NetworkInfo, NetworkRef, RemoveNetworkRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::Client;
use crate::endpoint::{self, Ports};
use crate::filter::{Filter, is_meant};
use crate::inspect::shaped;
use crate::kernel;
use crate::output::{Failure, Format, json, line, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a network
    Create(Create),
    /// List the networks
    Ls {
        /// Filter the list: label=KEY[=VALUE], label!=KEY[=VALUE], driver=, name=, id=, scope=, dangling= or
        /// until=; may be given several times
        #[arg(short, long, value_name = "KIND=VALUE")]
        filter: Vec<Filter>,
        /// Only their ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show networks with their hosts and endpoints, as JSON in the shape of Docker's; with `-o table` for people
    Inspect {
        /// Names or ids of networks
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
        /// Show what is in the kernel of this host for them instead: interfaces, forwarding entries, neighbours and rules, with
        /// what has passed them; for people unless with `-o json`
        #[arg(long)]
        kernel: bool,
    },
    /// Remove all networks that no endpoint is in, on any host
    Prune {
        /// Remove only the networks that match: label=KEY[=VALUE], label!=KEY[=VALUE] or until=; may be given several times
        #[arg(long, value_name = "KIND=VALUE")]
        filter: Vec<Filter>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Remove networks for good
    Rm {
        /// Names or ids of the networks
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
        /// Also if endpoints are in it: those of this host are disconnected, those of others when somebody does it there;
        /// of a network that is deleted already this disconnects what is left of it here
        #[arg(short, long)]
        force: bool,
    },
    /// Give a container, or any network namespace of this host, an interface in a network
    Connect(Connect),
    /// Disconnect a container from a network
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
pub struct Create {
    /// What it is to be called: one DNS label
    name: String,
    /// How its hosts are connected: `vxlan`, by tunnels, or `bridge`, not at all, as it is on this host only
    #[arg(short, long, default_value = "vxlan")]
    driver: String,
    /// Its addresses in CIDR format, like 172.38.0.0/16 or fd00:38::/64; one of IPv4, one of IPv6, or one of each
    /// [default: the first /16 of 10.128.0.0/9 that no network has]
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// An IPv6 subnet as well, also if --subnet names none: a /64 that is drawn for it
    #[arg(long)]
    ipv6: bool,
    /// The address of its gateway, on every host [default: the first of the subnet]
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// The part of its subnet that addresses are taken from, unless one is asked for with --ip [default: all of it]
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// An address of its subnet that something else has, with a name for that; may be given several times
    #[arg(long, value_name = "NAME=IP", value_parser = pair)]
    aux_address: Vec<(String, String)>,
    /// No way out, and no names of the world
    #[arg(long)]
    internal: bool,
    /// Packets to the world keep the addresses of the containers, which the host routes: who is outside needs a route to them
    #[arg(long)]
    no_masquerade: bool,
    /// Do its containers reach each other? With --icc=false only those do that are linked: `overlayctl link add`
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    icc: bool,
    /// The most that its links are to carry, in bytes [default: what the underlay carries, less the tunnel's overhead]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    mtu: Option<u32>,
    /// Something to find it by; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form NAME=IP"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl From<Create> for CreateNetworkRequest {
    fn from(create: Create) -> Self {
        // As in Docker a label may have no value.
        let label = |text: String| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        Self {
            name: create.name,
            subnets: create.subnet,
            ipv6: create.ipv6,
            gateways: create.gateway,
            ip_ranges: create.ip_range,
            aux_addresses: create.aux_address.into_iter().collect(),
            driver: create.driver,
            internal: create.internal,
            no_masquerade: create.no_masquerade,
            no_icc: !create.icc,
            mtu: create.mtu.unwrap_or_default(),
            labels: create.label.into_iter().map(label).collect(),
        }
    }
}

#[derive(Debug, Args)]
pub struct Connect {
    /// Name or id of the network
    network: String,
    #[command(flatten)]
    place: NetnsArg,
    /// What it is to be called: one DNS label
    #[arg(long)]
    name: String,
    /// The IPv4 address that it must have [default: any free one]
    #[arg(long)]
    ip: Option<String>,
    /// The IPv6 address that it must have [default: any free one]
    #[arg(long)]
    ip6: Option<String>,
    /// The MAC that it must have [default: 02:42 and the IPv4 address; without one, 06 and a hash of the IPv6 address]
    #[arg(long)]
    mac: Option<String>,
    /// A further name, which it may share with others; may be given several times
    #[arg(long)]
    alias: Vec<String>,
    /// What the interface is to be called in there [default: the first of eth0, eth1, ... that is free]
    #[arg(long)]
    ifname: Option<String>,
    /// Of the networks that the container is in, the one with the highest is its way out, and of several the one that it was
    /// connected to first; -1000 to 1000
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i32,
    /// What it is to be known by, 32 hexadecimal digits drawn at random: with the same id the same request can be made
    /// again, and gets the same answer [default: a new one]
    #[arg(long, value_name = "ID")]
    endpoint_id: Option<String>,
    #[command(flatten)]
    publish: Ports,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct NetnsArg {
    /// The network namespace, like /run/netns/web
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// A process in it
    #[arg(long)]
    pid: Option<u32>,
}

impl NetnsArg {
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

impl Connect {
    fn request(self) -> Result<ConnectRequest, Failure> {
        Ok(ConnectRequest {
            network: self.network,
            netns: self.place.path()?,
            name: self.name,
            ip: self.ip.unwrap_or_default(),
            ip6: self.ip6.unwrap_or_default(),
            mac: self.mac.unwrap_or_default(),
            aliases: self.alias,
            ifname: self.ifname.unwrap_or_default(),
            gw_priority: self.gw_priority,
            endpoint_id: self.endpoint_id.unwrap_or_default(),
            publish: Some(self.publish.into()),
        })
    }
}

pub async fn run(verb: Verb, client: &Client, format: Option<Format>) -> Result<(), Failure> {
    let mut daemon = client.connect().await?;
    let shape = format.unwrap_or(Format::Json);
    let format = format.unwrap_or(Format::Table);
    match verb {
        Verb::Create(create) => {
            show(&daemon.create_network(CreateNetworkRequest::from(create)).await?.into_inner(), format)
        }
        Verb::Ls { filter, quiet } => {
            let mut networks = daemon.list_networks(ListNetworksRequest {}).await?.into_inner().networks;
            networks.retain(|network| is_meant(network, &filter));
            if quiet {
                return networks.iter().try_for_each(|network| line(&network.id));
            }
            print(format, &networks, HEADER, networks.iter().map(row))
        }
        Verb::Inspect { networks, kernel: true } => {
            let replies = of_each(networks, async |network| daemon.inspect_kernel(network).await).await?;
            match format {
                Format::Json => json(&replies),
                Format::Table => replies.iter().try_for_each(kernel::show),
            }
        }
        Verb::Inspect { networks, kernel: false } => {
            let replies = of_each(networks, async |network| daemon.inspect_network(network).await).await?;
            match shape {
                Format::Json => json(&replies.iter().map(shaped).collect::<Vec<_>>()),
                Format::Table => replies.iter().try_for_each(inspect),
            }
        }
        Verb::Prune { filter, force } => prune(&mut daemon, &filter, force, format).await,
        Verb::Rm { networks, force } => {
            each(networks, async |network| {
                let removed = daemon.remove_network(RemoveNetworkRequest { network, force }).await?.into_inner();
                said(format, &removed, &removed.name)
            })
            .await
        }
        Verb::Connect(connect) => {
            let info: EndpointInfo = daemon.connect_endpoint(connect.request()?).await?.into_inner();
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

/// What the daemon answers about each network, in the order in which they were named.
async fn of_each<T>(
    networks: Vec<String>,
    mut ask: impl AsyncFnMut(NetworkRef) -> Result<Response<T>, Status>,
) -> Result<Vec<T>, Failure> {
    let mut replies = Vec::new();
    for network in networks {
        replies.push(ask(NetworkRef { network }).await?.into_inner());
    }
    Ok(replies)
}

/// Goes on after a failure: the last one is what is said at the end, those before it as they come.
async fn each(networks: Vec<String>, mut work: impl AsyncFnMut(String) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for network in networks {
        if let Err(failure) = work(network).await
            && let Some(before) = failed.replace(failure)
        {
            before.report();
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What somebody comes to use meanwhile stays.
async fn prune(
    daemon: &mut ControlClient<Channel>,
    filters: &[Filter],
    force: bool,
    format: Format,
) -> Result<(), Failure> {
    if let Some(filter) = filters.iter().find(|filter| !filter.is_for_prune()) {
        return Err(Failure::misused(format!(
            "prune can't filter by {}: choose label, label! or until",
            filter.kind()
        )));
    }
    let unused = Filter::Dangling(true);
    let mut networks = daemon.list_networks(ListNetworksRequest {}).await?.into_inner().networks;
    // Those of another cluster are for its own operators to remove.
    networks.retain(|network| !network.apart && unused.holds(network) && is_meant(network, filters));
    if !force && !networks.is_empty() && !confirmed(&networks)? {
        return Err(Failure::failed("nothing was removed"));
    }
    let mut removed = Vec::new();
    let ids = networks.into_iter().map(|network| network.id).collect();
    let pruned = each(ids, async |network| {
        let request = RemoveNetworkRequest { network, force: false };
        removed.push(daemon.remove_network(request).await?.into_inner());
        Ok(())
    });
    let pruned = pruned.await;
    match format {
        Format::Json => json(&removed)?,
        Format::Table => removed.iter().try_for_each(|network| line(&network.name))?,
    }
    pruned
}

/// Asks whoever is there. A script has to say `--force`.
fn confirmed(networks: &[NetworkInfo]) -> Result<bool, Failure> {
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    eprint!(
        "This removes for good, on all hosts, the networks that no endpoint is in: {}. Go on? [y/N] ",
        names.join(", ")
    );
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::failed(format!("can't ask: {e}; say --force")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

const HEADER: [&str; 8] = ["NETWORK", "ID", "DRIVER", "SUBNET", "GATEWAY", "ENDPOINTS", "HOSTS", "VNI HERE"];

fn row(n: &NetworkInfo) -> [String; 8] {
    let vni = if n.vni == 0 { "-".to_owned() } else { n.vni.to_string() };
    let short = n.id.chars().take(8).collect();
    let (endpoints, hosts) = (n.endpoints.to_string(), n.hosts.to_string());
    [n.name.clone(), short, n.driver.clone(), n.subnets.join(" "), n.gateways.join(" "), endpoints, hosts, vni]
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
