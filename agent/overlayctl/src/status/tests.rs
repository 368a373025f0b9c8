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
        barrier(&Barrier { family: text("inet"), table: text(table), chain: text(chain), reason: text(reason) })
    };
    let policy = row("mine", "passing", "policy");
    assert!(policy.starts_with("the chain passing of table inet mine drops"), "{policy}");
    assert!(policy.contains("`iifname \"ovu*\" accept` and `oifname \"ovu*\" accept`"), "{policy}");
    let owner = row("firewalld", "filter_FORWARD", "owner");
    assert!(owner.contains("`firewall-cmd --permanent --zone=trusted --add-interface=ovu+`"), "{owner}");
    let legacy = row("", "", "legacy");
    assert!(legacy.contains("`iptables-legacy -S FORWARD`") && !legacy.contains("inet"), "{legacy}");
}
