//! `overlayctl host`.

use std::time::Duration;

use clap::Subcommand;
use overlay_proto::v1::{ForgetHostRequest, HostRow, ListHostsRequest, Waiting};

use crate::client::Client;
use crate::output::{Failure, Format, json, line, print};

/// So many hosts that another one waits for are named in a table; JSON has all.
const SHOWN: usize = 3;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the hosts: alive, suspect (silent for a moment), gone or forgotten
    Ls,
    /// Forget hosts that are off for good: this host takes the space that they held, once all others have agreed to deal
    /// with them no more. Should one come back, it does so as a new host
    Forget {
        /// Names or ids of the hosts: all that are off now, together
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
        /// Be content with a majority of the other hosts, and forget more than half of them. What a forgotten host had
        /// given to one that is not asked is given again, to others: only if those that are not asked are lost as well
        #[arg(long)]
        force: bool,
    },
}

pub async fn run(verb: &Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb {
        Verb::Ls => {
            let hosts = client.connect().await?.list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
            let rows = hosts.iter().map(|h| {
                let name = if h.is_self { format!("{} *", h.name) } else { h.name.clone() };
                let short = h.id.chars().take(8).collect();
                let endpoints = h.endpoints.to_string();
                [name, state(h), h.vtep.clone(), h.peer.clone(), endpoints, h.heir.clone(), short]
            });
            print(format, &hosts, ["HOST", "STATE", "VTEP", "PEER", "ENDPOINTS", "HEIR", "ID"], rows)
        }
        Verb::Forget { hosts, force } => forget(hosts.clone(), *force, client, format).await,
    }
}

/// A host that does not act yet says so; of one that is being forgotten is said whom that waits for.
fn state(host: &HostRow) -> String {
    let silent = || humantime::format_duration(Duration::from_secs(host.silent_seconds));
    let state = match host.phase.as_str() {
        _ if host.silent_seconds > 0 && matches!(host.state.as_str(), "suspect" | "gone") => {
            match host.silent_since_start {
                false => format!("{} for {}", host.state, silent()),
                true => format!("{}, not heard since overlayd started {} ago", host.state, silent()),
            }
        }
        "established" | "" => host.state.clone(),
        phase => format!("{}, {phase}", host.state),
    };
    match host.waits_for.as_slice() {
        [] => state,
        waits if waits.len() <= SHOWN => format!("{state}, to be forgotten: waits for {}", waits.join(", ")),
        waits => {
            let (first, others) = (waits[..SHOWN].join(", "), waits.len() - SHOWN);
            format!("{state}, to be forgotten: waits for {first} and {others} others")
        }
    }
}

async fn forget(hosts: Vec<String>, force: bool, client: &Client, format: Format) -> Result<(), Failure> {
    let request = ForgetHostRequest { hosts, force };
    let mut steps = client.connect().await?.forget_host(request).await?.into_inner();
    while let Some(step) = steps.message().await? {
        if step.done {
            return match format {
                Format::Json => json(&step),
                Format::Table => step.hosts.iter().try_for_each(|host| line(&format!("host {host} is forgotten"))),
            };
        }
        let waits = step.waits_for.iter().map(|w| format!("{} ({})", w.host, w.state)).collect::<Vec<_>>().join(", ");
        let advice = format!(
            " If one of these is off as well, or was forgotten meanwhile, say so of all together: overlayctl host forget {} HOST",
            step.hosts.join(" ")
        );
        let is_there =
            |w: &Waiting| w.state.starts_with("it forgets") || matches!(w.state.as_str(), "alive" | "suspect");
        let advice = if step.waits_for.iter().all(is_there) { "" } else { advice.as_str() };
        eprintln!("waiting for {waits}; it goes on if you stop this command.{advice}");
    }
    Err(Failure::failed("overlayd ended before the host was forgotten; it goes on when overlayd runs again"))
}

#[cfg(test)]
mod tests;
