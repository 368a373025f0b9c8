//! `overlayctl link`.

use clap::{Args, Subcommand};
use overlay_proto::v1::{LinkRequest, LinkRow, NetworkRef};

use crate::client::Client;
use crate::output::{Failure, Format, json, line, print};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Let one endpoint open connections to another
    Add(LinkArgs),
    /// List the links
    Ls {
        /// Only those of this network
        network: Option<String>,
    },
    /// Remove a link
    Rm(LinkArgs),
}

#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Name or id of the network
    network: String,
    /// Name or alias of who may reach the other
    from: String,
    /// Name or alias of who is reached, and at which port only; without one at all, and with pings
    #[arg(value_name = "TO[:PORT[/tcp|udp|sctp]]")]
    to: String,
}

impl From<LinkArgs> for LinkRequest {
    fn from(LinkArgs { network, from, to }: LinkArgs) -> Self {
        Self { network, from, to }
    }
}

pub async fn run(verb: Verb, client: &Client, format: Format) -> Result<(), Failure> {
    let mut daemon = client.connect().await?;
    match verb {
        Verb::Add(link) => one(format, &daemon.add_link(LinkRequest::from(link)).await?.into_inner(), "may reach"),
        Verb::Rm(link) => {
            one(format, &daemon.remove_link(LinkRequest::from(link)).await?.into_inner(), "may no longer reach")
        }
        Verb::Ls { network } => {
            let request = NetworkRef { network: network.unwrap_or_default() };
            table(format, &daemon.list_links(request).await?.into_inner().links)
        }
    }
}

fn one(format: Format, link: &LinkRow, verb: &str) -> Result<(), Failure> {
    match format {
        Format::Json => json(link),
        Format::Table => {
            let at = port(link).map_or_else(String::new, |port| format!(" at {port}"));
            line(&format!("`{}` {verb} `{}`{at} in network `{}`", link.from, link.to, link.network))
        }
    }
}

fn port(link: &LinkRow) -> Option<String> {
    (link.port > 0).then(|| format!("{}/{}", link.port, link.protocol))
}

fn table(format: Format, links: &[LinkRow]) -> Result<(), Failure> {
    let header = ["NETWORK", "FROM", "TO", "PORT", "STATE"];
    let rows = links.iter().map(|link| {
        let state = match link.missing.as_slice() {
            [] => "open".to_owned(),
            missing => format!("no endpoint {}", missing.join(", ")),
        };
        let port = port(link).unwrap_or_else(|| "all".to_owned());
        [link.network.clone(), link.from.clone(), link.to.clone(), port, state]
    });
    print(format, &links, header, rows)
}
