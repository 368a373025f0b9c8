//! What is shown of networks, their members, endpoints and links.

use std::net::IpAddr;

use overlay::cluster::{Located, NetworkView};
use overlay::datapath::desired::{SERVICE_ADDRESS, port_ifname};
use overlay::model::addr::IpVersion;
use overlay::model::host::Liveness;
use overlay::model::id::{HostId, Vni};
use overlay::model::intent::Attachment;
use overlay::model::links::Link;
use overlay::model::network::{Network, Range, Settings};
use overlay::model::publish::{HostPort, Target};
use overlay::operations::link::missing;
use overlay_proto::v1 as pb;

use super::{Shown, count, state};

impl Shown<'_> {
    pub(in crate::control) fn network(&self, view: &NetworkView) -> pb::NetworkInfo {
        let network = &view.network;
        let settings = &network.settings;
        pb::NetworkInfo {
            id: network.id.to_string(),
            name: view.shown_name(),
            subnets: network.ranges.iter().map(|r| r.subnet.to_string()).collect(),
            gateways: network.ranges.iter().map(|r| r.gateway.to_string()).collect(),
            endpoints: count(view.endpoints.values()),
            hosts: count(view.vnis.values()),
            vni: view.vnis.get(&self.me).map_or(0, |vni| vni.get()),
            conflict: view.shadowed,
            creator: self.host_name(network.creator),
            driver: settings.driver.to_string(),
            ranges: network.ranges.iter().map(|range| address_range(range, settings)).collect(),
            internal: settings.internal,
            masquerade: settings.masquerade,
            icc: settings.icc,
            mtu: settings.mtu.map_or(0, u32::from),
            labels: settings.labels.clone(),
            created: network.since,
            apart: view.apart,
        }
    }

    pub(in crate::control) fn members(&self, view: &NetworkView) -> Vec<pb::MemberRow> {
        let row = |(id, vni): (&HostId, &Vni)| pb::MemberRow {
            host: self.host_name(*id),
            state: self.host_state(*id),
            vtep: self.cluster.hosts.get(id).map_or_else(String::new, |h| h.info.vtep.to_string()),
            vni: vni.get(),
        };
        let mut rows: Vec<_> = view.vnis.iter().map(row).collect();
        rows.sort_by(|a, b| a.host.cmp(&b.host));
        rows
    }

    pub(in crate::control) fn endpoints(&self, view: &NetworkView) -> Vec<pb::EndpointInfo> {
        let mut rows: Vec<_> = view.endpoints.values().map(|located| self.endpoint(view, located)).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn endpoint(&self, view: &NetworkView, located: &Located) -> pb::EndpointInfo {
        let endpoint = &located.endpoint;
        let mut info = pb::EndpointInfo {
            id: endpoint.id.to_string(),
            network: view.shown_name(),
            name: endpoint.name.to_string(),
            aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
            addresses: located.addresses().map(|a| prefixed(&view.network, a)).collect(),
            mac: endpoint.mac.to_string(),
            host: self.host_name(located.host),
            state: state(located.liveness).to_owned(),
            gateway: gateway(&view.network, IpVersion::V4),
            gateway6: gateway(&view.network, IpVersion::V6),
            dns: dns(&view.network),
            ..pb::EndpointInfo::default()
        };
        if let Some(attachment) = self.intents.attachments.get(&endpoint.id).filter(|_| located.host == self.me) {
            info.ifname = attachment.ifname.to_string();
            info.host_ifname = port_ifname(endpoint.id).to_string();
            info.netns = attachment.netns.path.display().to_string();
            info.netns_cookie = attachment.netns.cookie;
            info.ports = published(attachment);
        }
        info
    }

    /// An endpoint of this host, whether the view has it yet or not.
    pub(in crate::control) fn attachment(&self, attachment: &Attachment) -> pb::EndpointInfo {
        let endpoint = &attachment.endpoint;
        let view = self.cluster.networks.get(&endpoint.network);
        pb::EndpointInfo {
            id: endpoint.id.to_string(),
            network: view.map_or_else(|| endpoint.network.short(), |view| view.shown_name()),
            name: endpoint.name.to_string(),
            aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
            addresses: view
                .into_iter()
                .flat_map(|v| endpoint.addresses.iter().map(|a| prefixed(&v.network, a.address)))
                .collect(),
            mac: endpoint.mac.to_string(),
            host: self.host_name(self.me),
            state: state(Liveness::Live).to_owned(),
            ifname: attachment.ifname.to_string(),
            host_ifname: port_ifname(endpoint.id).to_string(),
            gateway: view.map_or_else(String::new, |v| gateway(&v.network, IpVersion::V4)),
            gateway6: view.map_or_else(String::new, |v| gateway(&v.network, IpVersion::V6)),
            netns: attachment.netns.path.display().to_string(),
            netns_cookie: attachment.netns.cookie,
            dns: view.map_or_else(|| SERVICE_ADDRESS.to_string(), |v| dns(&v.network)),
            ports: published(attachment),
        }
    }
}

/// A link.
pub(in crate::control) fn link(view: &NetworkView, link: &Link) -> pb::LinkRow {
    pb::LinkRow {
        network: view.shown_name(),
        from: link.from.to_string(),
        to: link.to.to_string(),
        protocol: link.service.map_or_else(String::new, |service| service.protocol.to_string()),
        port: link.service.map_or(0, |service| service.port.into()),
        missing: missing(view, link).map(ToString::to_string).collect(),
    }
}

fn prefixed(network: &Network, address: IpAddr) -> String {
    match network.range_of(address) {
        Some((_, range)) => format!("{address}/{}", range.subnet.prefix_len()),
        None => address.to_string(),
    }
}

fn gateway(network: &Network, version: IpVersion) -> String {
    let range = network.ranges.iter().find(|range| range.subnet.version() == version);
    range.map_or_else(String::new, |range| range.gateway.to_string())
}

/// Where names are asked for: without IPv4, at the gateway.
fn dns(network: &Network) -> String {
    let has_ipv4 = network.versions().any(|version| version == IpVersion::V4);
    if has_ipv4 { SERVICE_ADDRESS.to_string() } else { gateway(network, IpVersion::V6) }
}

fn address_range(range: &Range, settings: &Settings) -> pb::AddressRange {
    let auxiliary = settings.auxiliary.iter().filter(|(address, _)| range.subnet.contains(**address));
    pb::AddressRange {
        subnet: range.subnet.to_string(),
        gateway: range.gateway.to_string(),
        ip_range: range.pool.map_or_else(String::new, |pool| pool.to_string()),
        aux_addresses: auxiliary.map(|(address, name)| (name.to_string(), address.to_string())).collect(),
    }
}

/// As Docker does, a row for each version of IP that the endpoint has.
fn published(attachment: &Attachment) -> Vec<pb::PublishedPort> {
    let has = |version: &IpVersion| attachment.endpoint.addresses.iter().any(|a| IpVersion::of(a.address) == *version);
    let row = |at: IpAddr, host: &HostPort, target: &Target| pb::PublishedPort {
        host_ip: at.to_string(),
        host_port: host.port.into(),
        port: target.port.into(),
        protocol: host.protocol.to_string(),
        allow_from: target.allowed.iter().map(ToString::to_string).collect(),
    };
    let rows = |(host, target): (&HostPort, &Target)| -> Vec<pb::PublishedPort> {
        IpVersion::ALL.iter().filter(|v| has(v)).filter_map(|v| Some(row(host.at(*v)?, host, target))).collect()
    };
    attachment.published.iter().flat_map(rows).collect()
}
