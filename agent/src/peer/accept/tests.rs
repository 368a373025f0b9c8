use super::*;

fn source(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([192, 0, high, low])
}

fn held<T>(unfinished: &Unfinished<T>, from: IpAddr) -> usize {
    unfinished.by_age.values().filter(|(source, _)| *source == from).count()
}

#[test]
fn one_source_displaces_only_itself() {
    let mut unfinished = Unfinished::default();
    let members: Vec<_> = (0..8).map(|n| unfinished.insert(source(n), ())).collect();
    for _ in 0..10 * HANDSHAKES {
        unfinished.insert(source(99), ());
    }
    assert_eq!(unfinished.by_age.len(), HANDSHAKES);
    assert!(members.iter().all(|ticket| unfinished.by_age.contains_key(ticket)), "they are older, and stay");
    let newest = unfinished.insert(source(9), ());
    assert!(unfinished.by_age.contains_key(&newest));
    assert_eq!(held(&unfinished, source(99)), HANDSHAKES - members.len() - 1);
}

#[test]
fn of_a_source_and_of_sources_that_have_the_same_the_oldest_goes_first() {
    let mut unfinished = Unfinished::default();
    let count = u16::try_from(HANDSHAKES).expect("few");
    let tickets: Vec<_> = (0..count).map(|n| unfinished.insert(source(n), ())).collect();
    unfinished.insert(source(500), ());
    assert!(!unfinished.by_age.contains_key(&tickets[0]) && unfinished.by_age.contains_key(&tickets[1]));
    unfinished.insert(source(7), ());
    assert!(!unfinished.by_age.contains_key(&tickets[1]), "nobody has two yet");
    unfinished.insert(source(501), ());
    assert!(!unfinished.by_age.contains_key(&tickets[7]), "now one has");
}

#[test]
fn what_is_done_makes_room() {
    let mut unfinished = Unfinished::default();
    let first = unfinished.insert(source(1), ());
    let tickets: Vec<_> = (1..HANDSHAKES).map(|_| unfinished.insert(source(2), ())).collect();
    unfinished.remove(tickets[5]);
    unfinished.insert(source(3), ());
    assert!(unfinished.by_age.contains_key(&first) && unfinished.by_age.contains_key(&tickets[0]));
}
