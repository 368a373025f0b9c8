use super::*;
use proptest::prelude::*;

fn network(subnet: &str) -> Network {
    Network {
        id: NetworkId::from_bytes([7; 16]),
        name: "net".parse().expect("a label"),
        ranges: vec![Range::new(subnet.parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: HostId::from_bytes([1; 16]),
        since: 0,
        settings: Settings::default(),
    }
}

proptest! {
    #[test]
    fn every_assignable_address_is_in_exactly_one_block(len in 22_u8..=30, base: u32) {
        let base = std::net::Ipv4Addr::from(base & 0x00ff_ffff | 0x0a00_0000);
        let subnet = Subnet::of(base.into(), len).expect("a length of IPv4");
        let net = network(&subnet.to_string());
        let listed: Vec<IpAddr> = net.blocks().flat_map(|b| net.assignable_in(b).collect::<Vec<_>>()).collect();
        prop_assert_eq!(listed.len(), (1 << subnet.host_bits()) - 3);
        prop_assert!(listed.is_sorted() && listed.iter().all(|a| net.assignable(*a)));
        for block in net.blocks() {
            prop_assert!(net.assignable_in(block).all(|a| net.block_of(a) == Some(block)));
        }
    }

    #[test]
    fn there_are_never_more_blocks_than_a_host_can_speak_of(len in 9_u8..=30) {
        let net = network(&format!("10.0.0.0/{len}").parse::<ipnetwork::IpNetwork>()
            .map(|n| format!("{}/{len}", n.network())).expect("a network"));
        let range = net.ranges[0];
        prop_assert!(u32::from(range.blocks()) <= Range::MAX_BLOCKS);
        prop_assert_eq!(u128::from(range.blocks()) * range.block_size(), 1 << range.subnet.host_bits());
    }
}

proptest! {
    #[test]
    fn what_is_offered_is_what_is_assignable_in_the_pool(len in 20_u8..=26, more in 0_u8..=3, which: u32) {
        let mut net = network(&format!("10.0.0.0/{len}"));
        let bits = u32::from(32 - len - more);
        let base = u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0)) + ((which % (1 << more)) << bits);
        let pool = Subnet::of(std::net::Ipv4Addr::from(base).into(), len + more).expect("IPv4");
        net.ranges[0] = net.ranges[0].with_pool(pool).expect("it is inside, and not too small");
        let all = |offered: bool| -> Vec<IpAddr> {
            let of = |b| if offered { net.offered_in(b).collect::<Vec<_>>() } else { net.assignable_in(b).collect() };
            net.blocks().flat_map(of).collect()
        };
        prop_assert_eq!(all(true), all(false).into_iter().filter(|a| pool.contains(*a)).collect::<Vec<_>>());
        prop_assert!(net.blocks().all(|b| net.offers(b) || net.offered_in(b).next().is_none()));
    }
}

#[test]
fn an_auxiliary_address_is_no_endpoint_s() {
    let mut net = network("10.0.0.0/28");
    let router: IpAddr = [10, 0, 0, 5].into();
    assert_eq!(net.admit(router), Ok(()));
    net.settings.auxiliary.insert(router, "router".parse().expect("a label"));
    assert_eq!(net.admit(router), Err(Unfit::Auxiliary));
    assert!(net.blocks().all(|b| net.assignable_in(b).all(|a| a != router)));
}

#[test]
fn a_slash_16_has_1024_blocks_of_64() {
    let range = network("172.38.0.0/16").ranges[0];
    assert_eq!((range.blocks(), range.block_size()), (1024, 64));
}

#[test]
fn what_no_network_may_have_is_refused() {
    let error = |subnet: &str, gateway: Option<&str>| {
        let gateway = gateway.map(|g| g.parse().expect("an address"));
        Range::new(subnet.parse().expect("a subnet"), gateway).expect_err(subnet).to_string()
    };
    for subnet in ["10.0.0.0/8", "0.0.0.0/0", "10.0.0.0/31", "10.0.0.1/32"] {
        assert!(error(subnet, None).contains("wrong size"), "{subnet}");
    }
    assert!(error("127.0.0.0/16", None).contains("loopback"));
    assert!(error("169.254.0.0/17", None).contains("link-local"));
    assert!(error("fd00::/127", None).contains("/32 to /126"));
    let gateways =
        [("10.0.0.0", "subnet itself"), ("10.0.0.255", "broadcast"), ("10.0.1.1", "outside"), ("fd00::1", "outside")];
    for (gateway, why) in gateways {
        let error = error("10.0.0.0/24", Some(gateway));
        assert!(error.contains(&format!("gateway {gateway}")) && error.contains(why), "{error}");
    }
}

