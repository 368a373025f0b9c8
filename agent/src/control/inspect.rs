//! Looking inside: what the kernel of this host has for an endpoint, and for a network.

use std::net::IpAddr;

use overlay::cluster::NetworkView;
use overlay::datapath::desired::port_ifname;
use overlay::datapath::firewall::Field;
use overlay::datapath::inspected::{Entry, Inspected, InterfaceInfo, ShownElement, other_end};
use overlay::datapath::kernel_api::StepError;
use overlay::model::endpoint::Endpoint;
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
    let theirs = service.inspector.container(&attachment.netns).await.unwrap_or_default();
    let container_end = host_end.and_then(|end| other_end(&theirs, end));
    let account = service.attacher.state.state().ledger.accounts().get(&id).cloned();
    let cluster = service.cluster();
    let shown = service.shown(&cluster);
    let leases = account.map(|account| shown.leases(&account)).unwrap_or_default();
    Ok(pb::InspectEndpointReply {
        leases: leases.into_iter().filter(|lease| covers(lease, &attachment)).collect(),
        rules: elements_of(&inspected.elements, &attachment.endpoint),
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
    let failed = |error: StepError| Status::internal(super::in_one_line(&error));
    let found = service.inspector.segment(network).await.map_err(failed)?;
    let nothing = || {
        Status::failed_precondition(format!(
            "this host has no endpoint in network `{shown}`, and so nothing of it in its kernel: ask on a host that has one"
        ))
    };
    found.map(|(path, inspected)| (path.display().to_string(), inspected)).ok_or_else(nothing)
}

fn interface(one: &InterfaceInfo, all: &[InterfaceInfo]) -> pb::Interface {
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
    let end = |text: &str| text.parse::<IpAddr>().ok();
    let ends = end(&lease.first).zip(end(&lease.last));
    ends.is_some_and(|(first, last)| {
        attachment.endpoint.addresses.iter().any(|a| first <= a.address && a.address <= last)
    })
}

/// The elements that say something of an endpoint, each with the set or map that it is in.
fn elements_of(elements: &[ShownElement], endpoint: &Endpoint) -> Vec<String> {
    let has = |address: &IpAddr| endpoint.addresses.iter().any(|assigned| assigned.address == *address);
    let port = port_ifname(endpoint.id);
    let is_meant = |field: &Field| match field {
        Field::Address(address) => has(address),
        Field::Bytes(address) => has(&IpAddr::V6(*address)),
        Field::Mac(mac) => *mac == endpoint.mac,
        Field::Interface(ifname) => *ifname == port,
        Field::Within(_) | Field::Protocol(_) | Field::Port(_) => false,
    };
    let meant = elements.iter().filter(|shown| shown.element.fields().any(is_meant));
    meant.map(ShownElement::to_string).collect()
}

#[cfg(test)]
mod tests;
