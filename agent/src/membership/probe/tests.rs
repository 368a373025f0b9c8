use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use overlay::cluster::{Cluster, Host};
use overlay::model::host::HostInfo;

use super::*;

fn seen(peer: SocketAddr, liveness: Liveness) -> ClusterView {
    let name = "h2".parse().expect("a label");
    let info = HostInfo {
        name,
        vtep: peer.ip(),
        vxlan_port: 4789,
        peer,
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: overlay::model::member::Stamp::default(),
        phase: overlay::model::host::Phase::Established,
        founder: None,
    };
    let host = Host { info, liveness, record: Arc::default(), generation: 1, is_newest: true };
    let cluster = Cluster { hosts: [(id(), host.into())].into(), ..Cluster::default() };
    ClusterView { cluster: Arc::new(cluster), synced: true, ..ClusterView::default() }
}

fn id() -> HostId {
    HostId::from_bytes([2; 16])
}

/// A port of this host that nobody listens on.
async fn closed_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    listener.local_addr().expect("a bound socket has an address")
}

#[tokio::test]
async fn a_closed_port_and_an_open_one_are_both_an_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    assert!(is_there(listener.local_addr().expect("a bound socket has an address")).await);
    assert!(is_there(closed_port().await).await);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_and_does_not_answer_twice_is_absent_until_it_is_heard() {
    let peer = SocketAddr::from(([192, 0, 2, 2], 7946));
    let (view, seen_rx) = watch::channel(seen(peer, Liveness::Live));
    let (absent_tx, mut absent) = watch::channel(BTreeSet::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let ask = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(false)
    };
    let _task = tokio::spawn(follow(seen_rx, absent_tx, ask));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "who is heard is not asked");
    view.send_replace(seen(peer, Liveness::Suspect));
    absent.wait_for(|a| a.contains(&id())).await.expect("the task runs");
    assert_eq!(asked.load(Ordering::Relaxed), usize::from(PROBES));
    view.send_replace(seen(peer, Liveness::Live));
    absent.wait_for(BTreeSet::is_empty).await.expect("the task runs");
}

#[tokio::test(start_paused = true)]
async fn one_answer_is_enough_to_be_there() {
    let peer = SocketAddr::from(([192, 0, 2, 2], 7946));
    let (_view, seen_rx) = watch::channel(seen(peer, Liveness::Dead));
    let (absent_tx, absent) = watch::channel(BTreeSet::new());
    let asked = AtomicUsize::new(0);
    // Every second question gets lost.
    let ask = move |_| std::future::ready(asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2));
    let _task = tokio::spawn(follow(seen_rx, absent_tx, ask));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!absent.has_changed().expect("the task runs"), "it was taken for absent");
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_where_another_is_heard_is_absent_and_nobody_is_asked() {
    let peer = SocketAddr::from(([192, 0, 2, 2], 7946));
    let old = seen(peer, Liveness::Suspect);
    let mut cluster = Cluster::clone(&old.cluster);
    let new = Host { liveness: Liveness::Live, ..Host::clone(&cluster.hosts[&id()]) };
    cluster.hosts.insert(HostId::from_bytes([3; 16]), new.into());
    let (_view, seen_rx) =
        watch::channel(ClusterView { cluster: Arc::new(cluster), synced: true, ..ClusterView::default() });
    let (absent_tx, mut absent) = watch::channel(BTreeSet::new());
    let ask = |_| async { unreachable!("whoever answers is not the one that is meant") };
    let _task = tokio::spawn(follow(seen_rx, absent_tx, ask));
    let found = absent.wait_for(|a| !a.is_empty()).await.expect("the task runs").clone();
    assert_eq!(found, [id()].into());
}
