use std::sync::Arc;

use super::*;
use crate::model::intent::Attachment;
use crate::operations::fixture::{attachment, network};

fn priority(number: i32) -> Priority {
    Priority::try_from(number).expect("in range")
}

#[test]
fn the_higher_priority_has_the_lower_metric_however_many_share_one() {
    let metrics: Vec<u32> = [1000, 1, 0, -1, -1000].map(|number| priority(number).metric()).into();
    assert!(metrics.windows(2).all(|pair| pair[0] + Priority::STEP <= pair[1]), "{metrics:?}");
    assert_eq!(metrics[0], 1, "0 is that of a route whose metric no program has set");
    for wrong in [-1001, 1001, i32::MIN, i32::MAX] {
        assert_eq!(Priority::try_from(wrong), Err(PriorityError(wrong)));
    }
}

#[test]
fn of_several_with_one_priority_the_first_is_the_way_out() {
    let network = network(1).id;
    let mut intents = Intents::default();
    let netns = attachment(1, network).netns;
    for number in [1, 2, 3] {
        let metric = priority(0).free_metric(&intents, &netns);
        let comes = Attachment { netns: netns.clone(), metric, ..attachment(number, network) };
        intents.attachments.insert(comes.endpoint.id, Arc::new(comes));
    }
    let ways: Vec<_> = intents.together(&netns).iter().map(|a| a.endpoint.id).collect();
    assert_eq!(ways, [1, 2, 3].map(|number| attachment(number, network).endpoint.id));
    // An endpoint that comes when the first has gone comes last all the same.
    intents.attachments.remove(&attachment(1, network).endpoint.id);
    assert!(priority(0).free_metric(&intents, &netns) > intents.together(&netns)[1].metric);
}

#[test]
fn the_first_free_name_is_taken() {
    assert_eq!(free_ifname(|_| false).as_str(), "eth0");
    assert_eq!(free_ifname(|name| ["eth0", "eth2"].contains(&name.as_str())).as_str(), "eth1");
}

#[test]
fn an_interface_that_is_there_and_a_subnet_that_overlaps_are_refused() {
    let lo = |text: &str, len| Prefixed { address: text.parse().expect("an address"), len };
    let container = |ifname: &str, prefixed| Container {
        netns: NetnsRef { path: "/run/netns/c".into(), cookie: 7 },
        interfaces: [(ifname.parse().expect("a name"), vec![prefixed])].into(),
    };
    let (network, intents) = (network(1), Intents::default());
    let wanted = "eth0".parse().expect("a name");
    let taken = container("eth0", lo("192.0.2.1", 24)).interface_for(&network, &intents, Some(&wanted));
    assert_eq!(taken, Err(ContainerRefusal::InterfaceExists(wanted)));
    let free = container("eth0", lo("192.0.2.1", 24)).interface_for(&network, &intents, None);
    assert_eq!(free.map(|ifname| ifname.to_string()), Ok("eth1".to_owned()));
    let overlaps = container("eth0", lo("10.1.9.9", 24)).interface_for(&network, &intents, None);
    assert!(matches!(overlaps, Err(ContainerRefusal::Overlaps { subnet, .. }) if subnet == network.ranges[0].subnet));
}
