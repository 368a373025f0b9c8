//! `overlayctl endpoint`.

use clap::{Args, Subcommand};
use overlay_proto::v1::{EndpointInfo, EndpointRef, NetworkRef, PublishRequest, PublishSpecs, PublishedPort};

use crate::client::Client;
use crate::output::{Failure, Format, json, line, or_dash, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the endpoints of all hosts
    Ls {
        /// Only those of this network
        network: Option<String>,
    },
    /// Show an endpoint of this host, as JSON: its veth pair with what has passed it, its leases, its rules
    Inspect {
        /// NAME or NETWORK/NAME of the endpoint
        name: String,
    },
    /// Let further ports of this host lead to an endpoint
    Publish {
        /// Name or id of the network
        network: String,
        /// Name of the endpoint
        name: String,
        #[command(flatten)]
        publish: Ports,
    },
    /// Let ports of this host lead to an endpoint no more
    Unpublish {
        /// Name or id of the network
        network: String,
        /// Name of the endpoint
        name: String,
        /// The ports of this host
        #[arg(required = true, value_name = "[HOSTIP:]HOSTPORT[-END][/PROTOCOL]")]
        ports: Vec<String>,
    },
    /// List the ports of this host that lead to an endpoint
    Port {
        /// NAME or NETWORK/NAME of the endpoint
        name: String,
        /// Only those that lead to this port of the endpoint
        #[arg(value_name = "PORT[/PROTOCOL]")]
        port: Option<String>,
    },
}

/// Ports of this host.
#[derive(Debug, Args)]
pub struct Ports {
    /// Let a port of this host lead to a port of the endpoint, or as many to as many; may be given several times
    #[arg(short, long, value_name = "[HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp]")]
    publish: Vec<String>,
    /// Who may reach these ports from outside of this host; may be given several times [default: anybody]
    #[arg(long, value_name = "CIDR")]
    allow_from: Vec<String>,
}

impl Ports {
    /// Is anything asked for?
    pub fn is_some(&self) -> bool {
        !self.publish.is_empty() || !self.allow_from.is_empty()
    }
}

impl From<Ports> for PublishSpecs {
    fn from(Ports { publish, allow_from }: Ports) -> Self {
        Self { ports: publish, allow_from }
    }
}

pub async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    let mut daemon = client.connect().await?;
    match verb {
        Verb::Ls { network } => {
            let request = NetworkRef { network: network.unwrap_or_default() };
            let reply = daemon.list_endpoints(request).await?.into_inner();
            table(format, &reply.endpoints)
        }
        Verb::Inspect { name } => {
            let all = daemon.list_endpoints(NetworkRef::default()).await?.into_inner().endpoints;
            let meant = named(&all, &name)?;
            let request = EndpointRef { network: meant.network.clone(), name: meant.name.clone() };
            json(&daemon.inspect_endpoint(request).await?.into_inner())
        }
        Verb::Publish { network, name, publish } => {
            if !publish.is_some() {
                return Err(Failure::misused("there is no port to publish: give -p HOSTPORT:PORT"));
            }
            let request = PublishRequest { network, name, publish: Some(publish.into()), unpublish: Vec::new() };
            ports(format, &daemon.publish_ports(request).await?.into_inner(), None)
        }
        Verb::Unpublish { network, name, ports: unpublish } => {
            let request = PublishRequest { network, name, publish: None, unpublish };
            ports(format, &daemon.publish_ports(request).await?.into_inner(), None)
        }
        Verb::Port { name, port } => {
            let all = daemon.list_endpoints(NetworkRef::default()).await?.into_inner().endpoints;
            ports(format, named(&all, &name)?, port.as_deref())
        }
    }
}

/// The endpoint of this host that people mean by `NAME` or `NETWORK/NAME`. One that is in several networks is any of them.
pub fn named<'a>(endpoints: &'a [EndpointInfo], text: &str) -> Result<&'a EndpointInfo, Failure> {
    let (network, name) = text.split_once('/').map_or((None, text), |(network, name)| (Some(network), name));
    let meant = |e: &&EndpointInfo| e.name == name && network.is_none_or(|network| e.network == network);
    let mut here = endpoints.iter().filter(|e| !e.netns.is_empty()).filter(meant);
    match (here.next(), here.next()) {
        (Some(first), Some(second)) if first.netns != second.netns => Err(Failure::failed(format!(
            "`{name}` is one endpoint in network `{}` and another one in `{}`: say NETWORK/{name}",
            first.network, second.network
        ))),
        (Some(endpoint), _) => Ok(endpoint),
        (None, _) => Err(match endpoints.iter().find(meant) {
            Some(other) => Failure::failed(format!("`{text}` is on host `{}`: say this there", other.host)),
            None => {
                Failure::failed(format!("there is no endpoint `{text}` on this host: see `overlayctl endpoint ls`"))
            }
        }),
    }
}

/// As `docker port` prints them.
fn ports(format: Format, info: &EndpointInfo, only: Option<&str>) -> Result<(), Failure> {
    let is_meant = |port: &&PublishedPort| {
        only.is_none_or(|only| {
            let (number, protocol) = only.split_once('/').unwrap_or((only, "tcp"));
            port.port.to_string() == number && port.protocol == protocol
        })
    };
    let meant: Vec<&PublishedPort> = info.ports.iter().filter(is_meant).collect();
    if let (Some(only), true) = (only, meant.is_empty()) {
        return Err(Failure::failed(format!("no port of this host leads to port {only} of `{}`", info.name)));
    }
    match format {
        Format::Json => json(&meant),
        Format::Table => meant.iter().try_for_each(|port| {
            let is_ipv6 = port.host_ip.contains(':');
            let ip = if is_ipv6 { format!("[{}]", port.host_ip) } else { port.host_ip.clone() };
            let host = format!("{ip}:{}", port.host_port);
            let from = port.allow_from.join(", ");
            match only {
                Some(_) => line(&host),
                None if from.is_empty() => line(&format!("{}/{} -> {host}", port.port, port.protocol)),
                None => line(&format!("{}/{} -> {host} from {from}", port.port, port.protocol)),
            }
        }),
    }
}

/// Prints endpoints.
pub fn table(format: Format, endpoints: &[EndpointInfo]) -> Result<(), Failure> {
    let header = ["NETWORK", "NAME", "ADDRESS", "MAC", "HOST", "STATE", "ALIASES", "INTERFACE", "VETH ON HOST"];
    let rows = endpoints.iter().map(|e| {
        [
            e.network.clone(),
            e.name.clone(),
            e.addresses.join(" "),
            e.mac.clone(),
            e.host.clone(),
            e.state.clone(),
            or_dash(e.aliases.join(" ")),
            or_dash(e.ifname.clone()),
            or_dash(e.host_ifname.clone()),
        ]
    });
    print(format, &endpoints, header, rows)
}
