//! `overlayctl network inspect`: in the shape of `docker network inspect`, so that what was written for that can read it. What
//! Docker does not have is under `Overlay`.

use std::time::{Duration, UNIX_EPOCH};

use overlay_proto::v1::{EndpointInfo, InspectNetworkReply, NetworkInfo};
use serde_json::{Map, Value, json};

use crate::filter::scope_of;

/// The first address of a family, with the length of its prefix; as Docker does, empty for none.
fn of_family(endpoint: &EndpointInfo, v6: bool) -> &str {
    endpoint.addresses.iter().find(|address| address.contains(':') == v6).map_or("", String::as_str)
}

fn container(endpoint: &EndpointInfo) -> Value {
    json!({
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": of_family(endpoint, false),
        "IPv6Address": of_family(endpoint, true),
        "Aliases": endpoint.aliases,
        "Host": endpoint.host,
        "State": endpoint.state,
    })
}

/// The subnets, each with what is in it.
fn ipam(network: &NetworkInfo) -> Value {
    let config = network.ranges.iter().map(|range| {
        let mut row = json!({ "Subnet": range.subnet, "Gateway": range.gateway });
        if !range.ip_range.is_empty() {
            row["IPRange"] = json!(range.ip_range);
        }
        if !range.aux_addresses.is_empty() {
            row["AuxiliaryAddresses"] = json!(range.aux_addresses);
        }
        row
    });
    json!({ "Driver": "default", "Options": {}, "Config": config.collect::<Vec<_>>() })
}

/// What Docker would say of it.
pub fn shaped(reply: &InspectNetworkReply) -> Value {
    let network = reply.network.clone().unwrap_or_default();
    let has = |v6: bool| network.subnets.iter().any(|subnet| subnet.contains(':') == v6);
    let created = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(network.created));
    let mut options = Map::new();
    if network.mtu > 0 {
        options.insert("com.docker.network.driver.mtu".to_owned(), json!(network.mtu.to_string()));
    }
    if !network.masquerade {
        options.insert("com.docker.network.bridge.enable_ip_masquerade".to_owned(), json!("false"));
    }
    if !network.icc {
        options.insert("com.docker.network.bridge.enable_icc".to_owned(), json!("false"));
    }
    let containers: Map<String, Value> = reply.endpoints.iter().map(|e| (e.id.clone(), container(e))).collect();
    let peers = reply.members.iter().map(|m| json!({ "Name": m.host, "IP": m.vtep }));
    let hosts = reply.members.iter().map(|m| json!({ "Host": m.host, "State": m.state, "Vtep": m.vtep, "Vni": m.vni }));
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": created.to_string(),
        "Scope": scope_of(&network),
        "Driver": network.driver,
        "EnableIPv4": has(false),
        "EnableIPv6": has(true),
        "IPAM": ipam(&network),
        "Internal": network.internal,
        "Attachable": true,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options,
        "Labels": network.labels,
        "Peers": peers.collect::<Vec<_>>(),
        "Overlay": {
            "Creator": network.creator,
            "Conflict": network.conflict,
            "Vni": network.vni,
            "Netns": reply.netns,
            "Mtu": reply.mtu,
            "Hosts": hosts.collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests;
