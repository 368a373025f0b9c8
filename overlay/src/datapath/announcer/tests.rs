use std::sync::Arc;

use super::*;
use crate::datapath::observed::ObservedSegment;
use crate::datapath::plan::tests::wish_with_uplink;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last]).expect("a unicast MAC")
}

fn id() -> NetworkId {
    NetworkId::from_bytes([7; 16])
}

fn put(address: &str, last: u8) -> Step {
    Step::Segment(id(), SegmentStep::Row(RowStep::PutNeighbour(ip(address), mac(last))))
}

fn made() -> Step {
    Step::Segment(id(), SegmentStep::Create(BTreeSet::new()))
}

/// A desired state in which these addresses have these MACs.
fn desired(neighbours: &[(&str, u8)]) -> Desired {
    let mut segment = wish_with_uplink().segments.into_values().next().expect("a segment").as_ref().clone();
    segment.neighbours = neighbours.iter().map(|(address, last)| (ip(address), mac(*last))).collect();
    Desired { segments: [(id(), Arc::new(segment))].into(), ..Desired::default() }
}

fn told(steps: &[Step]) -> BTreeMap<IpAddr, Mac> {
    let announced = steps.iter().filter_map(|step| match step {
        Step::Segment(_, SegmentStep::Announce(announcement)) => Some(announcement.macs.clone()),
        _ => None,
    });
    announced.flatten().collect()
}

/// What is told after these steps, in a segment that was made by this agent.
fn tell(announcer: &mut Announcer, done: &[Step], now: &[(&str, u8)]) -> BTreeMap<IpAddr, Mac> {
    announcer.note(&Observed::default(), done);
    let steps = announcer.due(&desired(now));
    announcer.note(&Observed::default(), &steps);
    told(&steps)
}

#[test]
fn containers_are_told_of_an_address_that_has_another_mac_than_it_had() {
    let mut announcer = Announcer::default();
    let first = [made(), put("10.0.0.2", 1), put("fd00::2", 1)];
    let nothing = BTreeMap::new();
    assert_eq!(tell(&mut announcer, &first, &[("10.0.0.2", 1), ("fd00::2", 1)]), nothing, "no container has met them");
    assert_eq!(tell(&mut announcer, &[put("10.0.0.2", 1)], &[("10.0.0.2", 1)]), nothing, "it is back with the same");
    assert_eq!(tell(&mut announcer, &[put("10.0.0.2", 2)], &[("10.0.0.2", 2)]), [(ip("10.0.0.2"), mac(2))].into());
    assert_eq!(tell(&mut announcer, &[], &[("10.0.0.2", 2)]), nothing, "once is enough");
    // Gone and back with the MAC it had at first.
    assert_eq!(tell(&mut announcer, &[put("10.0.0.2", 1)], &[("10.0.0.2", 1)]), [(ip("10.0.0.2"), mac(1))].into());
}

#[test]
fn what_could_not_be_told_is_told_later_unless_it_has_gone() {
    let mut announcer = Announcer::default();
    announcer.note(&Observed::default(), &[made(), put("10.0.0.2", 1), put("10.0.0.3", 3)]);
    announcer.note(&Observed::default(), &[put("10.0.0.2", 2), put("10.0.0.3", 4)]);
    let both = [("10.0.0.2", 2), ("10.0.0.3", 4)];
    assert_eq!(told(&announcer.due(&desired(&both))).len(), 2);
    assert_eq!(told(&announcer.due(&desired(&both))).len(), 2, "it was not done");
    assert_eq!(told(&announcer.due(&desired(&both[..1]))), [(ip("10.0.0.2"), mac(2))].into());
    assert_eq!(told(&announcer.due(&desired(&both))), [(ip("10.0.0.2"), mac(2))].into(), "the other had gone");
}

#[test]
fn in_a_segment_that_was_there_before_the_agent_every_new_address_may_have_been_met() {
    let mut announcer = Announcer::default();
    let neighbours = BTreeMap::from([(ip("10.0.0.2"), mac(1))]);
    let segment = ObservedSegment { neighbours: neighbours.into(), ..ObservedSegment::default() };
    let found = Observed { segments: [(id(), segment)].into(), ..Observed::default() };
    announcer.note(&found, &[]);
    assert!(announcer.due(&desired(&[("10.0.0.2", 1)])).is_empty(), "what is there has not changed");
    announcer.note(&found, &[put("10.0.0.2", 1), put("10.0.0.9", 9)]);
    assert_eq!(told(&announcer.due(&desired(&[("10.0.0.2", 1), ("10.0.0.9", 9)]))), [(ip("10.0.0.9"), mac(9))].into());
}

#[test]
fn of_a_large_segment_only_what_is_there_is_remembered() {
    let mut announcer = Announcer::default();
    let many = (0..=REMEMBERED as u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
    let many: Vec<Step> =
        many.map(|a| Step::Segment(id(), SegmentStep::Row(RowStep::PutNeighbour(a, mac(1))))).collect();
    announcer.note(&Observed::default(), &[made()]);
    announcer.note(&Observed::default(), &many);
    announcer.note(&Observed::default(), &[put("10.0.0.2", 2)]);
    assert_eq!(told(&announcer.due(&desired(&[("10.0.0.2", 2)]))).len(), 1);
    assert_eq!(announcer.segments[&id()].macs.len(), 1);
    announcer.note(&Observed::default(), &[put("10.0.0.3", 1)]);
    assert_eq!(told(&announcer.due(&desired(&[("10.0.0.2", 2), ("10.0.0.3", 1)]))).len(), 2, "it may have been met");
}
