use super::*;

#[test]
fn a_failure_says_what_was_tried_and_why_it_failed() {
    let error = StepError::new("make the bridge br0", Cause::Denied);
    assert_eq!(
        error.to_string(),
        "make the bridge br0: the kernel denied it: CAP_NET_ADMIN and CAP_SYS_ADMIN are needed"
    );
    let error = StepError::new("set up vx0", Cause::AlreadyExists).with_detail("`other` has its port: remove it");
    assert_eq!(error.to_string(), "set up vx0: `other` has its port: remove it");
}
