use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use overlay::cluster::derive;
use overlay::ledger::{AddressRequest, Denial, Ledger};
use overlay::model::host::HostInfo;
use overlay::model::lease::Version;
use overlay::model::network::Network;
use overlay::model::network::Range;
use overlay::model::record::{Incarnation, NetworkMembership, Record, Records};

use overlay::kernel::netns;
use overlay::model::addr::Mac;
use overlay::model::endpoint::Assigned;
use overlay::operations::Request as _;
use overlay::operations::State;
use overlay::operations::attach::MAX_ALIASES;
use overlay::operations::container::Priority;
use overlay::operations::hear::Bury;
use std::net::IpAddr;

use super::explain::not_given;
use super::*;
use crate::cluster::LastSeen;
use crate::peer::CallError;
use crate::reconcile::tests::{Host, label, network};

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(10);

mod idempotency;

/// Hosts `alpha` (this one, alive), `beta` (alive), `gamma` (suspected) and `delta` (given up); on each an endpoint of
/// network `net`: `web-alpha` with 172.38.0.1, and so on.
fn cluster() -> (Cluster, Network) {
    let network = network(host(1));
    let mut records = Records::new();
    let states = [Liveness::Live, Liveness::Live, Liveness::Suspect, Liveness::Dead];
    for (number, (name, liveness)) in (1..).zip(["alpha", "beta", "gamma", "delta"].into_iter().zip(states)) {
        let info = HostInfo {
            name: label(name),
            vtep: [192, 0, 2, number].into(),
            vxlan_port: 4789,
            peer: ([192, 0, 2, number], 7946).into(),
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: overlay::model::member::Stamp::default(),
            phase: overlay::model::host::Phase::Established,
            founder: None,
        };
        let endpoint = endpoint(&network, number + 1, &format!("web-{name}"));
        let record = Record {
            host: Some(info),
            networks: [(network.id, NetworkMembership { network: network.clone(), vni: None }.into())].into(),
            endpoints: [(endpoint.id, Arc::new(endpoint))].into(),
            ..Record::default()
        };
        records
            .insert(host(number), vec![Incarnation { generation: 1, complete: true, liveness, record: record.into() }]);
    }
    (derive(&records, None), network)
}

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn endpoint(network: &Network, last: u8, name: &str) -> Endpoint {
    let address = ip(last);
    Endpoint {
        id: EndpointId::from_bytes([last; 16]),
        network: network.id,
        name: label(name),
        aliases: BTreeSet::new(),
        addresses: vec![Assigned { address, lease: Version { epoch: 1, count: 0 } }],
        mac: Mac::of_address(address),
        created: 2,
    }
}

fn ip(last: u8) -> IpAddr {
    [172, 38, 0, last].into()
}

fn wanted(name: &str) -> EndpointSpec {
    EndpointSpec {
        network: "net".to_owned(),
        netns: PathBuf::from("/proc/self/ns/net"),
        name: label(name),
        aliases: BTreeSet::new(),
        addresses: BTreeSet::new(),
        mac: None,
        ifname: Some("ovtest0".parse().expect("a name")),
        priority: Priority::default(),
        id: None,
        ports: Vec::new(),
    }
}

fn asking(address: IpAddr) -> AddressRequest {
    AddressRequest {
        network: NetworkId::from_bytes([7; 16]),
        endpoint: EndpointId::from_bytes([8; 16]),
        name: label("new"),
        range: 0,
        address: Some(address),
        reachable: BTreeSet::new(),
        asked: BTreeSet::new(),
    }
}

