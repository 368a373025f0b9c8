use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;

fn decisions() -> impl Strategy<Value = Links> {
    let name = |n: u8| format!("c{n}").parse::<Name>().expect("a name");
    let service = prop::option::of((1_u16..3).prop_map(|port| Service { protocol: Protocol::Tcp, port }));
    let link =
        (0_u8..3, 0_u8..3, service).prop_map(move |(a, b, service)| Link { from: name(a), to: name(b), service });
    let decision = (0_u64..4, any::<bool>()).prop_map(|(at, removed)| LinkDecision { at, removed });
    btree_map(link, decision, 0..8).prop_map(|all| all.into_iter().collect())
}

fn joined(a: &Links, b: &Links) -> Links {
    let mut all = a.clone();
    all.join(b);
    all
}

proptest! {
    #[test]
    fn whatever_the_order_all_come_to_the_same(a in decisions(), b in decisions(), c in decisions()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a);
    }

    #[test]
    fn the_newest_decision_counts_and_of_two_at_once_the_one_that_closes(a in decisions(), b in decisions()) {
        for (link, decision) in joined(&a, &b).decisions() {
            let said: Vec<LinkDecision> = [a.of(link), b.of(link)].into_iter().flatten().collect();
            let newest = said.iter().map(|d| d.at).max().expect("somebody has said it");
            prop_assert_eq!(decision.at, newest);
            prop_assert_eq!(decision.removed, said.iter().any(|d| d.at == newest && d.removed));
        }
    }
}

#[test]
fn who_is_reached_reads_as_people_write_it() {
    let reached = |text: &str| text.parse::<Reached>();
    let service = |protocol, port| Some(Service { protocol, port });
    for (text, expected) in [
        ("db", None),
        ("db:6379", service(Protocol::Tcp, 6379)),
        ("db:6379/tcp", service(Protocol::Tcp, 6379)),
        ("db:53/UDP", service(Protocol::Udp, 53)),
    ] {
        assert_eq!(reached(text).expect(text), Reached { to: "db".parse().expect("a name"), service: expected });
    }
    for wrong in ["", ":80", "db:", "db:0", "db:65536", "db:+1", "db:80/", "db:80/icmp", "db:80:81", "d b", "db:80-81"]
    {
        assert!(reached(wrong).is_err(), "`{wrong}` is taken for {:?}", reached(wrong));
    }
}
