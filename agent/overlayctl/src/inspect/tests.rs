use overlay_proto::v1::{AddressRange, MemberRow};

use super::*;

#[test]
fn what_scripts_ask_docker_for_is_where_docker_has_it() {
    let network = NetworkInfo {
        id: "00ff".to_owned(),
        name: "web".to_owned(),
        subnets: vec!["172.38.0.0/16".to_owned(), "fd00::/64".to_owned()],
        ranges: vec![
            AddressRange {
                subnet: "172.38.0.0/16".to_owned(),
                gateway: "172.38.0.1".to_owned(),
                ip_range: "172.38.5.0/24".to_owned(),
                aux_addresses: [("router".to_owned(), "172.38.5.9".to_owned())].into(),
            },
            AddressRange { subnet: "fd00::/64".to_owned(), gateway: "fd00::1".to_owned(), ..AddressRange::default() },
        ],
        driver: "vxlan".to_owned(),
        mtu: 1400,
        labels: [("tier".to_owned(), "web".to_owned())].into(),
        created: 1_000_000_000,
        vni: 7,
        ..NetworkInfo::default()
    };
    let endpoint = EndpointInfo {
        id: "ee11".to_owned(),
        name: "r1".to_owned(),
        addresses: vec!["172.38.0.11/16".to_owned()],
        mac: "02:42:ac:26:00:0b".to_owned(),
        host: "h1".to_owned(),
        ..EndpointInfo::default()
    };
    let member = MemberRow { host: "h1".to_owned(), vtep: "192.0.2.1".to_owned(), ..MemberRow::default() };
    let reply = InspectNetworkReply {
        network: Some(network),
        endpoints: vec![endpoint],
        members: vec![member],
        netns: "/run/overlayd/netns/00ff".to_owned(),
        mtu: 1400,
    };
    let shown = shaped(&reply);
    for (pointer, value) in [
        ("/Name", json!("web")),
        ("/Id", json!("00ff")),
        ("/Created", json!("2001-09-09T01:46:40Z")),
        ("/Scope", json!("global")),
        ("/Driver", json!("vxlan")),
        ("/EnableIPv6", json!(true)),
        ("/Internal", json!(false)),
        ("/IPAM/Config/0/Subnet", json!("172.38.0.0/16")),
        ("/IPAM/Config/0/Gateway", json!("172.38.0.1")),
        ("/IPAM/Config/0/IPRange", json!("172.38.5.0/24")),
        ("/IPAM/Config/0/AuxiliaryAddresses/router", json!("172.38.5.9")),
        ("/IPAM/Config/1", json!({ "Subnet": "fd00::/64", "Gateway": "fd00::1" })),
        ("/Containers/ee11/Name", json!("r1")),
        ("/Containers/ee11/EndpointID", json!("ee11")),
        ("/Containers/ee11/MacAddress", json!("02:42:ac:26:00:0b")),
        ("/Containers/ee11/IPv4Address", json!("172.38.0.11/16")),
        ("/Containers/ee11/IPv6Address", json!("")),
        ("/Options/com.docker.network.driver.mtu", json!("1400")),
        ("/Labels/tier", json!("web")),
        ("/Peers/0/IP", json!("192.0.2.1")),
        ("/Overlay/Vni", json!(7)),
        ("/Overlay/Netns", json!("/run/overlayd/netns/00ff")),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&value), "{pointer} of {shown:#}");
    }
}
