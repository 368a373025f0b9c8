//! `overlayctl status`.

use overlay_proto::v1::{StatusReply, StatusRequest, UnopenedRow};

use crate::client::Client;
use crate::output::{Failure, Format, json, line};

pub async fn run(client: &Client, format: Format) -> Result<(), Failure> {
    let status = client.connect().await?.status(StatusRequest {}).await?.into_inner();
    match format {
        Format::Json => json(&status),
        Format::Table => line(&table(&status)),
    }
}

fn table(status: &StatusReply) -> String {
    let sum = |counts: &std::collections::BTreeMap<String, u64>| {
        let some: Vec<String> = counts.iter().filter(|(_, n)| **n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    let gossip = if status.synced { "in step with the others" } else { "has not reached the others yet" };
    let mut lines = vec![
        format!("host       {} ({})", status.host, status.host_id),
        format!("version    {}", status.version),
        format!("tunnels    {} port {}, underlay MTU {}", status.vtep, status.vxlan_port, status.underlay_mtu),
        format!("gossip     {}, {gossip}", status.gossip),
        format!("hosts      {} of {} alive", status.hosts_live, status.hosts),
        format!("networks   {}", status.networks),
        format!("endpoints  {} on this host", status.endpoints),
        format!("queries    {}", sum(&status.queries)),
        format!("dropped    {}", sum(&status.dropped)),
        format!("kernel     {}", if status.settled { "as it should be" } else { "not as it should be:" }),
    ];
    lines.extend(status.failures.iter().map(|failure| format!("           {failure}")));
    lines.extend(status.unopened.iter().map(|row| format!("warning    {}", unopened(row))));
    lines.join("\n")
}

fn unopened(row: &UnopenedRow) -> String {
    let UnopenedRow { from, datagrams, seconds_ago } = row;
    let many = if *datagrams == 1 { "" } else { "s" };
    format!(
        "{datagrams} datagram{many} from {from} could not be opened (another cluster key?), last {seconds_ago} s ago: \
         give both hosts the same --cluster-key-file, or keep that one from this port"
    )
}
