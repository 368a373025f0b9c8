use std::net::Ipv4Addr;

use overlay::ledger::{Activation, Input};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::member::{Boot, Seal, Stamp};
use std::net::SocketAddr;

use super::*;
use crate::state::run_marker::RunMarker;
use crate::state::store::tests::Scratch;
use crate::state::store::tests::full::{fill, mount_disk, write_until_full};
use crate::wire::encode_record;
use overlay::operations::Change;

const OTHER: HostId = HostId::from_bytes([9; 16]);
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 7946);
/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn info(name: &str, last: u8, founder: HostId) -> HostInfo {
    let at = Ipv4Addr::new(192, 0, 2, last);
    HostInfo {
        name: name.parse().expect("a label"),
        vtep: at.into(),
        vxlan_port: 4789,
        peer: (at, 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: Stamp::default(),
        phase: Phase::Established,
        founder: Some(founder),
    }
}

/// Gossip of another host, which says this.
fn shown(record: &Record) -> Arc<gossip::View> {
    let life = gossip::NodeIncarnation {
        generation: 1,
        gossip_addr: ADDRESS,
        complete: true,
        liveness: gossip::NodeLiveness::Live,
        entries: Arc::new(encode_record(record).into_iter().map(|(key, value)| (key, value.into())).collect()),
    };
    let hosts = [(OTHER.to_string().into(), [life].into())].into();
    Arc::new(gossip::View { synced: true, hosts, ..gossip::View::default() })
}

impl LastSeen {
    /// Of a host that has listened for so long.
    pub(crate) fn started(ago: Duration) -> Self {
        Self { start: Instant::now() - ago, heard: BTreeMap::new() }
    }

    /// And has not heard this one for so long.
    pub(crate) fn unheard(mut self, host: HostId, ago: Duration) -> Self {
        self.heard.insert(host, Some(Instant::now() - ago));
        self
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, test).await }).expect("it comes to that in time");
}

fn times(remembered: Duration) -> Times {
    Times { interval: Duration::from_millis(250), remembered }
}

#[test]
fn on_a_full_disk_a_host_hears_that_it_was_forgotten_also_from_one_whose_address_is_news() {
    let scratch = Scratch::new();
    let test = || {
        if !mount_disk(&scratch.0, 8 << 20) {
            eprintln!("not tried: this user may not mount");
            return;
        }
        let (mut store, mut loaded) = scratch.found().expect("there is space for a new one");
        write_until_full(&mut store);
        fill(&scratch.0);
        // The file itself has some room left.
        let one = |number: u32| Change::Peer(HostId::from_bytes(u128::from(number).to_be_bytes()), Some(ADDRESS));
        assert!((0..10_000).any(|number| store.commit(&[one(number)]).is_err()), "there is no room for an address");
        loaded.commit = store.commits();
        let me = loaded.identity.id();
        let host = info("alpha", 1, me);
        let state =
            state::spawn(store, loaded, host, RunMarker::new(&scratch.0, "boot 1")).expect("nothing to put in order");
        let seals = [(me, Seal { heir: OTHER, done: true })].into();
        let record = Record { host: Some(info("beta", 9, me)), seals, ..Record::default() };
        let mut activation = state.activation.clone();
        run(async move {
            let (_gossip, heard) = watch::channel(shown(&record));
            let (_found, absent) = watch::channel(BTreeSet::new());
            let (_seen, _) = spawn(me, heard, absent, state, times(TIMEOUT));
            activation
                .wait_for(|activation| matches!(activation, Activation::Fenced(_)))
                .await
                .expect("the owner lives");
        });
    };
    std::thread::scope(|scope| scope.spawn(test).join()).expect("the test holds");
}

#[test]
fn a_host_that_gossip_forgets_goes_when_its_machine_has_been_absent_for_long_enough() {
    let scratch = Scratch::new();
    let (store, loaded) = scratch.found().expect("a new state");
    let me = loaded.identity.id();
    let state = state::spawn(store, loaded, info("alpha", 1, me), RunMarker::new(&scratch.0, "boot 1"));
    let state = state.expect("nothing to put in order");
    let record = Record { host: Some(info("beta", 9, me)), ..Record::default() };
    run(async move {
        let (gossip, heard) = watch::channel(shown(&record));
        let (found, absent) = watch::channel(BTreeSet::new());
        let (mut seen, _) = spawn(me, heard, absent, state, times(Duration::from_millis(300)));
        let liveness = |seen: &ClusterView| seen.cluster.hosts.get(&OTHER).map(|host| host.liveness);
        seen.wait_for(|seen| liveness(seen) == Some(Liveness::Live)).await.expect("it is followed");
        gossip.send_replace(Arc::new(gossip::View { synced: true, ..gossip::View::default() }));
        seen.wait_for(|seen| liveness(seen) == Some(Liveness::Suspect)).await.expect("it is followed");
        let gone = tokio::time::timeout(Duration::from_secs(1), seen.wait_for(|seen| liveness(seen).is_none())).await;
        assert!(gone.map(drop).is_err(), "its machine is there");
        found.send_replace([OTHER].into());
        seen.wait_for(|seen| liveness(seen) == Some(Liveness::Dead)).await.expect("it is followed");
        // Nothing else happens then.
        seen.wait_for(|seen| liveness(seen).is_none()).await.expect("it is followed");
    });
}

#[test]
fn a_host_hears_of_another_that_acts_under_its_identity() {
    let scratch = Scratch::new();
    let (store, loaded) = scratch.found().expect("a new state");
    let me = loaded.identity.id();
    let state = state::spawn(store, loaded, info("alpha", 1, me), RunMarker::new(&scratch.0, "boot 1"));
    let state = state.expect("nothing to put in order");
    let mut activation = state.activation.clone();
    run(async move {
        state.tell(Input::Found).await.expect("the disk takes it");
        let said = |phase, others: &Record| {
            let stamp = Stamp { boot: Boot { generation: 1, nonce: 7 }, revision: 1 };
            let record = Record { host: Some(HostInfo { phase, stamp, ..info("alpha", 9, me) }), ..Record::default() };
            let texts = encode_record(&record).into_iter().map(|(key, value)| (key, value.into())).collect();
            Arc::new(gossip::View { selves: vec![Arc::new(texts)], ..shown(others).as_ref().clone() })
        };
        let (gossip, heard) = watch::channel(said(Phase::Unchecked, &Record::default()));
        let (_found, absent) = watch::channel(BTreeSet::new());
        let (mut seen, _) = spawn(me, heard, absent, state, times(TIMEOUT));
        seen.wait_for(|seen| seen.synced).await.expect("it is followed");
        // What came before that has been told by then.
        let beta = Record { host: Some(info("beta", 9, me)), ..Record::default() };
        gossip.send_replace(said(Phase::Unchecked, &beta));
        seen.wait_for(|seen| seen.cluster.hosts.contains_key(&OTHER)).await.expect("it is followed");
        assert_eq!(
            *activation.borrow(),
            Activation::Established,
            "one that only asks to be let in is refused by others"
        );
        gossip.send_replace(said(Phase::Established, &beta));
        activation.wait_for(|activation| matches!(activation, Activation::Fenced(_))).await.expect("the owner lives");
    });
}