/// What an operator is told of a request that is refused whatever the ledger says of it.
fn tried(cluster: &Cluster, spec: EndpointSpec) -> Result<(), AttachError> {
    let request = Attach {
        id: EndpointId::from_bytes([99; 16]),
        cluster: Arc::new(cluster.clone()),
        container: Container { netns: NetnsRef { path: spec.netns.clone(), cookie: 1 }, interfaces: BTreeMap::new() },
        obstacles: BTreeMap::new(),
        asked: BTreeSet::new(),
        spec,
    };
    let info = cluster.hosts[&host(1)].info.clone();
    let state = State::new(Ledger::new(host(1)), Intents::default(), BTreeMap::new(), info);
    match request.decide(&state, 0) {
        // A host that belongs to no cluster has no address to give.
        Ok(_) | Err(AttachRefusal::Denied(..)) => Ok(()),
        Err(refusal) => Err(explain::refused(&seen(cluster), host(1), &request, refusal)),
    }
}

/// What an operator is told of what a ledger says.
fn denied(seen: &ClusterView, asked: &AddressRequest, denial: Denial) -> AttachError {
    let request = Attach {
        spec: EndpointSpec { addresses: asked.address.into_iter().collect(), ..wanted("new") },
        id: asked.endpoint,
        cluster: Arc::clone(&seen.cluster),
        container: Container { netns: NetnsRef { path: "/c".into(), cookie: 1 }, interfaces: BTreeMap::new() },
        obstacles: BTreeMap::new(),
        asked: BTreeSet::new(),
    };
    explain::refused(seen, host(1), &request, AttachRefusal::Denied(Box::new(asked.clone()), denial))
}

/// One line that has all of these words in it: the object, the cause and what to do.
fn assert_line(error: &AttachError, words: &[&str]) {
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
    for word in words {
        assert!(line.contains(word), "no `{word}` in: {line}");
    }
}

#[test]
fn what_the_cluster_says_against_it_is_told_with_object_cause_and_next_step() {
    let (cluster, _) = cluster();
    let many: BTreeSet<Name> = (0..=MAX_ALIASES).map(|n| label(&format!("a{n}"))).collect();
    let at = |last| EndpointSpec { addresses: [ip(last)].into(), ..wanted("new") };
    let far = EndpointSpec { addresses: [[10, 0, 0, 9].into()].into(), ..wanted("new") };
    let broadcast = EndpointSpec { addresses: [[172, 38, 255, 255].into()].into(), ..wanted("new") };
    let mac = EndpointSpec { mac: Some(Mac::of_address(ip(3))), ..wanted("new") };
    let cases: [(EndpointSpec, &[&str]); 10] = [
        (wanted("web-alpha"), &["name `web-alpha`", "in use", "`net`", "host `alpha`", "choose another name"]),
        (wanted("web-gamma"), &["name `web-gamma`", "in use", "host `gamma`", "choose another name"]),
        (at(3), &["address 172.38.0.3", "in use", "`net`", "`web-beta`", "host `beta`", "choose another address"]),
        // Also of a host that was given up: it may run, cut off.
        (at(5), &["address 172.38.0.5", "in use", "`web-delta`", "host `delta`"]),
        (at(1), &["address 172.38.0.1", "can't be used", "`net`", "the gateway's", "another one of 172.38.0.0/16"]),
        (at(0), &["address 172.38.0.0", "can't be used", "`net`", "subnet itself", "leave out --ip"]),
        (broadcast, &["address 172.38.255.255", "can't be used", "broadcast address", "leave out --ip"]),
        (far, &["address 10.0.0.9", "can't be used", "outside of the subnet", "another one of 172.38.0.0/16"]),
        (mac, &["MAC 02:42:ac:26:00:03", "in use", "`net`", "`web-beta`", "host `beta`", "choose another MAC"]),
        (EndpointSpec { aliases: many, ..wanted("new") }, &["`new`", "65 aliases", "64 is the most"]),
    ];
    for (wanted, words) in cases {
        assert_line(&tried(&cluster, wanted).expect_err("it can't be had"), words);
    }
    // The name of a host that was given up is free, and so is all else.
    let free = [wanted("web-delta"), wanted("new"), at(9)];
    assert!(free.into_iter().all(|spec| tried(&cluster, spec).is_ok()));
    let slip = EndpointSpec { network: "nte".to_owned(), ..wanted("new") };
    assert_line(&tried(&cluster, slip).expect_err("a slip"), &["no network `nte`", "overlayctl network ls"]);
}

