use netlink_packet_netfilter::nftables::{RuleAttribute, RuleMessage};

use super::*;

#[test]
fn a_question_is_what_the_kernel_reads() {
    let of = vec![RuleAttribute::Table("filter".to_owned()), RuleAttribute::Chain("FORWARD".to_owned())];
    let question = NfTablesMessage::GetRule(RuleMessage { attributes: of });
    let header = [44_u32.to_ne_bytes(), [7, 10, 1, 3], 9_u32.to_ne_bytes(), [0; 4]].concat();
    let table = [&11_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"filter\0\0"].concat();
    let chain = [&12_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), b"FORWARD\0"].concat();
    let expected = [header, vec![2, 0, 0, 0], table, chain].concat();
    assert_eq!(request(NetfilterProtoFamily::IPv4, question, Query::Dump, 9), expected);
}

#[test]
fn texts_end_at_the_first_zero() {
    assert_eq!([&b"ovu\0\0"[..], b"ovu", b"\0", b""].map(text_of), ["ovu", "ovu", "", ""]);
}
