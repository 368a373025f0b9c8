//! `overlayctl status`.

use overlay_proto::v1::{
    Apart, BlockingChain, Draining, GossipLimit, LastRound, StatusReply, StatusRequest, UnopenedRow,
};

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
        format!("leases     {}", leases(status)),
        format!("networks   {}", status.networks),
        format!("endpoints  {} on this host", status.endpoints),
        format!("queries    {}", sum(&status.queries)),
        format!("dropped    {}", sum(&status.dropped)),
        format!("kernel     {}", if status.settled { "as it should be" } else { "not as it should be:" }),
    ];
    lines.extend(status.failures.iter().map(|failure| format!("           {failure}")));
    lines.extend(status.last_round.iter().map(|last| format!("rounds     {}", rounds(last))));
    lines.extend(status.draining.iter().map(|row| format!("draining   {}", draining(row))));
    lines.extend(status.apart.iter().map(|row| format!("warning    {}", apart(row))));
    lines.extend(status.blocking_chains.iter().map(|row| format!("warning    {}", blocking_chain(row))));
    lines.extend(status.contested.iter().map(|what| format!("warning    {what}")));
    lines.extend(status.unopened.iter().map(|row| format!("warning    {}", unopened(row))));
    let near = status.gossip_limits.iter().filter(|limit| limit.near);
    lines.extend(near.map(|limit| format!("warning    {}", gossip_limit(limit))));
    lines.join("\n")
}

/// Why the kernel was last compared with what it should be, and how often since the start.
fn rounds(last: &LastRound) -> String {
    let LastRound { reason, took_us, rounds, looks } = last;
    let (ms, tenths) = (took_us / 1000, took_us / 100 % 10);
    format!("{rounds} since the start, {looks} with a look at the kernel; the last one: {reason}, {ms}.{tenths} ms")
}

/// May the host act on what it holds, and if not, why?
fn leases(status: &StatusReply) -> String {
    let waits = status.waits_for.iter().map(|w| format!("{} ({})", w.host, w.state)).collect::<Vec<_>>().join(", ");
    match (status.phase.as_str(), waits.as_str()) {
        ("established", _) => "this host may use what it holds".to_owned(),
        ("joining", "") => {
            "this host joins: it waits to hear all hosts that it was told to --join, or --bootstrap makes it the first"
                .to_owned()
        }
        ("joining", waits) => format!("this host joins: it waits until most members know it; asked are {waits}"),
        (_, "") if status.strict_boot_check => format!(
            "{UNCHECKED}; there is no other member that could: if its disk is surely the newest, `overlayctl cluster \
             trust-disk` goes on without"
        ),
        (_, "") => format!("{UNCHECKED}; no other member is waited for, so it goes on in a moment"),
        (_, waits) => {
            let whom = if status.strict_boot_check { "all of" } else { "those that can be reached of" };
            format!(
                "{UNCHECKED}; it waits for {whom} {waits}; if its disk is surely the newest, `overlayctl cluster trust-disk` \
                 goes on without"
            )
        }
    }
}

const UNCHECKED: &str = "the machine has booted, or overlayd can't tell that this is the disk that it ran on before: members have \
                         to confirm that its leases still hold";

fn draining(row: &Draining) -> String {
    let Draining { network, id, endpoints } = row;
    format!(
        "network {network} is deleted and goes with its last endpoint; here are {}: `overlayctl network disconnect {id} NAME`, or `overlayctl network rm --force {id}` for all of them",
        endpoints.join(", ")
    )
}

fn apart(row: &Apart) -> String {
    format!(
        "another cluster with the same key is heard, founded apart from this one: {}; to make one of both, stop overlayd on \
         all hosts of one side, move STATE_DIR/state.redb away there, and start them again told to --join a host of the \
         other side: their containers are cut off then and have to be connected anew",
        row.hosts.join(", ")
    )
}

fn blocking_chain(row: &BlockingChain) -> String {
    let BlockingChain { family, table, chain, reason } = row;
    let chain = format!("chain {chain} of table {family} {table}");
    match reason.as_str() {
        "policy" => format!(
            "the {chain} drops what its rules do not let pass, and it is not changed by overlayd: if containers do not reach the \
             world, or their published ports are not reached, add the rules `iifname \"ovu*\" accept` and \
             `oifname \"ovu*\" accept` to it"
        ),
        "owner" => format!(
            "only the program that made the {chain} can change it: if containers do not reach the world, \
             `firewall-cmd --permanent --zone=trusted --add-interface=ovu+`, then `firewall-cmd --reload`"
        ),
        _ => "there are rules of iptables-legacy, which overlayd does not see: if containers do not reach the world, look at \
              `iptables-legacy -S FORWARD`, and let `ovu+` pass there (-i and -o)"
            .to_owned(),
    }
}

fn unopened(row: &UnopenedRow) -> String {
    let UnopenedRow { from, datagrams, seconds_ago } = row;
    let many = if *datagrams == 1 { "" } else { "s" };
    format!(
        "{datagrams} datagram{many} from {from} could not be opened (another cluster key?), last {seconds_ago} s ago: \
         give both hosts the same --cluster-key-file, or keep that one from this port"
    )
}

/// A limit of gossip that is near, or passed.
fn gossip_limit(row: &GossipLimit) -> String {
    let GossipLimit { name, used, limit, .. } = row;
    match name.as_str() {
        "digest_bytes" => format!(
            "gossip's list of all hosts has {used} of {limit} bytes; beyond that hosts no longer hear each other: add no more \
             hosts to this cluster, and restart agents less often"
        ),
        "incarnations" => format!(
            "this host knows of {used} agents, and gossip is made for {limit}; agents that ended within the last minutes count, \
             too: add no more hosts to this cluster, and restart agents less often"
        ),
        "value_bytes" => format!(
            "the largest value that this host announces has {used} of {limit} bytes; beyond that the other hosts keep the \
             last one: give the networks and endpoints of this host fewer labels, names and links"
        ),
        _ => format!("gossip is near a limit: {used} of {limit} {name}"),
    }
}

#[cfg(test)]
mod tests;