#[test]
fn what_the_ledgers_say_against_it_is_told_with_object_cause_and_next_step() {
    let (cluster, _) = cluster();
    let address = ip(9);
    let request = asking(address);
    let holders = BTreeMap::from([(host(1), 2), (host(4), 6)]);
    let known = EndpointId::from_bytes([3; 16]);
    let cases: [(Denial, &[&str]); 10] = [
        (Denial::UnknownNetwork, &["no network `net`", "overlayctl network"]),
        (Denial::NotAssignable(ip(1)), &["address 172.38.0.1", "can't be used", "the gateway's", "choose another"]),
        (Denial::Bound { address: ip(3), endpoint: known }, &["172.38.0.3", "`web-beta`", "host `beta`", "disconnect"]),
        (
            Denial::Bound { address, endpoint: EndpointId::from_bytes([9; 16]) },
            &["172.38.0.9", "in use", "`net`", "choose another address", "try again"],
        ),
        (Denial::Delegated { address: ip(3), to: host(2) }, &["172.38.0.3", "`web-beta`", "host `beta`"]),
        (Denial::Delegated { address, to: host(2) }, &["172.38.0.9", "delegated to host `beta`", "or wait"]),
        (
            Denial::Unreachable { address, holder: host(3) },
            &["172.38.0.9", "held by host `gamma`", "does not answer", "start that host", "overlayctl lease ls net"],
        ),
        (Denial::NotHolder { holder: Some(host(2)) }, &["172.38.0.9", "moved to host `beta`", "try again"]),
        (Denial::NotHolder { holder: None }, &["`net`", "no free address", "start the hosts"]),
        (
            Denial::Full { holders },
            &[
                "`net`",
                "no free address of 172.38.0.0/16",
                "2 blocks are held by host `alpha`",
                "`delta`, which does not answer",
            ],
        ),
    ];
    for (denial, words) in cases {
        assert_line(&denied(&seen(&cluster), &request, denial), words);
    }
    for (borrower, name) in [(host(3), "`gamma`"), (host(4), "`delta`"), (host(8), "08080808")] {
        let error = denied(&seen(&cluster), &request, Denial::Delegated { address, to: borrower });
        assert_line(&error, &["172.38.0.9", "delegated to host", name, "does not answer", "overlayctl host forget"]);
        assert!(!error.to_string().contains("or wait"), "it does not come back by itself: {error}");
    }
}

#[test]
fn what_the_holder_of_an_address_answers_is_told_with_its_name_and_next_step() {
    let (cluster, _) = cluster();
    let view = cluster.find("net").expect("it is there");
    let status = |status: tonic::Status| CallError::Refused { host: host(2), status: Box::new(status) };
    let full = status(tonic::Status::internal("state file /var/lib/x can't be written"));
    let (here, there) = ("overlayctl status` here", "overlayctl status` there");
    let cases: [(CallError, &[&str]); 6] = [
        (Denial::Joining.into(), &["acknowledged by a majority", there]),
        (Denial::Unchecked.into(), &["the machine has booted", there]),
        (Denial::Fenced.into(), &["given its identity up", "overlayctl host forget"]),
        (Denial::Stranger { host: host(1) }.into(), &["does not know this host", "try again"]),
        (Denial::Sealed { host: host(1) }.into(), &["this host was forgotten", here]),
        (full, &["state file /var/lib/x can't be written", "mend that there"]),
    ];
    for (answer, words) in cases {
        let error = not_given(&seen(&cluster), view, (ip(9), host(2)), &answer).expect("it is an answer");
        assert_line(&error, &["172.38.0.9", "`net`", "held by host `beta`", "lease ls net"]);
        assert_line(&error, words);
        assert!(!error.to_string().contains("does not answer"), "{error}");
    }
    let others = [
        Denial::NotHolder { holder: None }.into(),
        status(tonic::Status::unavailable("it stops")),
        CallError::Unknown(host(2)),
    ];
    for answer in others {
        assert!(not_given(&seen(&cluster), view, (ip(9), host(2)), &answer).is_none(), "{answer}");
    }
}

