//! `overlayctl lease`.

use clap::Subcommand;
use overlay_proto::v1::NetworkRef;

use crate::client::Client;
use crate::output::{Failure, Format, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List who may use which addresses of a network, as far as this host knows
    Ls {
        /// Name or id of the network
        network: String,
    },
}

pub async fn run(verb: &Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb {
        Verb::Ls { network } => {
            let request = NetworkRef { network: network.clone() };
            let leases = client.connect().await?.list_leases(request).await?.into_inner().leases;
            let header = ["FROM", "TO", "LEASE", "HOLDER", "STATE", "EPOCH", "BLOCKS", "FREE"];
            let rows = leases.iter().map(|l| {
                let epoch = if l.kind == "block" { l.epoch.to_string() } else { format!("{}.{}", l.epoch, l.count) };
                let blocks = if l.blocks == 0 { "-".to_owned() } else { l.blocks.to_string() };
                let free = if l.free < 0 { "-".to_owned() } else { l.free.to_string() };
                let (holder, state) = (l.holder.clone(), l.holder_state.clone());
                [l.first.clone(), l.last.clone(), l.kind.clone(), holder, state, epoch, blocks, free]
            });
            print(format, &leases, header, rows)
        }
    }
}
