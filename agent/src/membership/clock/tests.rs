use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use overlay::ledger::{self, AddressRequest, Ledger, Outcome};
use overlay::model::id::{EndpointId, HostId};
use overlay::model::lease::Version;
use overlay::model::member::Stamp;
use overlay::model::network::{Network, Range, Settings};
use overlay::model::record::Statement;
use overlay::operations::Change;

use super::*;
use crate::cluster::tests::info;
use crate::state::run_marker::RunMarker;
use crate::state::store::tests::Scratch;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 38, 0, 11));
const OTHER: HostId = HostId::from_bytes([9; 16]);

/// The ledger of a host whose last life let a borrowed address go, as long ago as the machine runs.
fn let_go(ledger: &mut Ledger) -> Vec<ledger::Change> {
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let (network, endpoint) = (NetworkId::from_bytes([1; 16]), EndpointId::from_bytes([2; 16]));
    let name: overlay::model::network::Name = "web".parse().expect("a label");
    let definition = Network {
        id: network,
        name: name.clone(),
        ranges: vec![range],
        created: 1,
        creator: OTHER,
        since: 0,
        settings: Settings::default(),
    };
    let lent = Statement::Delegate { address: ADDRESS, version: Version { epoch: 1, count: 1 }, to: ledger.me() };
    let request = AddressRequest {
        network,
        endpoint,
        name: name.clone(),
        range: 0,
        address: Some(ADDRESS),
        reachable: [].into(),
        asked: [].into(),
    };
    let inputs = [
        Input::Learn(definition),
        Input::Stated { network, from: OTHER, stamp: Stamp::default(), statement: lent },
        Input::Allocate(request),
        Input::Release { network, endpoint, name },
    ];
    let mut changes = Vec::new();
    for input in inputs {
        let step = ledger.step(&input, 0);
        assert!(!matches!(step.outcome, Outcome::Denied(_) | Outcome::Ask(_)), "{input:?}: {:?}", step.outcome);
        ledger.apply(&step.changes);
        changes.extend(step.changes);
    }
    changes
}

#[tokio::test]
async fn an_address_goes_back_only_when_the_kernel_is_known_to_be_without_it() {
    let scratch = Scratch::new();
    let (mut store, mut loaded) = scratch.found().expect("a new state");
    let changes = let_go(&mut loaded.ledger);
    store.commit(&changes.into_iter().map(Change::Ledger).collect::<Vec<_>>()).expect("the disk takes it");
    let me = loaded.identity.id();
    let info = info("alpha", 1, me);
    let state =
        state::spawn(store, loaded, info, RunMarker::new(&scratch.0, "boot 1")).expect("nothing to put in order");
    let network = NetworkId::from_bytes([1; 16]);
    let round = |lingering| ReconcileStatus { began: Some(Instant::now()), lingering, ..ReconcileStatus::default() };
    let (rounds, settled) = watch::channel(Arc::<ReconcileStatus>::default());
    let clock = spawn(state.clone(), settled);
    let has_it =
        move |ledger: &Ledger| ledger.accounts().values().any(|account| account.borrowed(me).contains_key(&ADDRESS));

    for lingering in [None, Some([network].into())] {
        rounds.send_replace(Arc::new(lingering.map(round).unwrap_or_default()));
        tokio::time::sleep(PERIOD * 2).await;
        assert!(has_it(&state.ledger()), "the kernel may still have it");
    }
    rounds.send_replace(Arc::new(round([].into())));
    let mut record = state.record.clone();
    let back = async {
        while has_it(&state.ledger()) {
            record.changed().await.expect("the owner lives");
        }
    };
    tokio::time::timeout(PERIOD * 20, back).await.expect("it goes back");
    clock.abort();
}
