//! What a round looks at, and what it does not.

use overlay::datapath::fake::Fault;

use super::*;

/// A host with two networks and an endpoint in each, at rest. The kernel tells of its changes.
async fn two_networks() -> (Host, [NetworkId; 2], [Attachment; 2]) {
    let host = Host::start();
    *host.kernel.listener.lock().expect("no test panicked with it") = Some(host.news.clone());
    let one = host.create().await;
    let range = Range::new("172.39.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let id = NetworkId::from_bytes([2; 16]);
    let other = Network { id, name: label("other"), ranges: vec![range], ..network(host.identity.id()) };
    let other = host.make(other).await;
    let mut attachments = Vec::new();
    for (number, network) in [(1, &one), (2, &other)] {
        host.kernel.with(|kernel| kernel.open_container(container(number)));
        let (attachment, commit) = host.attach(network, number, container(number)).await;
        host.until("the endpoint", |s| s.commit >= commit && s.failures.is_empty()).await;
        attachments.push(attachment);
    }
    rest(&host).await;
    let [first, second] = attachments.try_into().expect("two");
    (host, [one.id, other.id], [first, second])
}

/// Until no round follows any more.
async fn rest(host: &Host) {
    let mut settled = host.reconciler.settled.clone();
    while tokio::time::timeout(ECHO * 20, settled.changed()).await.is_ok() {}
}

/// How often the host and the two segments were looked at.
fn looks(host: &Host, networks: [NetworkId; 2]) -> [u32; 3] {
    let [one, other] = networks.map(Part::Segment);
    host.kernel.with(|kernel| [Part::Host, one, other].map(|part| kernel.looks(part)))
}

fn less<const N: usize>(after: [u32; N], before: [u32; N]) -> [u32; N] {
    std::array::from_fn(|n| after[n] - before[n])
}

#[tokio::test]
async fn a_commit_that_changes_nothing_desired_does_not_look() {
    let (host, networks, _) = two_networks().await;
    let before = looks(&host, networks);
    let to = HostId::from_bytes([9; 16]);
    let give = Input::GiveAddress { network: networks[0], to, address: [172, 38, 9, 9].into() };
    host.state.tell(give).await.expect("the disk takes it");
    rest(&host).await;
    assert_eq!(less(looks(&host, networks), before), [0, 0, 0]);
    assert!(host.reconciler.settled.borrow().segments.len() == 2);
}

#[tokio::test]
async fn an_event_of_one_segment_looks_into_that_segment_only() {
    let (host, networks, [web, _]) = two_networks().await;
    let before = looks(&host, networks);
    let port = overlay::datapath::desired::port_ifname(web.endpoint.id);
    let whole = host.kernel.with(|kernel| kernel.state().clone());
    host.kernel.with(|kernel| kernel.inject(&Fault::DetachPort(networks[0], port)));
    host.kernel.echo();
    rest(&host).await;
    assert!(host.kernel.with(|kernel| *kernel.state() == whole), "it is not repaired");
    let status = Arc::clone(&host.reconciler.settled.borrow());
    assert_eq!(status.last.reason, Reason::KernelChanged);
    // Once for the event, and once for the echo of the repair.
    assert_eq!(less(looks(&host, networks), before), [0, 2, 0]);
}

#[tokio::test]
async fn a_change_of_what_is_desired_looks_only_where_it_is() {
    let (host, networks, _) = two_networks().await;
    let before = looks(&host, networks);
    host.kernel.with(|kernel| kernel.open_container(container(3)));
    let network = Network { id: networks[1], ..network(host.identity.id()) };
    let (_, commit) = host.attach(&network, 3, container(3)).await;
    let status = host.until("the endpoint", |s| s.commit >= commit).await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    rest(&host).await;
    let [on_host, here, there] = less(looks(&host, networks), before);
    assert_eq!((on_host, here), (0, 0));
    assert!((1..=3).contains(&there), "{there} looks");
}

#[tokio::test]
async fn after_a_failure_everything_is_looked_at_until_it_is_repaired() {
    let (host, networks, _) = two_networks().await;
    host.kernel.with(|kernel| {
        kernel.refuse(|step| matches!(step, Step::Segment(_, SegmentStep::CreatePort(..))).then_some(Cause::NoSpace));
        kernel.open_container(container(3));
    });
    let network = Network { id: networks[1], ..network(host.identity.id()) };
    host.attach(&network, 3, container(3)).await;
    let failed = host.until("the failure", |s| !s.failures.is_empty()).await;
    let before = looks(&host, networks);
    // It is a retry, or the news that the step made before it failed.
    host.until("another round", |s| s.last.rounds > failed.last.rounds).await;
    assert!(less(looks(&host, networks), before).iter().all(|looks| *looks > 0));
    host.kernel.with(FakeKernel::refuse_nothing);
    host.until("it is made", |s| s.failures.is_empty()).await;
}

#[tokio::test]
async fn an_audit_finds_what_no_event_told_of() {
    let (host, networks, _) = two_networks().await;
    let whole = host.kernel.with(|kernel| kernel.state().clone());
    // Without a word to the reconciler.
    host.kernel.with(|kernel| kernel.inject(&Fault::DeleteBridge(networks[1])));
    let before = looks(&host, networks);
    tokio::time::pause();
    tokio::time::advance(AUDIT).await;
    host.until("the audit", |s| s.last.reason == Reason::Audit).await;
    assert!(less(looks(&host, networks), before).iter().all(|looks| *looks > 0));
    assert!(host.kernel.with(|kernel| *kernel.state() == whole), "it is not repaired");
}

#[tokio::test]
async fn an_endpoint_is_released_when_it_is_asked_for_just_if_its_container_has_ended() {
    let (host, networks, [web, db]) = two_networks().await;
    let (network, endpoint) = (networks[0], web.endpoint.id);
    // Its path is nowhere on this machine, but its port is there: it may run without that path.
    let released = host.reconciler.release_if_lost(network, endpoint).await.expect("it can be looked at");
    assert_eq!(released, Released::StillHere);
    let released = host.reconciler.release_if_lost(network, db.endpoint.id).await.expect("it can be looked at");
    assert_eq!(released, Released::Unknown, "it is in another network");
    host.kernel.with(|kernel| kernel.close_container(&container(1)));
    let released = host.reconciler.release_if_lost(network, endpoint).await.expect("it can be looked at");
    assert_eq!(released, Released::Now);
    assert!(!host.state.intents.borrow().intents.attachments.contains_key(&endpoint));
    host.until("its segment goes", |s| !s.segments.contains_key(&network)).await;
    let released = host.reconciler.release_if_lost(network, endpoint).await.expect("it can be looked at");
    assert_eq!(released, Released::Unknown);
}
