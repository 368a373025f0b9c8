//! The laws of rounds: what a failure stops, and what it does not.

use proptest::prelude::*;

use super::*;
use crate::datapath::desired::port_ifname;
use crate::datapath::kernel_api::Cause;
use crate::datapath::plan::tests::{go, kernel, mac, network, wish};
use crate::datapath::plan::{HostStep, RowStep, SegmentStep, plan};
use crate::model::id::EndpointId;

fn is_row(step: &Step) -> bool {
    matches!(step, Step::Segment(_, SegmentStep::Row(_)))
}

fn is_leaving_port(step: &Step) -> bool {
    matches!(step, Step::Segment(_, SegmentStep::DeletePort(_)))
}

/// Which steps of a network fail.
fn fails(step: &SegmentStep, kind: u8) -> bool {
    match kind {
        0 => matches!(step, SegmentStep::Create(_)),
        1 => matches!(step, SegmentStep::ReplaceFirewall(_)),
        2 => matches!(step, SegmentStep::CreateBridge(_)),
        3 => matches!(step, SegmentStep::CreateTunnel(_)),
        _ => matches!(step, SegmentStep::ConnectTunnel { .. }),
    }
}

proptest! {
    #[test]
    fn a_failed_foundation_stops_its_own_segment_and_no_other(wish in wish(), kind in 0..5_u8) {
        // One that takes all of those steps.
        let victim = wish.segments.iter().find(|(_, segment)| segment.tunnel.is_some());
        let Some(victim) = victim.map(|(id, _)| *id) else { return Ok(()) };
        let mut kernel = kernel();
        kernel.refuse(move |step| match step {
            Step::Segment(id, step) if *id == victim && fails(step, kind) => Some(Cause::Busy),
            _ => None,
        });
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert_eq!(report.failed.len(), 1);
        prop_assert!(report.failed.iter().all(|(step, _)| step.network() == Some(victim)));
        prop_assert!(report.skipped.iter().all(|step| step.network() == Some(victim)));
        let tried: Vec<&Step> = kernel.applied().iter().filter(|step| step.network() == Some(victim)).collect();
        prop_assert!(tried.last().is_some_and(|step| matches!(step, Step::Segment(_, step) if fails(step, kind))));
        // The others stand.
        let left = plan(kernel.state(), &wish, Knowledge::Whole);
        prop_assert!(left.iter().all(|step| step.network() == Some(victim)), "{:?}", left);
        // And so does this one, once nothing is in the way.
        kernel.refuse_nothing();
        prop_assert!(go(&mut kernel, &wish, Knowledge::Whole).settled());
        prop_assert_eq!(plan(kernel.state(), &wish, Knowledge::Whole), vec![]);
    }

    #[test]
    fn nothing_leads_between_containers_and_a_host_whose_rules_can_t_be_set(wish in wish()) {
        let mut kernel = kernel();
        kernel.refuse(|step| matches!(step, Step::Host(HostStep::ReplaceFirewall(_))).then_some(Cause::Refused));
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert_eq!(report.failed.len(), 1);
        prop_assert!(kernel.state().segments.values().all(|segment| segment.uplink.is_none()));
        prop_assert!(report.skipped.iter().all(|step| matches!(step, Step::Segment(_, SegmentStep::CreateUplink(_)) | Step::Host(HostStep::SetAcceptRules(..)))));
        kernel.refuse_nothing();
        prop_assert!(go(&mut kernel, &wish, Knowledge::Whole).settled());
    }

    #[test]
    fn a_port_that_can_t_be_made_is_not_connected_and_stops_nothing_else(wish in wish()) {
        let ports: Vec<_> = wish.segments.values().flat_map(|segment| segment.ports.keys().copied()).collect();
        let Some(victim) = ports.first().copied() else { return Ok(()) };
        let mut kernel = kernel();
        kernel.refuse(move |step| match step {
            Step::Segment(_, SegmentStep::CreatePort(id, _)) if *id == victim => Some(Cause::Gone),
            _ => None,
        });
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert_eq!(report.failed.len(), 1);
        prop_assert_eq!(report.skipped.len(), 1);
        prop_assert!(matches!(&report.skipped[0], Step::Segment(_, SegmentStep::ConnectPort(_))));
        prop_assert_eq!(plan(kernel.state(), &wish, Knowledge::Whole).len(), 2);
    }

    #[test]
    fn a_failed_row_stops_nothing(wish in wish()) {
        let mut kernel = kernel();
        kernel.refuse(|step| is_row(step).then_some(Cause::NoSpace));
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert!(report.skipped.is_empty());
        prop_assert!(report.failed.iter().all(|(step, _)| is_row(step)));
        let rows = wish.segments.values().map(|segment| segment.remotes.len() + segment.neighbours.len()).sum::<usize>();
        prop_assert_eq!(report.failed.len(), rows);
    }

    #[test]
    fn batches_keep_the_order_and_join_only_what_goes_together(before in wish(), after in wish()) {
        let mut kernel = kernel();
        go(&mut kernel, &before, Knowledge::Whole);
        let steps = plan(kernel.state(), &after, Knowledge::Whole);
        let batches = batches(steps.clone());
        prop_assert_eq!(batches.concat(), steps);
        for batch in batches.iter().filter(|batch| batch.len() != 1) {
            prop_assert!(batch.iter().all(|step| step.joins(&batch[0])));
            prop_assert!(batch.iter().all(|step| is_row(step) || is_leaving_port(step)));
        }
        for pair in batches.windows(2) {
            let (last, first) = (&pair[0][0], &pair[1][0]);
            prop_assert!(!first.joins(last), "two that could be one");
        }
    }
}

#[test]
fn rows_of_two_networks_are_two_batches() {
    let row = |n| Step::Segment(network(n), RowStep::DeleteRemote(mac(1)).into());
    assert_eq!(batches(vec![row(1), row(1), row(2)]), vec![vec![row(1), row(1)], vec![row(2)]]);
}

#[test]
fn ports_of_one_network_go_together() {
    let port = |n: u8, m: u8| {
        let ifname = port_ifname(EndpointId::from_bytes([m; 16]));
        Step::Segment(network(n), SegmentStep::DeletePort(ifname))
    };
    let steps = vec![port(1, 1), port(1, 2), port(2, 3)];
    assert_eq!(batches(steps), vec![vec![port(1, 1), port(1, 2)], vec![port(2, 3)]]);
}
