use super::*;
use crate::model::id::{HostId, NetworkId};
use crate::model::network::{Network, Range, Settings};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn view(icc: bool, links: Links) -> NetworkView {
    let network = Network {
        id: NetworkId::from_bytes([9; 16]),
        name: name("closed"),
        ranges: vec![Range::new("10.0.0.0/24".parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: HostId::from_bytes([1; 16]),
        since: 0,
        settings: Settings { icc, ..Settings::default() },
    };
    NetworkView { links, ..NetworkView::new(&network) }
}

fn link(n: usize) -> Link {
    Link { from: name(&format!("a{n}")), to: name("b"), service: None }
}

#[test]
fn what_was_decided_fills_a_network_until_it_is_full() {
    let decided =
        |removed| (0..Links::MAX).map(|n| (link(n), links::LinkDecision { at: 1, removed })).collect::<Links>();
    let full = view(false, decided(true));
    assert!(!full.links.takes(&link(Links::MAX)));
    // What was decided once can be decided again.
    assert!(full.links.takes(&link(0)));
}

#[test]
fn a_link_that_is_left_over_can_be_removed_whoever_is_there() {
    let open = [(link(0), links::LinkDecision { at: 1, removed: false })].into_iter().collect::<Links>();
    assert!(check(&view(false, Links::default()), &open, &link(0), true).is_ok());
    assert!(matches!(check(&view(false, Links::default()), &open, &link(0), false), Err(LinkRefusal::There { .. })));
    assert!(matches!(
        check(&view(false, Links::default()), &Links::default(), &link(0), true),
        Err(LinkRefusal::NotThere { .. })
    ));
    assert!(matches!(
        check(&view(false, Links::default()), &Links::default(), &link(0), false),
        Err(LinkRefusal::Nobody { .. })
    ));
    assert!(matches!(
        check(&view(true, Links::default()), &Links::default(), &link(0), false),
        Err(LinkRefusal::Icc(_))
    ));
}

#[test]
fn a_decision_comes_after_all_that_is_known() {
    let later = [(link(0), links::LinkDecision { at: 7, removed: false })].into_iter().collect::<Links>();
    assert_eq!(next(&Cluster { now: 3, ..Cluster::default() }, &later), 8);
    assert_eq!(next(&Cluster { now: 9, ..Cluster::default() }, &later), 10);
}
