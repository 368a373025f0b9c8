//! The keys that `overlayctl -o json` prints. Scripts rely on them: they are only ever added.

#![forbid(unsafe_code)]

use overlay_proto::v1 as wire;
use serde::Serialize;

fn keys<T: Serialize + Default>() -> Vec<String> {
    let value = serde_json::to_value(T::default()).expect("a message is JSON");
    let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    keys
}

#[test]
fn what_connect_and_endpoint_ls_print() {
    let expected = [
        "addresses",
        "aliases",
        "dns",
        "gateway",
        "gateway6",
        "host",
        "host_ifname",
        "id",
        "ifname",
        "mac",
        "name",
        "netns",
        "netns_cookie",
        "network",
        "ports",
        "state",
    ];
    assert_eq!(keys::<wire::EndpointInfo>(), expected);
    let port = ["allow_from", "host_ip", "host_port", "port", "protocol"];
    assert_eq!(keys::<wire::PublishedPort>(), port);
}

#[test]
fn what_network_prints() {
    let network = [
        "apart",
        "conflict",
        "created",
        "creator",
        "driver",
        "endpoints",
        "gateways",
        "hosts",
        "icc",
        "id",
        "internal",
        "labels",
        "masquerade",
        "mtu",
        "name",
        "ranges",
        "subnets",
        "vni",
    ];
    assert_eq!(keys::<wire::NetworkInfo>(), network);
    assert_eq!(keys::<wire::AddressRange>(), ["aux_addresses", "gateway", "ip_range", "subnet"]);
    assert_eq!(keys::<wire::InspectNetworkReply>(), ["endpoints", "members", "mtu", "netns", "network"]);
    assert_eq!(keys::<wire::MemberRow>(), ["host", "state", "vni", "vtep"]);
}

#[test]
fn what_link_prints() {
    assert_eq!(keys::<wire::LinkRow>(), ["from", "missing", "network", "port", "protocol", "to"]);
}

#[test]
fn what_looking_inside_prints() {
    let endpoint = ["container_end", "endpoint", "host_end", "leases", "rules", "segment"];
    assert_eq!(keys::<wire::InspectEndpointReply>(), endpoint);
    assert_eq!(keys::<wire::InspectKernelReply>(), ["entries", "interfaces", "neighbours", "netns", "rules"]);
    assert_eq!(keys::<wire::ForwardingEntry>(), ["interface", "local", "mac", "port", "table", "vni", "vtep"]);
    assert_eq!(keys::<wire::Neighbour>(), ["address", "mac"]);
    let interface = [
        "addresses",
        "controller",
        "index",
        "kind",
        "mac",
        "mtu",
        "name",
        "peer_index",
        "received_bytes",
        "received_dropped",
        "received_packets",
        "sent_bytes",
        "sent_dropped",
        "sent_packets",
        "up",
    ];
    assert_eq!(keys::<wire::Interface>(), interface);
}

#[test]
fn what_host_lease_and_fdb_print() {
    let host = [
        "endpoints",
        "heir",
        "id",
        "is_self",
        "name",
        "peer",
        "phase",
        "silent_seconds",
        "silent_since_start",
        "state",
        "vtep",
        "vxlan_port",
        "waits_for",
    ];
    assert_eq!(keys::<wire::HostRow>(), host);
    let lease = ["blocks", "count", "epoch", "first", "free", "holder", "holder_state", "kind", "last"];
    assert_eq!(keys::<wire::LeaseRow>(), lease);
    assert_eq!(keys::<wire::FdbRow>(), ["addresses", "host", "kernel", "mac", "name", "vni", "vtep"]);
}

#[test]
fn what_forget_and_trust_disk_print() {
    assert_eq!(keys::<wire::ForgetProgress>(), ["done", "hosts", "waits_for"]);
    assert_eq!(keys::<wire::Waiting>(), ["host", "state"]);
    assert_eq!(keys::<wire::TrustDiskReply>(), ["was_unchecked"]);
}

#[test]
fn what_status_prints() {
    let expected = [
        "apart",
        "blocking_chains",
        "contested",
        "dns",
        "draining",
        "dropped",
        "endpoints",
        "failures",
        "gossip",
        "gossip_limits",
        "host",
        "host_id",
        "hosts",
        "hosts_live",
        "last_round",
        "networks",
        "phase",
        "queries",
        "settled",
        "strict_boot_check",
        "synced",
        "underlay_mtu",
        "unopened",
        "version",
        "vtep",
        "vxlan_port",
        "waits_for",
    ];
    assert_eq!(keys::<wire::StatusReply>(), expected);
    assert_eq!(keys::<wire::Draining>(), ["endpoints", "id", "network"]);
    assert_eq!(keys::<wire::GossipLimit>(), ["limit", "name", "near", "used"]);
    assert_eq!(keys::<wire::UnopenedRow>(), ["datagrams", "from", "seconds_ago"]);
}
