use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::cluster::{Cluster, Host as HostView, NetworkView, derive};
use overlay::ledger::{Input, Ledger};
use overlay::model::host::{HostInfo, Liveness};
use overlay::model::id::HostId;
use overlay::model::intent::Intents;
use overlay::model::network::Settings;
use overlay::model::network::{Driver, Network};
use overlay::model::record::{Incarnation, Record};
use overlay::operations::{Request as _, State};
use overlay_proto::v1::CreateNetworkRequest;

use super::*;
use crate::control::input;
use crate::reconcile::tests::{Host, label};

/// One host at 192.0.2.1 and, in another partition's making, a network `taken`.
fn cluster() -> Cluster {
    let id = HostId::from_bytes([2; 16]);
    let info = HostInfo {
        name: label("beta"),
        vtep: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        peer: ([192, 0, 2, 1], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: overlay::model::member::Stamp::default(),
        phase: overlay::model::host::Phase::Established,
        founder: None,
    };
    let record = Record { host: Some(info), ..Record::default() };
    let life = Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record: record.into() };
    let mut cluster = derive(&[(id, vec![life])].into(), None);
    let network = define(&cluster, id, wanted("taken", "10.1.0.0/16")).expect("nothing speaks against it");
    cluster.networks.insert(network.id, NetworkView::new(&network).into());
    cluster.now = 41;
    cluster
}

