use overlay::cluster::{Host as HostView, derive};
use overlay::host::{HostInfo, Liveness};
use overlay::record::{Incarnation, Record};

use super::*;
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
        stamp: overlay::member::Stamp::default(),
        phase: overlay::host::Phase::Established,
        founder: None,
    };
    let record = Record { host: Some(info), ..Record::default() };
    let life = Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record: record.into() };
    let mut cluster = derive(&[(id, vec![life])].into(), None);
    let network = define(&cluster, id, "taken", &["10.1.0.0/16".to_owned()], "").expect("nothing speaks against it");
    let view = overlay::cluster::NetworkView {
        network: network.clone(),
        shadowed: false,
        apart: false,
        vnis: Default::default(),
        endpoints: Default::default(),
    };
    cluster.networks.insert(network.id, view);
    cluster.now = 41;
    cluster
}

#[test]
fn a_network_is_what_was_asked_for() {
    let me = HostId::from_bytes([1; 16]);
    let made = define(&cluster(), me, "Web", &["172.38.0.0/16".to_owned()], "172.38.255.1").expect("all is well");
    assert_eq!((made.name.as_str(), made.creator, made.created), ("web", me, 42));
    assert_eq!(made.ranges[0].gateway, IpAddr::from([172, 38, 255, 1]));
    let other = define(&cluster(), me, "Web", &["172.38.0.0/16".to_owned()], "").expect("all is well");
    assert_eq!(other.ranges[0].gateway, IpAddr::from([172, 38, 0, 1]), "the first one unless given");
    assert_ne!(made.id, other.id);
}

#[test]
fn a_network_that_can_not_be_is_told_with_object_cause_and_next_step() {
    let cases: [(&str, &[&str], &str, &[&str]); 14] = [
        ("a b", &["10.2.0.0/16"], "", &["`a b`", "not a name", "1 to 63 letters"]),
        ("", &["10.2.0.0/16"], "", &["not a name"]),
        ("taken", &["10.2.0.0/16"], "", &["name `taken`", "in use", "10.1.0.0/16", "choose another name"]),
        ("TAKEN", &["10.2.0.0/16"], "", &["name `taken`", "in use"]),
        ("net", &[], "", &["exactly one --subnet", "0"]),
        ("net", &["10.2.0.0/16", "10.3.0.0/16"], "", &["exactly one --subnet", "2"]),
        ("net", &["10.2.0.0"], "", &["`10.2.0.0`", "not a subnet", "172.38.0.0/16"]),
        ("net", &["10.2.0.0/33"], "", &["`10.2.0.0/33`", "not a subnet"]),
        ("net", &["10.2.0.5/16"], "", &["`10.2.0.5/16`", "host bits", "10.2.0.0/16"]),
        ("net", &["fd00::/64"], "", &["fd00::/64", "only IPv4"]),
        ("net", &["10.2.0.0/31"], "", &["10.2.0.0/31", "/9 to /30"]),
        ("net", &["127.0.0.0/16"], "", &["127.0.0.0/16", "overlaps", "loopback"]),
        ("net", &["192.0.2.0/24"], "", &["192.0.2.0/24", "192.0.2.1", "host `beta`", "choose another subnet"]),
        ("net", &["10.2.0.0/16"], "10.3.0.1", &["gateway 10.3.0.1", "10.2.0.0/16", "choose one"]),
    ];
    let me = HostId::from_bytes([1; 16]);
    for (name, subnets, gateway, words) in cases {
        let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
        let error = define(&cluster(), me, name, &subnets, gateway).expect_err("it can't be").to_string();
        assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
    }
    let error = define(&cluster(), me, "net", &["10.2.0.0/16".to_owned()], "gw").expect_err("no address");
    assert_eq!(error.to_string(), "gateway `gw` is not an IP address: give one of the subnet's host addresses");
}

#[test]
fn a_list_that_is_cut_says_by_how_much() {
    assert_eq!(listed(vec!["a".to_owned(), "b".to_owned()], 2), "a, b");
    assert_eq!(listed(vec!["a".to_owned(), "b".to_owned()], 5), "a, b, 3 more");
}

fn networks(host: &Host) -> Networks {
    Networks { local: host.local.clone(), seen: host.seen.clone(), me: host.identity.id(), told_to_join: false }
}

#[tokio::test]
async fn of_two_who_give_one_name_at_once_one_gets_it() {
    let host = Host::start();
    let networks = networks(&host);
    let subnets = ["10.2.0.0/16".to_owned()];
    let both = futures::join!(networks.create("net", &subnets, ""), networks.create("net", &subnets, ""));
    let ((Ok(id), Err(error)) | (Err(error), Ok(id))) = both else { unreachable!("one of the two") };
    assert!(matches!(&error, NetworkError::NameInUse { id: other, .. } if *other == id), "{error}");
    assert_eq!(host.seen.borrow().cluster.networks.keys().copied().collect::<Vec<_>>(), [id]);
    // Its name is free when it is gone.
    networks.remove(id, Hindered::ByAll).await.expect("nobody is in it");
    assert!(host.seen.borrow().cluster.networks.is_empty(), "the next command sees it");
    let error = networks.remove(id, Hindered::ByAll).await.expect_err("it is gone");
    assert!(matches!(error, NetworkError::Unknown(_)), "{error}");
    networks.create("net", &subnets, "").await.expect("the name is free");
}

#[tokio::test]
async fn a_live_peer_gets_half_of_a_new_network() {
    let host = Host::start();
    // The other member of the cluster that the host founded.
    let (networks, peer) = (networks(&host), HostId::from_bytes([9; 16]));
    let mut cluster = Cluster::clone(&host.seen.borrow().cluster);
    let HostView { info, record, .. } = cluster.hosts[&host.identity.id()].clone();
    cluster.hosts.insert(peer, HostView { info, liveness: Liveness::Live, record, generation: 1, is_newest: true });
    let (_sees, seen) = watch::channel(Seen { cluster: Arc::new(cluster), synced: true, ..Seen::default() });
    let alone = Networks { seen, ..networks };
    let network = define(&Cluster::default(), alone.me, "net", &["10.2.0.0/16".to_owned()], "").expect("all is well");
    let (id, blocks) = (network.id, usize::from(network.ranges[0].blocks()));
    alone.local.call(move |local| begin(local, network)).await.expect("nothing speaks against it");
    alone.give_half(id).await.expect("the disk takes it");
    let held = alone.local.call(move |local| local.ledger().accounts()[&id].held_by(peer).count()).await;
    assert_eq!(held, blocks / 2);
}

#[tokio::test]
async fn who_was_told_of_others_and_has_met_none_makes_no_network() {
    let host = Host::start();
    let (_sees, seen) = watch::channel(Seen::default());
    let networks = Networks { seen, told_to_join: true, ..networks(&host) };
    let error = networks.create("net", &["10.2.0.0/16".to_owned()], "").await.expect_err("it has met none");
    assert!(error.to_string().contains("--join") && error.to_string().contains("--bootstrap"), "{error}");
}
