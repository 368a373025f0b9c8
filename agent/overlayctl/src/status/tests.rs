use overlay_proto::v1::Waiting;

use super::*;

fn unchecked(strict: bool, waits_for: &[&str]) -> StatusReply {
    let waiting = |host: &&str| Waiting { host: (*host).to_owned(), state: "alive".to_owned() };
    StatusReply {
        phase: "unchecked".to_owned(),
        strict_boot_check: strict,
        waits_for: waits_for.iter().map(waiting).collect(),
        ..StatusReply::default()
    }
}

#[test]
fn a_host_that_is_checked_says_whom_it_waits_for() {
    let some = leases(&unchecked(false, &["h2", "h3"]));
    assert!(some.contains("waits for those that can be reached of h2 (alive), h3 (alive); if"), "{some}");
    let all = leases(&unchecked(true, &["h2", "h3"]));
    assert!(all.contains("waits for all of h2 (alive), h3 (alive); if"), "{all}");
    for (strict, word) in [(false, "it goes on in a moment"), (true, "overlayctl cluster trust-disk")] {
        let none = leases(&unchecked(strict, &[]));
        assert!(none.contains("no other member") && none.contains(word) && !none.contains("reached of"), "{none}");
        assert!(none.contains("booted, or") && none.contains("the disk that it ran on"), "{none}");
    }
}

#[test]
fn what_is_in_the_way_is_told_with_the_next_step() {
    let row = |table: &str, chain: &str, reason: &str| {
        let text = |text: &str| text.to_owned();
        blocking_chain(&BlockingChain {
            family: text("inet"),
            table: text(table),
            chain: text(chain),
            reason: text(reason),
        })
    };
    let policy = row("mine", "passing", "policy");
    assert!(policy.starts_with("the chain passing of table inet mine drops"), "{policy}");
    assert!(policy.contains("`iifname \"ovu*\" accept` and `oifname \"ovu*\" accept`"), "{policy}");
    let owner = row("firewalld", "filter_FORWARD", "owner");
    assert!(owner.contains("`firewall-cmd --permanent --zone=trusted --add-interface=ovu+`"), "{owner}");
    let legacy = row("", "", "legacy");
    assert!(legacy.contains("`iptables-legacy -S FORWARD`") && !legacy.contains("inet"), "{legacy}");
}

#[test]
fn a_limit_of_gossip_is_told_in_one_line_only_when_it_is_near() {
    let limit = |name: &str, used, near| GossipLimit { name: name.to_owned(), used, limit: 60_000, near };
    let far = ["digest_bytes", "incarnations", "value_bytes", "new_in_a_later_version"];
    let gossip_limits = far.map(|name| limit(name, 1, false)).to_vec();
    let quiet = table(&StatusReply { gossip_limits, ..StatusReply::default() });
    assert!(!quiet.contains("warning"), "{quiet}");
    for name in far {
        let gossip_limits = vec![limit(name, 48_000, true), limit("other", 1, false)];
        let told = table(&StatusReply { gossip_limits, ..StatusReply::default() });
        let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("warning")).collect();
        assert!(matches!(lines[..], [line] if line.contains("48000") && line.contains("60000")), "{told}");
    }
}

#[test]
fn the_last_round_is_one_line() {
    let last = LastRound { reason: "intents changed".to_owned(), took_us: 3_456, rounds: 17, looks: 5 };
    let status = StatusReply { last_round: Some(last), ..StatusReply::default() };
    let expected = "rounds     17 since the start, 5 with a look at the kernel; the last one: intents changed, 3.4 ms";
    assert!(table(&status).lines().any(|line| line == expected), "{}", table(&status));
    // An older overlayd does not say.
    assert!(!table(&StatusReply::default()).contains("rounds"));
}
