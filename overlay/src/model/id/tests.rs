use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn an_id_survives_its_text(bytes: [u8; ID_BYTES]) {
        let id = NetworkId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert!(id.to_string().starts_with(&id.short()));
    }

    #[test]
    fn a_vni_is_always_in_range(bytes: [u8; ID_BYTES]) {
        let vni = Vni::proposal(NetworkId::from_bytes(bytes));
        prop_assert_eq!(Vni::new(vni.get()), Some(vni));
        prop_assert_eq!(Vni::new(vni.next().get()), Some(vni.next()));
    }
}

#[test]
fn vni_0_and_25_bits_are_none() {
    assert_eq!(Vni::new(0), None);
    assert_eq!(Vni::new(1 << 24), None);
    assert_eq!(Vni::new((1 << 24) - 1).map(Vni::next), Vni::new(1));
}

#[test]
fn what_is_not_an_id_is_refused() {
    for text in ["", "00", "0123456789abcdef0123456789abcdeg", "0123456789ABCDEF0123456789ABCDEF"] {
        assert!(text.parse::<HostId>().is_err(), "{text}");
    }
    assert!(HostId::try_from([1_u8; 15].as_slice()).is_err());
}
