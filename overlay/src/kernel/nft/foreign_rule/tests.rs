//! What rules of others do, read from messages of a real kernel.

use super::*;

/// Chain of the recorded rules of `nft`.
const NFT: &str = "passing";
/// Chain of those of `iptables`.
const IPTABLES: &str = "FORWARD";
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE`
const NEWRULE: u16 = 10 << 8 | 6;

/// The message that was recorded of a rule.
fn recorded(rule: &str) -> Vec<u8> {
    let lines = include_str!("recorded.txt").lines().skip_while(|line| *line != rule).skip(1);
    let digits: String = lines.take_while(|line| line.starts_with(' ')).map(str::trim).collect();
    assert!(!digits.is_empty(), "`{rule}` is not recorded");
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("a byte");
    digits.as_bytes().chunks(2).map(byte).collect()
}

fn read(rule: &str, chain: &str) -> ForeignRule {
    ForeignRule::read(&Answer::of(NEWRULE, &recorded(rule)), chain).expect("a rule of the chain")
}

/// Is this text anywhere in the message of a rule?
fn mentions(rule: &str, text: &str) -> bool {
    recorded(rule).windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_rule_names_us_if_it_compares_the_name_of_an_interface_with_ours() {
    for rule in [r#"iifname "ovu*" accept"#, r#"oifname != "ovu0123456789ab" drop"#] {
        assert!(read(rule, NFT).names_us, "{rule}");
    }
    for rule in [
        r#"-i ovu+ -o wan0 -m comment --comment "overlayd:out:wan0" -j ACCEPT"#,
        "! -i ovu+ -m conntrack --ctstate NEW -p tcp --dport 5 -j DROP",
    ] {
        assert!(read(rule, IPTABLES).names_us, "{rule}");
    }
}

#[test]
fn an_address_of_the_same_bytes_is_no_name_of_ours() {
    let (alone, besides_a_name) =
        ("ip saddr 111.118.117.0/24 accept", r#"iifname "eth0" ip daddr 111.118.117.9 jump ovu_log"#);
    for rule in [alone, besides_a_name] {
        assert!(mentions(rule, "ovu"), "a search among the bytes would find it");
        assert!(!read(rule, NFT).names_us, "{rule}");
    }
}

#[test]
fn a_comment_names_nobody() {
    let rule = r#"oifname "eth0" comment "not ovu0123456789ab""#;
    assert!(mentions(rule, "ovu"));
    let read = read(rule, NFT);
    assert!(!read.names_us && !read.is_ours());
    assert_eq!(read.comment.as_deref(), Some("not ovu0123456789ab"));
}

#[test]
fn only_a_jump_or_goto_to_the_very_chain_calls_it() {
    for rule in ["-j DOCKER-USER", "-g DOCKER-USER"] {
        assert_eq!(read(rule, IPTABLES).calls, Calls::DockerUser, "{rule}");
    }
    for rule in ["-j DOCKER-USER-LOG", r#"-m comment --comment "before DOCKER-USER" -j ACCEPT"#] {
        assert!(mentions(rule, "DOCKER-USER"), "a search among the bytes would find it");
        assert_eq!(read(rule, IPTABLES).calls, Calls::Nothing, "{rule}");
    }
}

#[test]
fn a_rule_of_ours_is_known_by_its_comment_also_as_iptables_restores_it() {
    let rule = read(r#"-i ovu+ -o wan0 -m comment --comment "overlayd:out:wan0" -j ACCEPT"#, IPTABLES);
    assert!(rule.is_ours());
    assert_eq!((rule.handle, rule.comment.as_deref()), (8, Some("overlayd:out:wan0")));
}

#[test]
fn a_rule_of_another_chain_is_left_out() {
    assert_eq!(ForeignRule::read(&Answer::of(NEWRULE, &recorded("-j DOCKER-USER")), NFT), None);
}

#[test]
fn a_register_that_was_written_again_has_no_name_any_more() {
    let (register, other) = (Register::Reg1, Register::Reg2);
    let names_us = |middle: Vec<Action>| {
        let all = [vec![Action::LoadName(register)], middle, vec![Action::Compare(register, b"ovu".to_vec())]];
        ForeignRule::of(&all.concat()).names_us
    };
    assert!(names_us(vec![]));
    assert!(names_us(vec![Action::Load(other), Action::Module]));
    assert!(names_us(vec![Action::Mask(register, register)]), "a part of the name is still one");
    for writes in [Action::Load(register), Action::Mask(other, register), Action::Other] {
        assert!(!names_us(vec![writes]));
    }
}
