//! Which parts the next round looks at.

use super::*;
use crate::datapath::attention::Part;
use crate::datapath::fake::FakeKernel;
use crate::datapath::kernel_api::Cause;
use crate::datapath::observed::ObservedSegment;
use crate::datapath::plan::tests::wait;
use crate::model::id::{HostId, NetworkId};

const ORPHAN: NetworkId = NetworkId::from_bytes([1; 16]);

/// A kernel with a segment that nobody desires.
fn kernel() -> FakeKernel {
    let segments = [(ORPHAN, ObservedSegment::default())].into();
    FakeKernel::new().with_state(Observed { segments, ..Observed::default() })
}

fn next(rounds: &mut Rounds, kernel: &FakeKernel) -> Due {
    let host = HostConfig {
        me: HostId::from_bytes([1; 16]),
        vtep: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        underlay_mtu: 1500,
    };
    rounds.next((&Arc::default(), &Arc::default()), &host, Knowledge::Whole, kernel.news().clone())
}

/// Runs a round; what it looked at.
fn run(rounds: &mut Rounds, kernel: &mut FakeKernel) -> Look {
    let due = next(rounds, kernel);
    wait(rounds.carry_out(kernel, &due, Instant::now())).expect("the fake kernel can be looked at");
    due.look
}

#[test]
fn a_round_looks_only_at_what_the_kernel_has_told_of() {
    let (mut rounds, mut kernel) = (Rounds::default(), kernel());
    assert_eq!(run(&mut rounds, &mut kernel), Look::Everything, "nothing is known yet");
    assert!(rounds.has_news(kernel.news()), "its own steps are news");
    assert_eq!(run(&mut rounds, &mut kernel), Look::Only([Part::Host, Part::Segment(ORPHAN)].into()));
    assert!(run(&mut rounds, &mut kernel).is_empty());
    kernel.note(Part::Host);
    assert_eq!(run(&mut rounds, &mut kernel), Part::Host.into());
    rounds.audit();
    assert_eq!(run(&mut rounds, &mut kernel), Look::Everything);
}

#[test]
fn the_round_after_a_failure_looks_at_everything() {
    let (mut rounds, mut kernel) = (Rounds::default(), kernel());
    kernel.refuse(|_| Some(Cause::Busy));
    run(&mut rounds, &mut kernel);
    kernel.refuse_nothing();
    assert_eq!(run(&mut rounds, &mut kernel), Look::Everything);
    assert!(kernel.state().segments.is_empty(), "it is done now");
}
