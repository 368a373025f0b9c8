use super::*;

fn source(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([192, 0, high, low])
}

fn held<T>(pending: &Pending<T>, from: IpAddr) -> usize {
    pending.by_age.values().filter(|(source, _)| *source == from).count()
}

#[test]
fn one_source_displaces_only_itself() {
    let mut pending = Pending::default();
    let members: Vec<_> = (0..8).map(|n| pending.insert(source(n), ())).collect();
    for _ in 0..10 * MAX_HANDSHAKES {
        pending.insert(source(99), ());
    }
    assert_eq!(pending.by_age.len(), MAX_HANDSHAKES);
    assert!(members.iter().all(|ticket| pending.by_age.contains_key(ticket)), "they are older, and stay");
    let newest = pending.insert(source(9), ());
    assert!(pending.by_age.contains_key(&newest));
    assert_eq!(held(&pending, source(99)), MAX_HANDSHAKES - members.len() - 1);
}

#[test]
fn of_a_source_and_of_sources_that_have_the_same_the_oldest_goes_first() {
    let mut pending = Pending::default();
    let count = u16::try_from(MAX_HANDSHAKES).expect("few");
    let tickets: Vec<_> = (0..count).map(|n| pending.insert(source(n), ())).collect();
    pending.insert(source(500), ());
    assert!(!pending.by_age.contains_key(&tickets[0]) && pending.by_age.contains_key(&tickets[1]));
    pending.insert(source(7), ());
    assert!(!pending.by_age.contains_key(&tickets[1]), "nobody has two yet");
    pending.insert(source(501), ());
    assert!(!pending.by_age.contains_key(&tickets[7]), "now one has");
}

#[test]
fn what_is_done_makes_room() {
    let mut pending = Pending::default();
    let first = pending.insert(source(1), ());
    let tickets: Vec<_> = (1..MAX_HANDSHAKES).map(|_| pending.insert(source(2), ())).collect();
    pending.remove(tickets[5]);
    pending.insert(source(3), ());
    assert!(pending.by_age.contains_key(&first) && pending.by_age.contains_key(&tickets[0]));
}
