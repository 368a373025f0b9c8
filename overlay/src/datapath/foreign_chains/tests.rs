//! Which foreign chains take accept rules of ours, what the rules let pass, and which chains are told to be in the way.

use super::*;
use crate::datapath::plan::tests::wish_with_uplink;

fn chain(family: Protocols, table: &str, chain: &str) -> ChainName {
    ChainName { family, table: table.to_owned(), chain: chain.to_owned() }
}

fn info(policy: Policy) -> ChainInfo {
    ChainInfo { policy, is_owned: false, calls: Calls::Nothing, knows_us: false, ours: Vec::new() }
}

fn forward() -> ChainName {
    chain(Protocols::Ip, "filter", "FORWARD")
}

fn others(chains: impl IntoIterator<Item = (ChainName, ChainInfo)>) -> Others {
    let way = "wan0".parse().expect("a name");
    Others { chains: chains.into_iter().collect(), egress: [way].into(), has_legacy: false }
}

/// The chains that are changed, and whether they are opened.
fn opened(others: &Others, desired: &Desired) -> Vec<(String, bool)> {
    changes(others, desired).into_iter().map(|(name, rules)| (name.to_string(), !rules.is_empty())).collect()
}

#[test]
fn a_policy_of_iptables_is_a_gate_until_docker_has_one_for_people() {
    let wish = wish_with_uplink();
    let mut others = others([(forward(), info(Policy::Drop))]);
    assert_eq!(opened(&others, &wish), [("ip filter FORWARD".to_owned(), true)]);
    // As it stands open, Docker starts.
    others.chains.get_mut(&forward()).expect("it is there").ours = comments(&rules(&others.clone(), &wish));
    assert_eq!(opened(&others, &wish), []);
    others.chains.insert(chain(Protocols::Ip, "filter", DOCKER_USER), info(Policy::Return));
    others.chains.get_mut(&forward()).expect("it is there").calls = Calls::DockerUser;
    let moved = [("ip filter DOCKER-USER".to_owned(), true), ("ip filter FORWARD".to_owned(), false)];
    assert_eq!(opened(&others, &wish), moved);
    assert_eq!(blocking_chains(&others, &wish), BTreeSet::new());
    // Somebody flushes all chains: Docker's is there still, and decides nothing.
    others.chains.values_mut().for_each(|info| (info.calls, info.ours) = (Calls::Nothing, Vec::new()));
    let both = [("ip filter DOCKER-USER".to_owned(), true), ("ip filter FORWARD".to_owned(), true)];
    assert_eq!(opened(&others, &wish), both);
}

#[test]
fn what_accepts_by_policy_needs_nothing() {
    let mut others = others([(forward(), info(Policy::Accept))]);
    assert_eq!(opened(&others, &wish_with_uplink()), []);
    // And what stood in it from before goes: its policy was changed.
    others.chains.get_mut(&forward()).expect("it is there").ours = vec![AcceptRule::In.comment()];
    assert_eq!(opened(&others, &wish_with_uplink()), [("ip filter FORWARD".to_owned(), false)]);
}

#[test]
fn a_chain_of_somebody_s_own_is_told_and_left() {
    let mine = chain(Protocols::Inet, "mine", "forward");
    let mut others = others([(mine.clone(), info(Policy::Drop))]);
    assert_eq!(opened(&others, &wish_with_uplink()), []);
    assert_eq!(blocking_chains(&others, &wish_with_uplink()), [BlockingChain::Policy(mine.clone())].into());
    assert_eq!(blocking_chains(&others, &Desired::default()), BTreeSet::new(), "nobody here has a way out");
    others.chains.get_mut(&mine).expect("it is there").knows_us = true;
    assert_eq!(blocking_chains(&others, &wish_with_uplink()), BTreeSet::new(), "its owner has let us pass");
}

#[test]
fn what_only_its_owner_may_change_is_told_and_left() {
    let info = ChainInfo { is_owned: true, ..info(Policy::Accept) };
    let others = others([(firewalld(), info)]);
    assert_eq!(opened(&others, &wish_with_uplink()), []);
    assert_eq!(blocking_chains(&others, &wish_with_uplink()), [BlockingChain::Owned(firewalld())].into());
}

#[test]
fn legacy_rules_are_told() {
    let others = Others { has_legacy: true, ..Others::default() };
    assert_eq!(blocking_chains(&others, &wish_with_uplink()), [BlockingChain::Legacy].into());
}

#[test]
fn only_interfaces_that_a_rule_can_name_are_open() {
    let name = |text: &str| text.parse::<IfName>().expect("a name");
    let others = Others { egress: ["wan0", "lan0", "od\"d", "all*"].map(name).into(), ..Others::default() };
    let open = [AcceptRule::In, AcceptRule::Out(name("lan0")), AcceptRule::Out(name("wan0"))];
    assert_eq!(rules(&others, &wish_with_uplink()), open.into());
}

#[test]
fn what_sees_only_ipv6_is_in_nobody_s_way_without_it() {
    let six = chain(Protocols::Ip6, "filter", "FORWARD");
    let mine = chain(Protocols::Ip6, "mine", "passing");
    let others = others([(six, info(Policy::Drop)), (forward(), info(Policy::Drop)), (mine, info(Policy::Drop))]);
    let wish = wish_with_uplink();
    assert_eq!(opened(&others, &wish), [(forward().to_string(), true)]);
    assert!(blocking_chains(&others, &wish).is_empty());
}

#[test]
fn a_pass_is_told_in_words_that_iptables_has() {
    let out = AcceptRule::Out("wan0".parse().expect("a name"));
    assert_eq!(out.to_string(), r#"iifname "ovu*" oifname "wan0" counter accept comment "overlayd:out:wan0""#);
    assert_eq!(AcceptRule::In.to_string(), r#"oifname "ovu*" counter accept comment "overlayd:in""#);
    assert!(
        AcceptRule::is_our_comment(&out.comment())
            && AcceptRule::is_our_comment(&AcceptRule::In.comment())
            && !AcceptRule::is_our_comment("ov:0123")
    );
}