#[test]
fn a_host_that_was_not_heard_since_the_start_is_not_said_to_be_silent_since_then() {
    let cluster = cluster().0;
    let mut seen = seen(&cluster);
    let error = |seen: &ClusterView| {
        let denial = Denial::Unreachable { address: ip(9), holder: host(3) };
        denied(seen, &asking(ip(9)), denial)
    };
    seen.silent = Arc::new(LastSeen::started(Duration::from_secs(12)));
    assert_line(&error(&seen), &["which does not answer (not heard since overlayd started, 12s ago): start"]);
    seen.silent = Arc::new(LastSeen::started(Duration::from_secs(60)).unheard(host(3), Duration::from_secs(13)));
    assert_line(&error(&seen), &["which does not answer (not heard for 13s): start"]);
}

#[test]
fn a_network_of_another_cluster_is_refused_with_where_it_is() {
    let (mut cluster, network) = cluster();
    Arc::make_mut(cluster.networks.get_mut(&network.id).expect("it is there")).apart = true;
    let refused = |cluster: &Cluster| tried(cluster, wanted("new")).expect_err("it is theirs");
    assert_line(&refused(&cluster), &["`net`", "another cluster", "on `alpha`, `beta`, `gamma`:", "overlayctl status"]);
    cluster.hosts.values_mut().for_each(|host| Arc::make_mut(host).liveness = Liveness::Dead);
    assert_line(&refused(&cluster), &["on hosts that are gone:", "use another network"]);
}

fn seen(cluster: &Cluster) -> ClusterView {
    ClusterView { cluster: Arc::new(cluster.clone()), ..ClusterView::default() }
}

fn attacher(host: &Host) -> Attacher {
    Attacher {
        state: host.state.clone(),
        seen: host.seen.clone(),
        peers: Peers::new(&host.identity, host.seen.clone()),
        reconciler: host.reconciler.clone(),
        named: watch::channel(BTreeSet::new()).1,
        me: host.identity.id(),
        lock: KeyedLock::default(),
    }
}

/// A host with a network, and the test's own namespace as the container; `None` if this user may not look into that.
async fn with_network() -> Option<(Host, Attacher)> {
    let Ok(netns) = netns::identify(&wanted("x").netns) else {
        eprintln!("not tried: this user may not enter its own network namespace");
        return None;
    };
    let host = Host::start();
    host.create().await;
    host.kernel.with(|kernel| kernel.open_container(netns));
    let attacher = attacher(&host);
    Some((host, attacher))
}

fn bound(attacher: &Attacher) -> Vec<EndpointId> {
    let ledger = attacher.state.ledger();
    ledger.accounts().values().flat_map(|account| account.bound.values().copied()).collect()
}

#[tokio::test]
async fn an_endpoint_that_is_attached_stands_and_is_seen_and_can_be_let_go() {
    let Some((host, attacher)) = with_network().await else { return };
    let attachment = attacher.attach(&wanted("web")).await.expect("nothing speaks against it");
    let id = attachment.endpoint.id;
    let shows = |seen: &ClusterView| seen.cluster.networks.values().any(|v| v.endpoints.contains_key(&id));
    assert!(shows(&host.seen.borrow()), "the next command sees it");
    assert!(host.kernel.with(|k| k.interfaces(&attachment.netns).contains(&attachment.ifname)));
    let gone = attacher.detach("net", &label("WEB")).await.expect("it is there");
    assert_eq!(gone, attachment);
    assert!(!shows(&host.seen.borrow()) && bound(&attacher).is_empty());
    assert!(host.kernel.with(|k| k.state().segments.is_empty()));
    let error = attacher.detach("net", &label("web")).await.expect_err("it is gone");
    assert_line(&error, &["no endpoint `web`", "`net`", "overlayctl endpoint ls"]);
}

