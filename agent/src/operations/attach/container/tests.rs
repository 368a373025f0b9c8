use super::*;
use crate::state::store::tests::attachment;

fn priority(number: i32) -> Priority {
    Priority::try_from(number).expect("in range")
}

#[test]
fn the_higher_priority_has_the_lower_metric_however_many_share_one() {
    let metrics: Vec<u32> = [1000, 1, 0, -1, -1000].map(|number| priority(number).metric()).into();
    assert!(metrics.windows(2).all(|pair| pair[0] + Priority::STEP <= pair[1]), "{metrics:?}");
    assert_eq!(metrics[0], 1, "0 is that of a route whose metric nobody has said");
    for wrong in [-1001, 1001, i32::MIN, i32::MAX] {
        assert_eq!(Priority::try_from(wrong), Err(PriorityError(wrong)));
    }
}

#[test]
fn of_several_with_one_priority_the_first_is_the_way_out() {
    let network = overlay::model::id::NetworkId::from_bytes([1; 16]);
    let mut intents = Intents::default();
    let netns = attachment(1, network).netns;
    for number in [1, 2, 3] {
        let comes = Attachment { netns: netns.clone(), metric: priority(0).metric(), ..attachment(number, network) };
        let metric = free_metric(&intents, &comes);
        intents.attachments.insert(comes.endpoint.id, Attachment { metric, ..comes });
    }
    let ways: Vec<_> = intents.together(&netns).iter().map(|a| a.endpoint.id).collect();
    assert_eq!(ways, [1, 2, 3].map(|number| attachment(number, network).endpoint.id));
    // Who comes when the first has gone comes last all the same.
    intents.attachments.remove(&attachment(1, network).endpoint.id);
    let comes = Attachment { netns: netns.clone(), metric: priority(0).metric(), ..attachment(4, network) };
    assert!(free_metric(&intents, &comes) > intents.together(&netns)[1].metric);
    // Asked for again it has what it had.
    let third = intents.together(&netns)[1].clone();
    let again = Attachment { metric: priority(0).metric(), ..third.clone() };
    assert_eq!(free_metric(&intents, &again), third.metric);
}

#[test]
fn the_first_free_name_is_taken() {
    assert_eq!(free_ifname(|_| false).as_str(), "eth0");
    assert_eq!(free_ifname(|name| ["eth0", "eth2"].contains(&name.as_str())).as_str(), "eth1");
}
