//! `overlayctl endpoint`.

use clap::Subcommand;
use overlay_proto::v1::{EndpointInfo, NetworkRef};

use crate::client::Client;
use crate::output::{Failure, Format, or_dash, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the endpoints of all hosts
    Ls {
        /// Only those of this network
        network: Option<String>,
    },
}

pub async fn run(verb: &Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb {
        Verb::Ls { network } => {
            let request = NetworkRef { network: network.clone().unwrap_or_default() };
            let reply = client.connect().await?.list_endpoints(request).await?.into_inner();
            table(format, &reply.endpoints)
        }
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
