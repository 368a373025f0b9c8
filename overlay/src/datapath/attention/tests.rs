//! The laws of leaving parts out.

use proptest::prelude::*;

use super::*;
use crate::datapath::fake::FakeKernel;
use crate::datapath::plan::tests::{faults, kernel, network, wait, wish};
use crate::datapath::plan::{Step, plan, plan_parts};
use crate::datapath::round::round;

/// One round as the agent runs it; gives how many parts it looked at, `None` for all.
fn go(
    kernel: &mut FakeKernel,
    confirmed: &mut Confirmed,
    heard: &mut News,
    desired: &Arc<Desired>,
) -> Option<BTreeSet<Part>> {
    let news = kernel.news().clone();
    let look = confirmed.look(desired, Knowledge::Whole, news.since(heard));
    *heard = news;
    let (_, report) = wait(round(kernel, &look, desired, Knowledge::Whole)).expect("it can be looked at");
    if report.settled() {
        confirmed.set(Arc::clone(desired), Knowledge::Whole);
    } else {
        confirmed.forget();
    }
    match look {
        Look::Everything => None,
        Look::Only(parts) => Some(parts),
    }
}

proptest! {
    #[test]
    fn a_plan_is_the_plans_of_its_parts(before in wish(), after in wish(), faults in faults()) {
        let mut kernel = kernel();
        wait(round(&mut kernel, &Look::Everything, &before, Knowledge::Whole)).expect("it can be looked at");
        faults.iter().for_each(|fault| kernel.inject(fault));
        let observed = kernel.state().clone();
        let whole = plan(&observed, &after, Knowledge::Whole);
        let parts = observed.segments.keys().chain(after.segments.keys()).map(|id| Part::Segment(*id));
        let parts: BTreeSet<Part> = parts.chain([Part::Host]).collect();
        let mut count = 0;
        for part in parts {
            let of_part = plan_parts(&part.into(), &observed, &after, Knowledge::Whole);
            let about = |step: &&Step| step.network().map_or(Part::Host, Part::Segment) == part;
            prop_assert!(whole.iter().filter(about).eq(&of_part), "{:?}: {:?}", part, of_part);
            count += of_part.len();
        }
        prop_assert_eq!(count, whole.len());
    }

    #[test]
    fn whatever_changes_in_between_a_round_of_parts_leaves_nothing_to_do(
        turns in proptest::collection::vec((proptest::option::of(wish()), faults()), 1..8),
    ) {
        let (mut kernel, mut confirmed, mut heard) = (kernel(), Confirmed::default(), News::default());
        let mut desired = Arc::new(Desired::default());
        for (wish, faults) in turns {
            faults.iter().for_each(|fault| kernel.inject(fault));
            desired = wish.map_or(desired, Arc::new);
            go(&mut kernel, &mut confirmed, &mut heard, &desired);
            prop_assert_eq!(plan(kernel.state(), &desired, Knowledge::Whole), vec![]);
        }
    }

    #[test]
    fn a_quiet_kernel_is_not_looked_at(wish in wish()) {
        let (mut kernel, mut confirmed, mut heard) = (kernel(), Confirmed::default(), News::default());
        let desired = Arc::new(wish);
        prop_assert_eq!(go(&mut kernel, &mut confirmed, &mut heard, &desired), None);
        // Once for the changes that we made ourselves.
        go(&mut kernel, &mut confirmed, &mut heard, &desired);
        // A value that is equal but was made anew counts as the same.
        let again = Arc::new((*desired).clone());
        prop_assert_eq!(go(&mut kernel, &mut confirmed, &mut heard, &again), Some(BTreeSet::new()));
    }
}

#[test]
fn after_a_failure_and_with_other_knowledge_everything_is_looked_at() {
    let desired = Arc::new(Desired::default());
    let mut confirmed = Confirmed::default();
    let look = |confirmed: &Confirmed, knowledge| confirmed.look(&desired, knowledge, BTreeSet::new());
    assert_eq!(look(&confirmed, Knowledge::Partial), Look::Everything);
    confirmed.set(Arc::clone(&desired), Knowledge::Partial);
    assert!(look(&confirmed, Knowledge::Partial).is_empty());
    assert_eq!(look(&confirmed, Knowledge::Whole), Look::Everything);
    confirmed.forget();
    assert_eq!(look(&confirmed, Knowledge::Partial), Look::Everything);
}

#[test]
fn news_are_told_once_and_a_part_that_comes_again_is_new() {
    let (mut news, part) = (News::default(), Part::Segment(network(1)));
    news.note(part);
    news.note(Part::Host);
    let heard = news.clone();
    assert_eq!(heard.since(&News::default()), [Part::Host, part].into());
    assert_eq!(news.since(&heard), [].into());
    news.forget(part);
    assert_eq!(news.since(&heard), [].into());
    news.note(part);
    assert_eq!(news.since(&heard), [part].into());
}
