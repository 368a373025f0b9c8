use super::*;

fn sender(port: u16) -> SocketAddr {
    ([10, 0, 0, 3], port).into()
}

#[test]
fn a_sender_is_told_with_its_count_until_it_has_been_silent_for_a_minute() {
    let (senders, start) = (UnknownSenders::default(), Instant::now());
    assert_eq!(senders.recent(start), []);
    for second in 0..3 {
        let new = senders.note(sender(7946), start + Duration::from_secs(second));
        assert_eq!(new, second == 0, "after {second} s");
    }
    let told = |silent_for| UnknownSender { from: sender(7946), datagrams: 3, silent_for };
    assert_eq!(senders.recent(start + Duration::from_secs(4)), [told(Duration::from_secs(2))]);
    assert_eq!(senders.recent(start + Duration::from_secs(62)), [told(RECENT)]);
    assert_eq!(senders.recent(start + Duration::from_secs(63)), []);

    // What it sends then is counted anew.
    let later = start + Duration::from_secs(100);
    assert!(senders.note(sender(7946), later), "it is new again");
    assert_eq!(senders.recent(later), [UnknownSender { from: sender(7946), datagrams: 1, silent_for: Duration::ZERO }]);
}

#[test]
fn senders_that_somebody_makes_up_take_no_more_room_and_the_latest_stay() {
    let (senders, start) = (UnknownSenders::default(), Instant::now());
    let many = u16::try_from(3 * MAX_SENDERS).expect("few");
    let mut told = 0;
    for port in 1..=many {
        told += usize::from(senders.note(sender(port), start + Duration::from_millis(port.into())));
        // One that is really there goes on.
        senders.note(sender(7946), start + Duration::from_millis(port.into()));
    }
    assert_eq!(told, MAX_SENDERS - 1, "the log has no more room than the list, and one is really there");
    let told = senders.recent(start + Duration::from_secs(1));
    assert_eq!(told.len(), MAX_SENDERS);
    let real = told.iter().find(|heard| heard.from == sender(7946));
    assert_eq!(real.map(|sender| sender.datagrams), Some(many.into()));
    assert!(told.iter().any(|heard| heard.from == sender(many)), "{told:?}");
}
