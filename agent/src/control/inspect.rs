//! Looking inside: what the kernel of this host has for an endpoint, and for a network.

use overlay::cluster::NetworkView;
use overlay::datapath::desired::port_ifname;
use overlay::datapath::kernel_api::StepError;
use overlay::kernel::inspect::{self, Entry, Inspected, Interface, other_end};
use overlay::model::id::NetworkId;
use overlay::model::intent::Attachment;
use overlay::model::network::Name;
use overlay_proto::v1 as pb;
use tonic::Status;

use super::{Service, show};

/// An endpoint of this host.
pub(super) async fn endpoint(
    service: &Service,
    network: &str,
    name: &Name,
) -> Result<pb::InspectEndpointReply, Status> {
    let attachment = service.attacher.named(network, name)?;
    let id = attachment.endpoint.network;
    let (segment, inspected) = look(service, id, network).await?;
    let host_ifname = port_ifname(attachment.endpoint.id).to_string();
    let host_end = inspected.interfaces.iter().find(|interface| interface.name == host_ifname);
    // A container whose path is gone lives on where nobody can look.
    let theirs = inspect::container(&attachment.netns).await.unwrap_or_default();
    let container_end = host_end.and_then(|end| other_end(&theirs, end));
    let account = service.attacher.state.state().ledger.accounts().get(&id).cloned();
    let cluster = service.cluster();
    let shown = service.shown(&cluster);
    let leases = account.map(|account| shown.leases(&account)).unwrap_or_default();
    Ok(pb::InspectEndpointReply {
        leases: leases.into_iter().filter(|lease| covers(lease, &attachment)).collect(),
        rules: rules_about(&inspected.rules, &attachment),
        endpoint: Some(shown.attachment(&attachment)),
        host_end: host_end.map(|end| interface(end, &inspected.interfaces)),
        container_end: container_end.map(|end| interface(end, &theirs)),
        segment,
    })
}

/// A network.
pub(super) async fn network(service: &Service, network: &str) -> Result<pb::InspectKernelReply, Status> {
    let cluster = service.cluster();
    let view: &NetworkView = show::find(&cluster, network)?;
    let (netns, inspected) = look(service, view.network.id, &view.shown_name()).await?;
    let neighbours = inspected.neighbours.iter();
    Ok(pb::InspectKernelReply {
        netns,
        interfaces: inspected.interfaces.iter().map(|one| interface(one, &inspected.interfaces)).collect(),
        entries: inspected.entries.iter().map(entry).collect(),
        neighbours: neighbours
            .map(|(address, mac)| pb::Neighbour { address: address.to_string(), mac: mac.to_string() })
            .collect(),
        rules: inspected.rules,
    })
}

async fn look(service: &Service, network: NetworkId, shown: &str) -> Result<(String, Inspected), Status> {
    let path = service.about.netns_dir.join(network.to_string());
    if !path.exists() {
        return Err(Status::failed_precondition(format!(
            "this host has no endpoint in network `{shown}`, and so nothing of it in its kernel: ask on a host that has one"
        )));
    }
    let failed = |error: StepError| Status::internal(super::in_one_line(&error));
    Ok((path.display().to_string(), inspect::segment(&path).await.map_err(failed)?))
}

fn interface(one: &Interface, all: &[Interface]) -> pb::Interface {
    let name = |index| all.iter().find(|other| other.index == index).map(|other| other.name.clone());
    pb::Interface {
        name: one.name.clone(),
        index: one.index,
        kind: one.kind.clone(),
        peer_index: one.peer.unwrap_or_default(),
        controller: one.controller.and_then(name).unwrap_or_default(),
        mac: one.mac.map_or_else(String::new, |mac| mac.to_string()),
        mtu: one.mtu,
        up: one.up,
        addresses: one.addresses.iter().map(|a| format!("{}/{}", a.address, a.len)).collect(),
        received_packets: one.received.packets,
        received_bytes: one.received.bytes,
        received_dropped: one.received.dropped,
        sent_packets: one.sent.packets,
        sent_bytes: one.sent.bytes,
        sent_dropped: one.sent.dropped,
    }
}

fn entry(entry: &Entry) -> pb::ForwardingEntry {
    let (vtep, port, vni) = entry.tunnel.unwrap_or_default();
    pb::ForwardingEntry {
        mac: entry.mac.to_string(),
        interface: entry.interface.clone(),
        table: if entry.tunnel.is_some() { "tunnel" } else { "bridge" }.to_owned(),
        vtep: vtep.map_or_else(String::new, |vtep| vtep.to_string()),
        port: port.map_or(0, u32::from),
        vni: vni.map_or(0, |vni| vni.get()),
        local: entry.local,
    }
}

/// Is an address of the endpoint in it?
fn covers(lease: &pb::LeaseRow, attachment: &Attachment) -> bool {
    let end = |text: &str| text.parse::<std::net::IpAddr>().ok();
    let ends = end(&lease.first).zip(end(&lease.last));
    ends.is_some_and(|(first, last)| {
        attachment.endpoint.addresses.iter().any(|a| first <= a.address && a.address <= last)
    })
}

/// The elements of a list of rules that say something of an endpoint, each with the set or map that it is in.
fn rules_about(rules: &str, attachment: &Attachment) -> Vec<String> {
    let mut words: Vec<String> = attachment.endpoint.addresses.iter().map(|a| a.address.to_string()).collect();
    words.extend([attachment.endpoint.mac.to_string(), port_ifname(attachment.endpoint.id).to_string()]);
    let (mut of, mut found) = ("", Vec::new());
    for line in rules.lines().map(str::trim) {
        if line.starts_with("set ") || line.starts_with("map ") {
            of = line.trim_end_matches(" {");
        }
        let elements = line.trim_start_matches("elements = {").trim_end_matches('}').split(',').map(str::trim);
        let is_meant = |element: &&str| {
            let parts: Vec<&str> = element.split([' ', '"']).collect();
            words.iter().any(|word| parts.contains(&word.as_str()))
        };
        found.extend(elements.filter(is_meant).map(|element| format!("{of}: {element}")));
    }
    found
}

#[cfg(test)]
mod tests;
