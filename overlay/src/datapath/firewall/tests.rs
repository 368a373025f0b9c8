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
    let marks =
        [vec![], vec![a.clone()], vec![b.clone()], vec![a.clone(), b.clone()], vec![b, a]].map(|r| table(r).marks());
    for (i, x) in marks.iter().enumerate() {
        assert!(marks.iter().skip(i + 1).all(|y| x != y));
    }
}

#[test]
fn the_script_replaces_the_table_in_one_transaction() {
    let script = table(vec![Rule::new([], Verdict::Drop)]).script();
    assert!(script.starts_with("add table inet overlay\ndelete table inet overlay\ntable inet overlay {"));
    assert!(script.contains("counter drop comment \"ov:"));
}

fn linked(elements: impl IntoIterator<Item = (u8, Protocol, u16)>) -> Table {
    let kind = "set linked { type ipv4_addr . inet_proto . inet_service;";
    let key = |(last, protocol, port)| {
        vec![Field::Address([10, 0, 0, last].into()), Field::Protocol(protocol), Field::Port(port)]
    };
    let elements = elements.into_iter().map(|e| Element::of(key(e))).collect();
    Table { family: Family::Bridge, sets: vec![Set { name: "linked", kind, elements }], chains: Vec::new() }
}

proptest! {
    #[test]
    fn what_is_seen_of_a_set_can_be_kept(
        some in btree_set((any::<u8>(), 0..3_usize, 1..=u16::MAX), 0..5),
        more in btree_set((any::<u8>(), 0..3_usize, 1..=u16::MAX), 0..5),
    ) {
        let table = |all: &BTreeSet<(u8, usize, u16)>| linked(all.iter().map(|(a, p, port)| (*a, Protocol::ALL[*p], *port)));
        prop_assert_eq!(table(&some).with(&table(&more).marks(), |_| true), table(&some.union(&more).copied().collect()));
    }
}

#[test]
fn what_is_seen_of_another_set_is_not_kept() {
    let mut seen = linked([(1, Protocol::Tcp, 80)]).marks();
    seen[0].0 = "@other".to_owned();
    assert_eq!(linked([]).with(&seen, |_| true), linked([]));
}

#[test]
fn only_what_is_worth_it_is_kept() {
    let seen = linked([(1, Protocol::Tcp, 80), (2, Protocol::Tcp, 80)]).marks();
    let is_kept = |element: &Element| element.key.contains(&Field::Address([10, 0, 0, 2].into()));
    assert_eq!(linked([]).with(&seen, is_kept), linked([(2, Protocol::Tcp, 80)]));
}

#[test]
fn sets_change_alone_if_nothing_else_does() {
    let (before, after) = (linked([(1, Protocol::Tcp, 80)]), linked([(2, Protocol::Udp, 53)]));
    assert_eq!(after.changed_sets(&after.marks()), Some(Vec::new()));
    assert_eq!(after.changed_sets(&before.marks()), Some(after.sets.clone()));
    let script = after.sets[0].script(Family::Bridge);
    assert_eq!(script, "flush set bridge overlay linked\nadd element bridge overlay linked { 10.0.0.2 . udp . 53 }\n");
    let ruled = Table { chains: table(vec![Rule::new([], Verdict::Drop)]).chains, ..after };
    assert_eq!(ruled.changed_sets(&before.marks()), None);
}
