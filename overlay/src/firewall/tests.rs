use super::*;

fn table(rules: Vec<Rule>) -> Table {
    Table {
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
