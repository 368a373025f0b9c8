use super::*;

fn gone(waits_for: &[&str]) -> HostRow {
    let waits_for = waits_for.iter().map(|host| (*host).to_owned()).collect();
    HostRow { state: "gone".to_owned(), silent_seconds: 12, waits_for, ..HostRow::default() }
}

#[test]
fn of_a_host_that_is_being_forgotten_is_said_whom_that_waits_for() {
    assert_eq!(state(&gone(&[])), "gone for 12s");
    assert_eq!(state(&gone(&["h2", "h3"])), "gone for 12s, to be forgotten: waits for h2, h3");
    let many = state(&gone(&["h2", "h3", "h4", "h5", "h6"]));
    assert_eq!(many, "gone for 12s, to be forgotten: waits for h2, h3, h4 and 2 others");
}

#[test]
fn a_silence_that_began_before_overlayd_is_not_dated() {
    let row = HostRow { silent_since_start: true, ..gone(&[]) };
    assert_eq!(state(&row), "gone, not heard since overlayd started 12s ago");
}