/// What overlayctl would ask for, of a name and a subnet.
fn request(name: &str, subnet: &str) -> CreateNetworkRequest {
    CreateNetworkRequest { name: name.to_owned(), subnets: texts(&[subnet]), ..CreateNetworkRequest::default() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn wanted(name: &str, subnet: &str) -> NetworkSpec {
    input::network(request(name, subnet)).expect("it can be read")
}

/// The definition that a host which founded its cluster alone comes to.
fn define(cluster: &Cluster, me: HostId, spec: NetworkSpec) -> Result<Network, NetworkRefusal> {
    let mut ledger = Ledger::new(me);
    for input in [Input::Booted { nonce: 1 }, Input::Found] {
        let changes = ledger.step(&input, 0).changes;
        ledger.apply(&changes);
    }
    let info = HostInfo {
        name: label("alpha"),
        vtep: [192, 0, 2, 7].into(),
        vxlan_port: 4789,
        peer: ([192, 0, 2, 7], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: overlay::model::member::Stamp::default(),
        phase: overlay::model::host::Phase::Established,
        founder: Some(me),
    };
    let request = CreateNetwork {
        spec,
        id: NetworkId::from_bytes(crate::random()),
        since: 7,
        cluster: Arc::new(cluster.clone()),
        synced: true,
        told_to_join: false,
    };
    let state = State::new(ledger, Intents::default(), BTreeMap::new(), info);
    request.decide(&state, 0).map(|decision| decision.answer)
}

/// As the daemon takes it: what it says if it does not.
fn asked(cluster: &Cluster, request: CreateNetworkRequest) -> Result<Network, String> {
    let spec = input::network(request).map_err(|status| status.message().to_owned())?;
    define(cluster, HostId::from_bytes([1; 16]), spec).map_err(|error| error.to_string())
}

#[test]
fn a_network_is_what_was_asked_for() {
    let cluster = cluster();
    let made = asked(
        &cluster,
        CreateNetworkRequest {
            gateways: texts(&["172.38.255.1"]),
            ip_ranges: texts(&["172.38.5.0/24"]),
            aux_addresses: [("router".to_owned(), "172.38.5.1".to_owned())].into(),
            driver: "bridge".to_owned(),
            internal: true,
            no_icc: true,
            no_masquerade: true,
            mtu: 1400,
            labels: [("tier".to_owned(), "web".to_owned())].into(),
            ..request("Web", "172.38.0.0/16")
        },
    )
    .expect("all is well");
    assert_eq!((made.name.as_str(), made.creator, made.created), ("web", HostId::from_bytes([1; 16]), 42));
    assert_eq!(made.ranges[0].gateway, IpAddr::from([172, 38, 255, 1]));
    assert_eq!(made.ranges[0].pool.map(|pool| pool.to_string()).as_deref(), Some("172.38.5.0/24"));
    assert_eq!(made.since, 7);
    let router = label("router");
    let settings = Settings {
        driver: Driver::Bridge,
        internal: true,
        masquerade: false,
        icc: false,
        mtu: Some(1400),
        auxiliary: [([172, 38, 5, 1].into(), router)].into(),
        labels: [("tier".to_owned(), "web".to_owned())].into(),
    };
    assert_eq!(made.settings, settings);
    let other = asked(&cluster, request("Web", "172.38.0.0/16")).expect("all is well");
    assert_eq!(other.ranges[0].gateway, IpAddr::from([172, 38, 0, 1]), "the first one unless given");
    assert_eq!(other.settings, Settings::default());
    assert_ne!(made.id, other.id);
}

#[test]
fn a_network_without_a_subnet_gets_a_free_one() {
    let mut cluster = cluster();
    let subnets = |made: &Network| made.ranges.iter().map(|range| range.subnet.to_string()).collect::<Vec<_>>();
    let bare = || CreateNetworkRequest { name: "bare".to_owned(), ..CreateNetworkRequest::default() };
    let first = asked(&cluster, bare()).expect("there are some");
    assert_eq!(subnets(&first), ["10.128.0.0/16"]);
    cluster.networks.insert(first.id, NetworkView::new(&Network { name: label("other"), ..first }).into());
    let second = asked(&cluster, CreateNetworkRequest { ipv6: true, ..bare() }).expect("there are more");
    let [v4, v6] = subnets(&second).try_into().expect("one of each");
    assert_eq!(v4, "10.129.0.0/16");
    assert!(v6.starts_with("fd") && v6.ends_with("::/64"), "{v6}");
    let named = CreateNetworkRequest { ipv6: true, subnets: texts(&["fd00:7::/80", "10.3.0.0/24"]), ..bare() };
    assert_eq!(subnets(&asked(&cluster, named).expect("both are named")), ["10.3.0.0/24", "fd00:7::/80"]);
    let only = CreateNetworkRequest { subnets: texts(&["fd00:7::/64"]), ..bare() };
    assert_eq!(subnets(&asked(&cluster, only).expect("IPv6 is enough")), ["fd00:7::/64"]);
}

#[test]
fn a_network_without_a_subnet_gets_none_that_a_host_routes_elsewhere() {
    let mut cluster = cluster();
    let bare = || CreateNetworkRequest { name: "bare".to_owned(), ..CreateNetworkRequest::default() };
    let mut with = |routed: &[&str]| {
        let routed: std::collections::BTreeSet<_> = routed.iter().map(|text| text.parse().expect("a subnet")).collect();
        for host in cluster.hosts.values_mut() {
            Arc::make_mut(host).info.routed.clone_from(&routed);
        }
        asked(&cluster, bare()).map(|made| made.ranges[0].subnet.to_string())
    };
    assert_eq!(with(&["10.128.0.0/16", "10.129.0.0/16"]).as_deref(), Ok("10.130.0.0/16"));
    assert_eq!(with(&["10.128.0.0/9", "172.17.0.0/16"]).as_deref(), Ok("172.16.0.0/16"));
    assert_eq!(with(&["10.128.0.0/9", "172.16.0.0/12"]).as_deref(), Ok("192.168.0.0/20"));
    let refused = with(&["10.128.0.0/9", "172.16.0.0/12", "192.168.0.0/16"]).expect_err("nothing is left").to_string();
    assert!(refused.contains("172.16.0.0/12") && refused.contains("--subnet"), "{refused}");
}

#[test]
fn a_network_that_can_not_be_is_told_with_object_cause_and_next_step() {
    let net = || request("net", "10.2.0.0/16");
    let of = |subnet| request("net", subnet);
    let with = |change: fn(&mut CreateNetworkRequest)| {
        let mut request = net();
        change(&mut request);
        request
    };
    let mut routed = cluster();
    routed.networks.values_mut().for_each(|view| Arc::make_mut(view).network.settings.masquerade = false);
    let plain = cluster();
    let cases: Vec<(&Cluster, CreateNetworkRequest, &[&str])> = vec![
        (&plain, request("a b", "10.2.0.0/16"), &["`a b`", "not a name", "1 to 63 letters"]),
        (&plain, request("", "10.2.0.0/16"), &["not a name"]),
        (&plain, request(&"x".repeat(64), "10.2.0.0/16"), &["not a name"]),
        (&plain, request("taken", "10.2.0.0/16"), &["name `taken`", "in use", "10.1.0.0/16", "choose another name"]),
        (&plain, request("TAKEN", "10.2.0.0/16"), &["name `taken`", "in use"]),
        (&plain, request("host", "10.2.0.0/16"), &["`host`", "overlayctl run --network host", "choose another name"]),
        (&plain, request("none", "10.2.0.0/16"), &["`none`", "choose another name"]),
        (
            &plain,
            with(|r| r.subnets.push("10.3.0.0/16".to_owned())),
            &["10.2.0.0/16 and 10.3.0.0/16", "both IPv4", "leave one out"],
        ),
        (
            &plain,
            with(|r| r.subnets.extend(texts(&["fd00:1::/64", "fd00:2::/64"]))),
            &["fd00:1::/64 and fd00:2::/64", "both IPv6"],
        ),
        (&plain, of("10.2.0.0"), &["`10.2.0.0`", "not a subnet", "172.38.0.0/16"]),
        (&plain, of("10.2.0.0/33"), &["`10.2.0.0/33`", "not a subnet"]),
        (&plain, of("10.2.0.5/16"), &["`10.2.0.5/16`", "host bits", "10.2.0.0/16"]),
        (&plain, of("fd00::/127"), &["fd00::/127", "/32 to /126"]),
        (&plain, of("fd00::/16"), &["fd00::/16", "/32 to /126"]),
        (&plain, of("::/0"), &["::/0", "/32 to /126"]),
        (&plain, of("fd00::1/64"), &["`fd00::1/64`", "host bits", "fd00::/64"]),
        (&plain, of("fe80::/64"), &["fe80::/64", "link-local"]),
        (&plain, of("ff00::/64"), &["ff00::/64", "multicast"]),
        (&plain, of("fd6f:7665:726c:1::/64"), &["fd6f:7665:726c:1::/64", "between segments and their host"]),
        (&plain, of("::ffff:10.2.0.0/112"), &["overlaps ::/8", "IPv4 addresses written as IPv6"]),
        (
            &plain,
            CreateNetworkRequest { gateways: texts(&["fd00::"]), ..of("fd00::/64") },
            &["gateway fd00::", "subnet itself"],
        ),
        (&plain, CreateNetworkRequest { mtu: 1279, ipv6: true, ..net() }, &["MTU 1279", "1280 bytes", "larger"]),
        (&plain, of("10.2.0.0/31"), &["10.2.0.0/31", "/9 to /30"]),
        (&plain, of("10.2.0.0/32"), &["10.2.0.0/32", "/9 to /30"]),
        (&plain, of("10.0.0.0/8"), &["10.0.0.0/8", "/9 to /30"]),
        (&plain, of("0.0.0.0/0"), &["0.0.0.0/0", "/9 to /30"]),
        (&plain, of("127.0.0.0/16"), &["127.0.0.0/16", "overlaps", "loopback"]),
        (&plain, of("192.0.2.0/24"), &["192.0.2.0/24", "192.0.2.1", "host `beta`", "choose another subnet"]),
        (&plain, with(|r| r.gateways = texts(&["10.3.0.1"])), &["gateway 10.3.0.1", "10.2.0.0/16", "choose one"]),
        (&plain, with(|r| r.gateways = texts(&["10.2.0.0"])), &["gateway 10.2.0.0", "subnet itself", "choose one"]),
        (&plain, with(|r| r.gateways = texts(&["10.2.0.1", "10.2.0.2"])), &["10.2.0.2", "second", "at most"]),
        (&plain, with(|r| r.gateways = texts(&["gw"])), &["gateway `gw`", "expected an IP address"]),
        (&plain, with(|r| r.gateways = texts(&["::ffff:10.2.0.1"])), &["::ffff:10.2.0.1", "none of", "10.2.0.0/16"]),
        (&plain, with(|r| r.ip_ranges = texts(&["10.3.0.0/24"])), &["range 10.3.0.0/24", "10.2.0.0/16", "choose one"]),
        (&plain, with(|r| r.ip_ranges = texts(&["10.0.0.0/9"])), &["range 10.0.0.0/9", "10.2.0.0/16", "smaller"]),
        (&plain, with(|r| r.ip_ranges = texts(&["10.2.0.1/32"])), &["range 10.2.0.1/32", "no address", "larger"]),
        (&plain, with(|r| r.ip_ranges = texts(&["ten"])), &["`ten`", "not a subnet"]),
        (
            &plain,
            with(|r| drop(r.aux_addresses.insert("router".to_owned(), "10.3.0.1".to_owned()))),
            &["10.3.0.1", "`router`", "outside"],
        ),
        (
            &plain,
            with(|r| drop(r.aux_addresses.insert("router".to_owned(), "10.2.0.1".to_owned()))),
            &["10.2.0.1", "`router`", "gateway"],
        ),
        (
            &plain,
            with(|r| drop(r.aux_addresses.insert("a.b".to_owned(), "10.2.0.9".to_owned()))),
            &["`a.b`", "not a name"],
        ),
        (
            &plain,
            with(|r| drop(r.aux_addresses.insert("router".to_owned(), "there".to_owned()))),
            &["`router`", "`there`", "an IP address"],
        ),
        (&plain, with(|r| r.driver = "macvlan".to_owned()), &["driver `macvlan`", "vxlan", "bridge"]),
        (&plain, with(|r| r.mtu = 68), &["MTU 68", "576 to 65535"]),
        (&plain, with(|r| r.mtu = 70_000), &["MTU 70000", "576 to 65535"]),
        (&plain, with(|r| drop(r.labels.insert(String::new(), String::new()))), &["label", "KEY=VALUE"]),
        (&plain, with(|r| drop(r.labels.insert("a".to_owned(), "\n".to_owned()))), &["label `a=\\n`", "control"]),
        (&plain, with(|r| drop(r.labels.insert("a".to_owned(), "b".repeat(5000)))), &["5001 bytes", "4096"]),
        (
            &routed,
            CreateNetworkRequest { no_masquerade: true, ..of("10.1.7.0/24") },
            &["10.1.7.0/24", "`taken`", "masqueraded", "choose another"],
        ),
    ];
    for (cluster, request, words) in cases {
        let shown = format!("{request:?}");
        let error = asked(cluster, request).expect_err(&shown);
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
    }
    asked(&routed, of("10.1.7.0/24")).expect("what is masqueraded may overlap");
}

fn networks(host: &Host) -> Networks {
    Networks { state: host.state.clone(), seen: host.seen.clone(), told_to_join: false }
}

#[tokio::test]
async fn of_two_who_give_one_name_at_once_one_gets_it() {
    let host = Host::start();
    let networks = networks(&host);
    let net = || wanted("net", "10.2.0.0/16");
    let both = futures::join!(networks.create(net()), networks.create(net()));
    let ((Ok(id), Err(error)) | (Err(error), Ok(id))) = both else { unreachable!("one of the two") };
    assert!(
        matches!(&error, NetworkError::Refused(NetworkRefusal::NameInUse { id: other, .. }) if *other == id),
        "{error}"
    );
    assert_eq!(host.seen.borrow().cluster.networks.keys().copied().collect::<Vec<_>>(), [id]);
    // Its name is free when it is gone.
    networks.remove(id, Hindered::ByAll).await.expect("nobody is in it");
    assert!(host.seen.borrow().cluster.networks.is_empty(), "the next command sees it");
    let error = networks.remove(id, Hindered::ByAll).await.expect_err("it is gone");
    assert!(matches!(error, NetworkError::Refused(NetworkRefusal::Unknown(_))), "{error}");
    networks.create(net()).await.expect("the name is free");
}

#[tokio::test]
async fn a_live_peer_gets_half_of_a_new_network() {
    let host = Host::start();
    // The other member of the cluster that the host founded.
    let (networks, peer) = (networks(&host), HostId::from_bytes([9; 16]));
    let mut cluster = Cluster::clone(&host.seen.borrow().cluster);
    let HostView { info, record, .. } = HostView::clone(&cluster.hosts[&host.identity.id()]);
    let other = HostView { info, liveness: Liveness::Live, record, generation: 1, is_newest: true };
    cluster.hosts.insert(peer, other.into());
    let (_sees, seen) =
        watch::channel(ClusterView { cluster: Arc::new(cluster), synced: true, ..ClusterView::default() });
    let alone = Networks { seen, ..networks };
    let create = CreateNetwork {
        spec: wanted("net", "10.2.0.0/16"),
        id: NetworkId::from_bytes([5; 16]),
        since: 0,
        cluster: Arc::clone(&alone.seen.borrow().cluster),
        synced: true,
        told_to_join: false,
    };
    let network = alone.state.decide(create).await.expect("nothing speaks against it").answer;
    let blocks = usize::from(network.ranges[0].blocks());
    let held = alone.state.ledger().accounts()[&network.id].held_by(peer).count();
    assert_eq!(held, blocks / 2);
}

/// Right after the first start `host ls` shows the other hosts, and the operator makes a network.
#[tokio::test]
async fn a_host_that_hears_others_waits_until_it_has_joined_and_caught_up() {
    let host = Host::start();
    let mut cluster = Cluster::clone(&host.seen.borrow().cluster);
    let own = Arc::clone(&cluster.hosts[&host.identity.id()]);
    cluster.hosts.insert(HostId::from_bytes([9; 16]), own);
    let (sees, seen) =
        watch::channel(ClusterView { cluster: Arc::new(cluster), synced: false, ..ClusterView::default() });
    let (joins, activation) = watch::channel(Activation::Joining { acknowledged: BTreeSet::new() });
    let mut networks = Networks { seen, told_to_join: true, ..networks(&host) };
    networks.state.activation = activation;
    let mut create = std::pin::pin!(networks.create(wanted("net", "10.2.0.0/16")));
    let at_once = tokio::time::timeout(Duration::from_millis(50), &mut create).await;
    assert!(at_once.is_err(), "it joins still: {at_once:?}");
    joins.send_replace(Activation::Established);
    let at_once = tokio::time::timeout(Duration::from_millis(50), &mut create).await;
    assert!(at_once.is_err(), "it has not caught up: {at_once:?}");
    assert!(host.state.ledger().accounts().is_empty());
    sees.send_modify(|seen| seen.synced = true);
    // The view of this test never shows the network, which the call waits for in the end.
    let _ = tokio::time::timeout(Duration::from_millis(500), create).await;
    assert_eq!(host.state.ledger().accounts().len(), 1, "the host has joined and caught up");
}

#[tokio::test]
async fn who_was_told_of_others_and_has_met_none_makes_no_network() {
    let host = Host::start();
    let (_sees, seen) = watch::channel(ClusterView::default());
    let networks = Networks { seen, told_to_join: true, ..networks(&host) };
    let error = networks.create(wanted("net", "10.2.0.0/16")).await.expect_err("it has met none");
    assert!(error.to_string().contains("--join") && error.to_string().contains("--bootstrap"), "{error}");
}