#[tokio::test]
async fn of_those_who_ask_for_one_name_or_address_at_once_one_gets_it() {
    let Some((_host, attacher)) = with_network().await else { return };
    let at = |name| EndpointSpec { addresses: [ip(11)].into(), ..wanted(name) };
    let askers = [wanted("web"), wanted("web"), at("one"), at("two")];
    let askers = (1..).zip(askers).map(|(n, wanted)| {
        let ifname = Some(format!("ovtest{n}").parse().expect("a name"));
        let (attacher, wanted) = (attacher.clone(), EndpointSpec { ifname, ..wanted });
        async move { attacher.attach(&wanted).await }
    });
    let all = futures::future::join_all(askers).await;
    let won = |range: std::ops::Range<usize>| all[range].iter().filter(|r| r.is_ok()).count();
    assert_eq!((won(0..2), won(2..4)), (1, 1), "{all:?}");
    for error in all.iter().filter_map(|r| r.as_ref().err()) {
        use AttachError::{AddressInUse, NameInUse};
        // Not only that it is taken, but by whom.
        assert!(matches!(error, NameInUse { .. } | AddressInUse { .. }), "{error}");
    }
    let attached = attacher.intents().attachments.len();
    assert_eq!((bound(&attacher).len(), attached), (2, 2), "the losers left nothing behind");
}

#[tokio::test]
async fn what_the_kernel_refuses_leaves_nothing_behind() {
    let Some((host, attacher)) = with_network().await else { return };
    host.kernel.with(|kernel| {
        kernel.refuse(|step| {
            use overlay::datapath::plan::{SegmentStep, Step};
            matches!(step, Step::Segment(_, SegmentStep::CreateTunnel(_)))
                .then_some(overlay::datapath::kernel_api::Cause::AlreadyExists)
        });
    });
    let error = attacher.attach(&wanted("web")).await.expect_err("the tunnel is refused");
    assert_line(&error, &["`web`", "`net`", "nothing was changed", "VNI", "there already"]);
    assert!(bound(&attacher).is_empty() && attacher.intents().attachments.is_empty());
    host.kernel.with(overlay::datapath::fake::FakeKernel::refuse_nothing);
    host.until("all is removed", |s| s.failures.is_empty() && s.segments.is_empty()).await;
    attacher.attach(&wanted("web")).await.expect("it can be tried again");
}

/// An endpoint whose container runs, while its path is gone.
async fn attached_by_a_path_that_is_gone(host: &Host) -> (Attachment, NetnsRef) {
    let netns = NetnsRef { path: "/proc/0/ns/net".into(), cookie: 7 };
    host.kernel.with(|kernel| kernel.open_container(netns.clone()));
    let (old, commit) = host.attach(&network(host.identity.id()), 1, netns.clone()).await;
    host.until("the commit", |s| s.commit >= commit && s.failures.is_empty()).await;
    (old, netns)
}

/// As after `--pid` of a process that has ended: its namespace lives on in another one.
#[tokio::test]
async fn an_endpoint_keeps_its_name_until_its_port_is_gone_whatever_became_of_its_path() {
    let Some((host, attacher)) = with_network().await else { return };
    let (old, netns) = attached_by_a_path_that_is_gone(&host).await;
    assert_eq!(netns::at_path(&netns), AtPath::Gone);

    let name = old.endpoint.name.as_str();
    let error = attacher.attach(&wanted(name)).await.expect_err("its container runs");
    assert_line(&error, &[&format!("name `{name}`"), "in use", "host `alpha`"]);
    assert!(attacher.intents().attachments.contains_key(&old.endpoint.id), "it was taken over");

    // The last process in there has ended, and nobody has noticed yet.
    host.kernel.with(|kernel| kernel.close_container(&netns));
    let new = attacher.attach(&wanted(name)).await.expect("the name is free");
    assert_ne!(new.endpoint.id, old.endpoint.id);
    assert_eq!(new.endpoint.addresses[0].address, old.endpoint.addresses[0].address, "it has its address again");
    let attached: Vec<EndpointId> = attacher.intents().attachments.keys().copied().collect();
    assert_eq!(attached, [new.endpoint.id]);
}

