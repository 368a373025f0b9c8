//! What goes over the wire comes back; what comes from outside is read or refused, and breaks nothing.

use overlay::ledger::{Claim, Forget};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::values::*;
use super::*;
use overlay_gossip::{MAX_KEY, MAX_VALUE};

macro_rules! comes_back {
    ($($law:ident: $values:expr => $wire:ty),* $(,)?) => {
        proptest! {$(
            #[test]
            fn $law(value in $values) {
                prop_assert_eq!(there_and_back::<_, $wire>(&value), Ok(value));
            }
        )*}
    };
}

comes_back! {
    a_host_comes_back: hosts() => pb::HostInfo,
    a_range_comes_back: ranges() => pb::Range,
    a_network_comes_back: definitions() => pb::Network,
    a_membership_comes_back: memberships() => pb::Membership,
    a_version_comes_back: versions() => pb::Version,
    a_block_comes_back: blocks() => pb::Block,
    a_run_comes_back: runs() => pb::holding::Run,
    a_statement_comes_back: statements() => pb::Statement,
    an_endpoint_comes_back: endpoints_in(network_ids()) => pb::Endpoint,
    an_attachment_comes_back: attachments() => pb::Attachment,
    a_seat_comes_back: (vnis(), any::<u16>()).prop_map(|(vni, transit)| Seat { vni, transit }) => pb::Seat,
    a_block_lease_comes_back:
        (counts(), host_ids()).prop_map(|(epoch, holder)| BlockLease { epoch, holder }) => pb::Lease,
    an_address_lease_comes_back: address_leases() => pb::Lease,
    a_rest_comes_back:
        (proptest::option::of(names()), any::<u64>()).prop_map(|(name, since)| Rest { name, since }) => pb::Rest,
}

proptest! {
    #[test]
    fn what_is_said_of_members_comes_back_whole(
        activation in standings(),
        member_list in welcomes(),
        ledger_snapshot in testimonies(),
        (boot, force) in (boots(), any::<bool>()),
        (sealed_by, before) in (btree_set(host_ids(), 0..4), btree_set(host_ids(), 0..4)),
        (network, runs, borrowed) in (network_ids(), vec(runs(), 0..4), btree_map(addresses(), versions(), 0..4)),
    ) {
        prop_assert_eq!(there_and_back::<_, pb::Activation>(&activation), Ok(activation));
        prop_assert_eq!(there_and_back::<_, pb::MemberList>(&member_list), Ok(member_list));
        prop_assert_eq!(there_and_back::<_, pb::LedgerSnapshot>(&ledger_snapshot), Ok(ledger_snapshot));
        let forget = Forget { boot, sealed_by, before, force };
        prop_assert_eq!(there_and_back::<_, pb::Forget>(&forget), Ok(forget));
        let claim = (network, Claim { runs, borrowed });
        prop_assert_eq!(there_and_back::<_, pb::admit_request::Claim>(&claim), Ok(claim));
    }

    #[test]
    fn a_record_comes_back_whole(record in records()) {
        prop_assert_eq!(decode(&encode_record(&record)), (record, Vec::new()));
    }

    #[test]
    fn every_key_and_value_can_be_said_in_gossip(record in records()) {
        for (key, value) in encode_record(&record) {
            prop_assert!(key.len() <= MAX_KEY && value.len() <= MAX_VALUE, "{}: {} bytes", key, value.len());
        }
    }

    #[test]
    fn keys_and_schemas_of_a_later_version_are_left_alone(
        record in records(),
        kind in "[a-z]{1,3}",
        schema in "[^1]",
        body in "[A-Za-z0-9_-]{0,40}",
    ) {
        prop_assume!(!["h", "f", "n", "x", "b", "l", "o", "k", "e"].contains(&kind.as_str()));
        let id = NetworkId::from_bytes([9; 16]);
        let mut entries = encode_record(&record);
        entries.insert(format!("{kind}/{id}/0"), format!("1{body}"));
        for known in ["f", "n", "x", "b", "l", "o", "k", "e"] {
            entries.entry(format!("{known}/{id}/later")).or_insert_with(|| format!("{schema}{body}"));
        }
        entries.insert("~".to_owned(), "17".to_owned());
        prop_assert_eq!(decode(&entries), (record, Vec::new()));
    }

    #[test]
    fn a_broken_value_loses_only_itself(record in records(), which in any::<prop::sample::Index>(), junk in "[^A-Za-z0-9_-]{1,9}") {
        let whole = encode_record(&record);
        prop_assume!(!whole.is_empty());
        let key = which.get(&whole.keys().cloned().collect::<Vec<_>>()).clone();
        let mut broken = whole.clone();
        broken.insert(key.clone(), format!("1{junk}"));
        let mut without = whole;
        without.remove(&key);
        let (decoded, errors) = decode(&broken);
        prop_assert_eq!(decoded, decode(&without).0);
        prop_assert_eq!(errors.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), vec![key]);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        key in "[hfnxblkoe](/[0-9a-f]{32}|/.{0,8}){0,3}",
        bytes in vec(any::<u8>(), 0..200),
        text in ".{0,60}",
    ) {
        use base64::Engine;
        let sealed = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let id = NetworkId::from_bytes([9; 16]);
        for kind in ["f", "n", "x", "b", "l", "o", "k", "e"] {
            decode_record([(format!("{kind}/{id}/0").as_str(), format!("1{sealed}").as_str())]);
        }
        decode_record([("h", format!("1{sealed}").as_str()), (&key, &text), (&key, &format!("1{sealed}"))]);
    }

    #[test]
    fn bytes_of_a_known_shape_with_junk_in_them_never_panic(
        record in records(),
        flips in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let mut entries = encode_record(&record);
        let keys: Vec<String> = entries.keys().cloned().collect();
        prop_assume!(!keys.is_empty());
        for (key, at, byte) in flips {
            let value = entries.get_mut(key.get(&keys)).expect("a key of it");
            let mut bytes = URL_SAFE_NO_PAD.decode(value.split_at(1).1).expect("base64");
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            *value = format!("1{}", URL_SAFE_NO_PAD.encode(bytes));
        }
        let (record, _) = decode(&entries);
        // What was read goes on to be worked with.
        for membership in record.networks.values() {
            let network = &membership.network;
            prop_assert!(network.blocks().count() <= network.ranges.len() * 1024);
            prop_assert!(network.range_of(IpAddr::from([1, 1, 1, 1])).is_none_or(|(n, _)| usize::from(n) < MAX_RANGES));
        }
    }
}
