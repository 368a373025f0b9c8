use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;
use crate::model::publish::Protocol;

fn table(rules: Vec<Rule>) -> Table {
    Table {
        family: Family::Inet,
        sets: Vec::new(),
        chains: vec![Chain { name: "forward", hook: "type filter hook forward priority filter", rules }],
    }
}

#[test]
fn a_rule_reads_as_nft_has_it() {
    let rule = Rule::new([Match::In("ovu*".to_owned()), Match::NotOut("ovu*".to_owned())], Verdict::Masquerade);
    assert_eq!(rule.to_string(), r#"iifname "ovu*" oifname != "ovu*" counter masquerade"#);
}

#[test]
fn every_change_of_the_rules_changes_the_marks() {
    let a = Rule::new([Match::UdpTo(4789)], Verdict::NoTrack);
    let b = Rule::new([Match::UdpTo(4790)], Verdict::NoTrack);
    let comments =
        [vec![], vec![a.clone()], vec![b.clone()], vec![a.clone(), b.clone()], vec![b, a]].map(|r| table(r).observed());
    for (i, x) in comments.iter().enumerate() {
        assert!(comments.iter().skip(i + 1).all(|y| x != y));
    }
}

#[test]
fn the_script_replaces_the_table_in_one_transaction() {
    let script = table(vec![Rule::new([], Verdict::Drop)]).script();
    assert!(script.starts_with("add table inet overlay\ndelete table inet overlay\ntable inet overlay {"));
    assert!(script.contains("counter drop comment \"ov:"));
}

const LINKED: SetDefinition =
    SetDefinition::set("linked", &[FieldType::Address(IpVersion::V4), FieldType::Protocol, FieldType::Port]);

fn linked(elements: impl IntoIterator<Item = (u8, Protocol, u16)>) -> Table {
    let key = |(last, protocol, port)| {
        vec![Field::Address([10, 0, 0, last].into()), Field::Protocol(protocol), Field::Port(port)]
    };
    let elements = elements.into_iter().map(|e| Element::of(key(e)));
    Table { family: Family::Bridge, sets: vec![LINKED.with(elements)], chains: Vec::new() }
}

proptest! {
    #[test]
    fn what_is_seen_of_a_set_can_be_kept(
        some in btree_set((any::<u8>(), 0..3_usize, 1..=u16::MAX), 0..5),
        more in btree_set((any::<u8>(), 0..3_usize, 1..=u16::MAX), 0..5),
    ) {
        let table = |all: &BTreeSet<(u8, usize, u16)>| linked(all.iter().map(|(a, p, port)| (*a, Protocol::ALL[*p], *port)));
        prop_assert_eq!(table(&some).with(&table(&more).observed(), |_| true), table(&some.union(&more).copied().collect()));
    }
}

#[test]
fn what_is_seen_of_another_set_is_not_kept() {
    let mut seen = linked([(1, Protocol::Tcp, 80)]).observed();
    seen.sets = seen.sets.into_values().map(|elements| ("other".to_owned(), elements)).collect();
    assert_eq!(linked([]).with(&seen, |_| true), linked([]));
}

#[test]
fn only_what_is_worth_it_is_kept() {
    let seen = linked([(1, Protocol::Tcp, 80), (2, Protocol::Tcp, 80)]).observed();
    let is_kept = |element: &Element| element.key.contains(&Field::Address([10, 0, 0, 2].into()));
    assert_eq!(linked([]).with(&seen, is_kept), linked([(2, Protocol::Tcp, 80)]));
}

#[test]
fn sets_change_alone_if_nothing_else_does() {
    let (before, after) = (linked([(1, Protocol::Tcp, 80)]), linked([(2, Protocol::Udp, 53)]));
    assert_eq!(after.changed_sets(&after.observed()), Some(Vec::new()));
    assert_eq!(after.changed_sets(&before.observed()), Some(after.sets.clone()));
    let script = after.sets[0].script(Family::Bridge);
    assert_eq!(script, "flush set bridge overlay linked\nadd element bridge overlay linked { 10.0.0.2 . udp . 53 }\n");
    let ruled = Table { chains: table(vec![Rule::new([], Verdict::Drop)]).chains, ..after };
    assert_eq!(ruled.changed_sets(&before.observed()), None);
}

#[test]
fn a_declaration_reads_as_nft_has_it() {
    const V4: FieldType = FieldType::Address(IpVersion::V4);
    const V6: FieldType = FieldType::Address(IpVersion::V6);
    let minute = std::time::Duration::from_secs(60);
    for (definition, text) in [
        (LINKED, "set linked { type ipv4_addr . inet_proto . inet_service;"),
        (
            SetDefinition::map("ports", &[V6, FieldType::Protocol, FieldType::Port], &[V6, FieldType::Port]).interval(),
            "map ports { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; flags interval;",
        ),
        (
            SetDefinition::set("asked", &[V4, FieldType::Port]).dynamic(9, minute),
            "set asked { type ipv4_addr . inet_service; size 9; flags dynamic,timeout; timeout 60s;",
        ),
        (
            SetDefinition::set("told", &[FieldType::Interface, FieldType::Mac, FieldType::Bytes]),
            "set told { typeof iifname . ether saddr . @th,64,128;",
        ),
    ] {
        assert_eq!(definition.to_string(), text);
    }
}

fn field() -> impl Strategy<Value = Field> {
    let mac = |bytes: [u8; 6]| {
        Field::Mac(crate::model::addr::Mac::new([bytes[0] & 0xfe | 2, 1, 2, 3, 4, bytes[5]]).expect("unicast"))
    };
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| Field::Address(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| Field::Address(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| Field::Bytes(bytes.into())),
        (any::<[u8; 4]>(), 0..32_u8).prop_map(|(bytes, len)| within(bytes, len)),
        (0..3_usize).prop_map(|n| Field::Protocol(Protocol::ALL[n])),
        any::<u16>().prop_map(Field::Port),
        "[a-z]{1,15}".prop_map(|name| Field::Interface(name.parse().expect("a name"))),
        any::<[u8; 6]>().prop_map(mac),
    ]
}

/// The subnet of this length that has the address.
fn within(bytes: [u8; 4], len: u8) -> Field {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    let network = std::net::Ipv4Addr::from(u32::from_be_bytes(bytes) & mask);
    Field::Within(Subnet::of(network.into(), len).expect("a subnet"))
}

proptest! {
    #[test]
    fn what_is_stored_can_be_read(key in proptest::collection::vec(field(), 1..5), value in proptest::collection::vec(field(), 0..3)) {
        let value: Vec<Field> = value.into_iter().filter(|field| !matches!(field, Field::Within(_))).collect();
        let types = |fields: &[Field]| fields.iter().map(Field::kind).collect::<Vec<FieldType>>();
        let element = Element { key, value };
        let read = element.stored().element(&types(&element.key), &types(&element.value));
        prop_assert_eq!(read, Some(element));
    }
}

#[test]
fn what_this_program_does_not_write_is_no_element() {
    let port = |bytes: &[u8]| StoredElement { first: bytes.to_vec(), last: bytes.to_vec(), value: Vec::new() };
    let read = |stored: StoredElement, key: &[FieldType]| stored.element(key, &[]);
    assert_eq!(read(port(&[0, 80, 0, 0]), &[FieldType::Port]), Some(Element::of([Field::Port(80)])));
    assert_eq!(read(port(&[0, 80, 0, 1]), &[FieldType::Port]), None, "something behind it");
    assert_eq!(read(port(&[0, 80]), &[FieldType::Port]), None, "too short");
    assert_eq!(read(port(&[0, 80, 0, 0]), &[]), None, "more than the types say");
    assert_eq!(read(port(&[33, 0, 0, 0]), &[FieldType::Protocol]), None, "no protocol that has published ports");
    let range = StoredElement { first: vec![0, 80, 0, 0], last: vec![0, 90, 0, 0], value: Vec::new() };
    assert_eq!(read(range, &[FieldType::Port]), None, "a range of ports");
    let odd = StoredElement { first: vec![10, 0, 0, 1], last: vec![10, 0, 0, 9], value: Vec::new() };
    assert_eq!(read(odd, &[FieldType::Address(IpVersion::V4)]), None, "a range that is no subnet");
}