#[test]
fn an_address_that_no_endpoint_can_have_is_told_what_it_is() {
    let net = network("10.0.0.0/24");
    for (address, admitted) in [
        ("10.0.0.0", Err(Unfit::OfSubnet)),
        ("10.0.0.1", Err(Unfit::Gateway)),
        ("10.0.0.2", Ok(())),
        ("10.0.0.254", Ok(())),
        ("10.0.0.255", Err(Unfit::Broadcast)),
        ("10.0.1.0", Err(Unfit::Outside)),
        ("fd00::1", Err(Unfit::Outside)),
    ] {
        let address = address.parse().expect("an address");
        assert_eq!((net.admit(address), net.assignable(address)), (admitted, admitted.is_ok()), "{address}");
    }
}

#[test]
fn names_are_dns_labels_in_lower_case() {
    assert_eq!("Redis_1".parse::<Name>().map(|n| n.to_string()), Ok("redis_1".to_owned()));
    assert!("x".repeat(63).parse::<Name>().is_ok());
    for text in ["", "-a", "a-", "a.b", "a b", "é", "_x", &"x".repeat(64)] {
        assert!(text.parse::<Name>().is_err(), "{text:?}");
    }
}

/// With an IPv6 subnet beside the IPv4 one, or instead of it.
fn network_of(subnets: &[&str]) -> Network {
    let range = |subnet: &&str| Range::new(subnet.parse().expect("a subnet"), None).expect("a range");
    Network { ranges: subnets.iter().map(range).collect(), ..network("10.0.0.0/24") }
}

#[test]
fn an_ipv6_subnet_is_cut_into_blocks_as_any_other() {
    let net = network_of(&["10.0.0.0/24", "fd00::/64"]);
    assert_eq!((net.ranges[1].blocks(), net.ranges[1].block_size()), (1024, 1 << 54));
    let blocks: Vec<BlockId> = net.blocks().collect();
    assert_eq!(blocks.len(), 64 + 1024);
    let first = blocks[64];
    // The first is that of the routers, the second the gateway's.
    let offered: Vec<String> = net.offered_in(first).take(2).map(|a| a.to_string()).collect();
    assert_eq!(offered, ["fd00::2", "fd00::3"]);
    assert_eq!(net.count_assignable_in(&net.block_subnet(first).expect("a block")), (1 << 54) - 2);
    let last: IpAddr = "fd00::ffff:ffff:ffff:ffff".parse().expect("an address");
    assert_eq!((net.admit(last), net.block_of(last)), (Ok(()), blocks.last().copied()), "IPv6 has no broadcast");
    assert_eq!(net.versions().collect::<Vec<_>>(), crate::model::addr::IpVersion::ALL);
}

#[test]
fn a_pool_at_the_end_of_a_large_block_is_found_at_once() {
    let mut net = network_of(&["fd00::/64"]);
    let pool = "fd00::ffff:ffff:ffff:fff0/124".parse().expect("a subnet");
    net.ranges[0] = net.ranges[0].with_pool(pool).expect("it is inside");
    let offering: Vec<BlockId> = net.blocks().filter(|block| net.offers(*block)).collect();
    assert_eq!(offering.len(), 1);
    assert_eq!(net.offered_in(offering[0]).count(), 16);
    assert_eq!(net.offered_subnet(offering[0]), Some(pool));
}

proptest! {
    #[test]
    fn what_can_be_had_is_counted_as_if_it_were_gone_through(len in 20_u8..=30, more in 0_u8..=8, which: u32, v6: bool) {
        let (base, width) = if v6 { ("fd00::", 96) } else { ("10.0.0.0", 0) };
        let mut net = network_of(&[format!("{base}/{}", len + width).as_str()]);
        let range = net.ranges[0];
        let aux = range.subnet.nth(u128::from(which) % (1 << range.subnet.host_bits())).expect("it is inside");
        net.settings.auxiliary.insert(aux, "router".parse().expect("a label"));
        let part_len = (len + more).min(32) + width;
        let part = Subnet::of(aux, part_len).expect("a length of its version");
        let listed = part.addresses().filter(|a| net.assignable(*a)).count();
        prop_assert_eq!(net.count_assignable_in(&part), u128::try_from(listed).expect("few"));
    }
}