/// The kernel takes its time to clear a namespace, and a runtime does not wait for that.
#[tokio::test]
async fn a_container_that_is_started_again_while_the_kernel_clears_its_last_namespace_gets_its_name() {
    let Some((host, attacher)) = with_network().await else { return };
    let (old, netns) = attached_by_a_path_that_is_gone(&host).await;

    let again = wanted(old.endpoint.name.as_str());
    let before = host.kernel.looks();
    let cleared = async {
        while host.kernel.looks() == before {
            tokio::task::yield_now().await;
        }
        host.kernel.with(|kernel| kernel.close_container(&netns));
        host.tell_news();
    };
    let (new, ()) = tokio::join!(attacher.attach(&again), cleared);
    assert_ne!(new.expect("it waits for the kernel").endpoint.id, old.endpoint.id);
}

/// A client that goes away drops the call wherever it is just then.
#[tokio::test]
async fn an_endpoint_whose_caller_goes_away_is_never_left_half_attached() {
    let Some((host, attacher)) = with_network().await else { return };
    for polls in 0..40_u32 {
        let name = format!("web{polls}");
        {
            let wanted = wanted(&name);
            let mut call = std::pin::pin!(attacher.attach(&wanted));
            for _ in 0..polls {
                let polled = futures::poll!(&mut call);
                if polled.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if polls == 0 {
            continue;
        }
        // It goes on without its caller.
        let id = host.state.state().intents.networks.keys().next().copied().expect("the network");
        let mut seen = host.seen.clone();
        let named = seen.wait_for(|s| s.cluster.networks[&id].named(&label(&name)).is_some());
        let _ = tokio::time::timeout(TIMEOUT, named).await.expect("it is attached in the end");
        attacher.detach("net", &label(&name)).await.expect("whole, so that it can be let go");
    }
    assert!(bound(&attacher).is_empty());
}

#[tokio::test]
async fn an_endpoint_of_a_deleted_network_can_be_let_go() {
    let Some((host, attacher)) = with_network().await else { return };
    attacher.attach(&wanted("web")).await.expect("nothing speaks against it");
    // Deleted on a host that did not know of the endpoint.
    let id = network(host.identity.id()).id;
    attacher.state.tell(Bury([id].into())).await.expect("the disk takes it");
    let mut seen = host.seen.clone();
    let _ = tokio::time::timeout(TIMEOUT, seen.wait_for(|s| s.cluster.networks.is_empty())).await.expect("it is gone");
    let error = attacher.attach(&wanted("other")).await.expect_err("it is deleted");
    assert_line(&error, &["no network `net`"]);
    attacher.detach("net", &label("web")).await.expect("it drains");
    assert!(host.state.state().intents.networks.is_empty());
}

#[test]
fn a_container_that_is_in_an_overlapping_subnet_is_told_so() {
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let error = AttachError::Overlaps {
        subnet: range.subnet,
        network: "net".to_owned(),
        address: ip(7),
        ifname: "eth0".parse().expect("a name"),
        netns: "/run/netns/c".into(),
    };
    assert_line(
        &error,
        &[
            "172.38.0.0/16",
            "`net`",
            "172.38.0.7",
            "`eth0`",
            "/run/netns/c",
            "would not know where to send",
            "disconnect",
        ],
    );
}

#[test]
fn a_namespace_that_is_not_there_is_told_with_what_to_name_instead() {
    let error = netns::identify(Path::new("/run/netns/no-such-container")).expect_err("there is none");
    assert_line(&error.into(), &["/run/netns/no-such-container", "see that the container runs", "/proc/PID/ns/net"]);
}

#[test]
fn what_the_kernel_said_of_a_namespace_reaches_the_one_who_asked() {
    let source = std::io::Error::other("too many open files");
    let refused = AttachError::from(netns::NetnsError::Refused { path: "/run/netns/c".into(), source });
    let status = tonic::Status::from(refused);
    assert_eq!(status.message(), "can't use the network namespace at /run/netns/c: too many open files");
}
