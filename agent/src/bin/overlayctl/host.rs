//! `overlayctl host`.

use clap::Subcommand;
use overlay_proto::v1::ListHostsRequest;

use crate::client::Client;
use crate::output::{Failure, Format, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the hosts: alive, suspect (silent for a moment), or gone
    Ls,
}

pub async fn run(verb: &Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb {
        Verb::Ls => {
            let hosts = client.connect().await?.list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
            let rows = hosts.iter().map(|h| {
                let name = if h.is_self { format!("{} *", h.name) } else { h.name.clone() };
                let short = h.id.chars().take(8).collect();
                [name, h.state.clone(), h.vtep.clone(), h.peer.clone(), h.endpoints.to_string(), short]
            });
            print(format, &hosts, ["HOST", "STATE", "VTEP", "PEER", "ENDPOINTS", "ID"], rows)
        }
    }
}
