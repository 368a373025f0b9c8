use super::*;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

fn failure(scope: Scope, detail: Option<&str>) -> Failure {
    let error = StepError::new("make the bridge br0", Cause::Busy).said_by(std::io::Error::other("errno 16"));
    Failure::new(scope, &StepError { detail: detail.map(str::to_owned), ..error })
}

#[test]
fn a_failure_reads_as_the_error_does() {
    let plain = failure(Scope::Host, None);
    assert_eq!(plain.to_string(), "make the bridge br0: the kernel is busy: it is tried again (errno 16)");
    assert_eq!(failure(Scope::Host, Some("wait")).to_string(), "make the bridge br0: wait (errno 16)");
}

#[test]
fn only_a_failure_of_another_value_is_new() {
    let [one, other] = [1, 2].map(|n| NetworkId::from_bytes([n; 16]));
    let with = |scopes: &[Scope]| ReconcileStatus {
        failures: scopes.iter().map(|scope| failure(*scope, None)).collect(),
        ..ReconcileStatus::default()
    };
    let before = with(&[Scope::Segment(one)]);
    let now = with(&[Scope::Segment(one), Scope::Segment(other)]);
    // The texts are the same: only the networks differ.
    let new: Vec<Scope> = now.new_failures(&before).map(|failure| failure.scope).collect();
    assert_eq!(new, [Scope::Segment(other)]);
    assert_eq!(before.new_failures(&before).count(), 0);
}

#[test]
fn what_was_let_go_of_is_out_of_the_kernel_after_a_round_that_began_later_and_has_removed_it() {
    let [one, other] = [1, 2].map(|number| NetworkId::from_bytes([number; 16]));
    let clear =
        |settled: &ReconcileStatus| [one, other].map(|network| settled.is_clear(network, TIMEOUT, Instant::now()));
    assert_eq!(clear(&ReconcileStatus::default()), [false, false], "before the first round nothing is known");
    let failed = |step| (Step::Segment(one, step), StepError::new("try", Cause::Busy));
    let after = |failed: Vec<_>| {
        let report = Report { failed, ..Report::default() };
        ReconcileStatus { began: Some(Instant::now()), lingering: lingering(&report), ..ReconcileStatus::default() }
    };
    let port = "port".parse().expect("a name of an interface");
    assert_eq!(clear(&after(vec![failed(SegmentStep::DeletePort(port))])), [false, true]);
    assert_eq!(clear(&after(vec![failed(SegmentStep::Delete)])), [false, true]);
    assert_eq!(
        clear(&after(vec![failed(SegmentStep::Create(BTreeSet::new()))])),
        [true, true],
        "that has nothing to do with it"
    );
    assert!(!after(Vec::new()).is_clear(one, Duration::ZERO, Instant::now()), "it may have been let go of since");
}
