use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_mac_survives_its_text(bytes: [u8; 6]) {
        if let Some(mac) = Mac::new(bytes) {
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }

    #[test]
    fn nth_and_offset_are_inverse(base: u32, len in 0_u8..=32, offset: u32) {
        let subnet = Subnet::of(IpAddr::V4(base.into()), len).expect("32 bits or less");
        if let Some(address) = subnet.nth(offset.into()) {
            prop_assert_eq!(subnet.offset(address), Some(offset.into()));
        } else {
            prop_assert!(u64::from(offset) >= 1 << subnet.host_bits());
        }
    }

    #[test]
    fn overlap_is_symmetric_and_means_a_shared_end(a: u32, b: u32, la in 0_u8..=32, lb in 0_u8..=32) {
        let a = Subnet::of(IpAddr::V4(a.into()), la).expect("32 bits or less");
        let b = Subnet::of(IpAddr::V4(b.into()), lb).expect("32 bits or less");
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        prop_assert_eq!(a.overlaps(&b), a.contains(b.last()) || b.contains(a.last()));
    }

    #[test]
    fn different_ipv4_addresses_have_different_macs(a: u32, b: u32) {
        let mac = |n: u32| Mac::of_address(IpAddr::V4(n.into()));
        prop_assert_eq!(a == b, mac(a) == mac(b));
    }
}

#[test]
fn a_mac_is_what_docker_would_give() {
    assert_eq!(Mac::of_address([172, 38, 0, 11].into()).to_string(), "02:42:ac:26:00:0b");
}

#[test]
fn malformed_macs_are_refused_with_the_reason() {
    for text in ["", "02:42", "02:42:ac:26:00:0b:11", "2:42:ac:26:00:0b", "02:42:ac:26:00:xx", "02-42-ac-26-00-0b"] {
        assert_eq!(text.parse::<Mac>(), Err(MacError::Malformed(text.to_owned())));
    }
    for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
        assert_eq!(text.parse::<Mac>(), Err(MacError::NotUnicast(text.to_owned())));
    }
}

#[test]
fn a_subnet_with_host_bits_says_what_is_meant() {
    let error = "172.38.0.1/16".parse::<Subnet>().expect_err("host bits");
    assert_eq!(error.to_string(), "`172.38.0.1/16` has host bits set: write the subnet as 172.38.0.0/16");
    for text in ["172.38.0.0", "172.38.0/16", "172.38.0.0/33", "172.38.0.0/", "abc", "", "172.38.0.0/-1"] {
        assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Malformed(text.to_owned())));
    }
}

#[test]
fn interface_names_are_those_of_the_kernel() {
    assert!("eth0".parse::<IfName>().is_ok());
    for text in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-letters-", "tab\t"] {
        assert!(text.parse::<IfName>().is_err(), "{text:?}");
    }
}
