use std::sync::Arc;

use overlay::cluster::{Cluster, Host};
use overlay::host::HostInfo;
use overlay::record::Record;

use super::*;

fn seen(peer: SocketAddr, liveness: Liveness) -> Seen {
    let name = "h2".parse().expect("a label");
    let info = HostInfo { name, vtep: peer.ip(), vxlan_port: 4789, peer, underlay_mtu: 1500, page: 0 };
    let host = Host { info, liveness, record: Record::default(), generation: 1 };
    let cluster = Cluster { hosts: [(id(), host)].into(), ..Cluster::default() };
    Seen { cluster: Arc::new(cluster), synced: true }
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

#[tokio::test]
async fn only_who_is_silent_is_asked_and_forgotten_when_it_is_heard() {
    let address = closed_port().await;
    let (view, seen_rx) = watch::channel(seen(address, Liveness::Live));
    let (found_tx, mut found) = watch::channel(BTreeSet::new());
    let _task = spawn(seen_rx, found_tx);
    assert!(found.borrow().is_empty());
    view.send_replace(seen(address, Liveness::Suspect));
    let waited = timeout(Duration::from_secs(5), found.wait_for(|f| f.contains(&id()))).await;
    assert!(waited.is_ok_and(|f| f.is_ok()), "it refuses, so it is there");
    view.send_replace(seen(address, Liveness::Live));
    let waited = timeout(Duration::from_secs(5), found.wait_for(BTreeSet::is_empty)).await;
    assert!(waited.is_ok_and(|f| f.is_ok()), "it is heard again");
}
