use super::super::fixture::{ME, info};
use super::*;
use crate::cluster::derive;
use crate::ledger::Change;
use crate::model::host::{HostInfo, Liveness, Phase};
use crate::model::intent::Intents;
use crate::model::member::Stamp;
use crate::model::record::Incarnation;

const OTHER: HostId = HostId::from_bytes([2; 16]);

/// The other host is established, and says nothing besides.
fn records() -> Records {
    let host = HostInfo { phase: Phase::Established, founder: Some(ME), stamp: Stamp::default(), ..info() };
    let record = Arc::new(Record { host: Some(host), ..Record::default() });
    Records::from([(OTHER, vec![Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record }])])
}

fn state(changes: &[Change]) -> State {
    let mut ledger = Ledger::new(ME);
    ledger.apply(&[Change::Founder(ME), Change::Activation(Activation::Established)]);
    ledger.apply(changes);
    State::new(ledger, Intents::default(), BTreeMap::new(), info())
}

/// How much the state is told of the other host now; all of it is durable.
fn told(feed: &mut Feed, state: &State, records: &Records) -> usize {
    let cluster = derive(records, Some(ME));
    let addresses = BTreeMap::new();
    let received = Received { cluster: &cluster, records, addresses: &addresses, selves: &[] };
    let Some(batch) = feed.next(state, received) else { return 0 };
    let count = batch.inputs.0.len();
    feed.told(batch, Told::all_but(&[]));
    count
}

#[test]
fn what_a_host_said_is_told_again_when_it_becomes_a_member() {
    let (mut feed, records) = (Feed::default(), records());
    // It is no member yet: the ledger does not believe whom it has forgotten.
    assert_eq!(told(&mut feed, &state(&[]), &records), 1);
    assert_eq!(told(&mut feed, &state(&[]), &records), 0, "it was told once");
    let member = state(&[Change::Member(OTHER)]);
    assert_eq!(told(&mut feed, &member, &records), 1, "it is told again");
    assert_eq!(told(&mut feed, &member, &records), 0);
}

#[test]
fn all_is_told_again_when_the_ledger_may_act() {
    let (mut feed, records) = (Feed::default(), records());
    let unchecked = [Change::Activation(Activation::Unchecked { admitted: BTreeSet::new(), waiting: BTreeSet::new() })];
    assert_eq!(told(&mut feed, &state(&unchecked), &records), 1);
    assert_eq!(told(&mut feed, &state(&unchecked), &records), 0);
    assert_eq!(told(&mut feed, &state(&[]), &records), 1);
}

#[test]
fn what_is_not_durable_is_told_again_and_the_rest_is_not() {
    let (mut feed, records) = (Feed::default(), records());
    let state = state(&[]);
    let cluster = derive(&records, Some(ME));
    let addresses = BTreeMap::from([(OTHER, ([192, 0, 2, 2], 7946).into())]);
    let received = Received { cluster: &cluster, records: &records, addresses: &addresses, selves: &[] };
    let lacks = |batch: &Batch| (batch.inputs.0.is_empty(), batch.peers.0.is_empty());
    let batch = feed.next(&state, received).expect("nothing was told yet");
    assert_eq!(lacks(&batch), (false, false));
    feed.told(batch, Told::all_but(&[Topic::Leases]));
    let batch = feed.next(&state, received).expect("leases were not kept");
    assert_eq!(lacks(&batch), (false, true));
    feed.told(batch, Told::all_but(&[]));
    assert_eq!(feed.next(&state, received), None);
}

#[test]
fn another_agent_under_the_identity_of_this_host_is_told_of_once() {
    let mut feed = Feed::default();
    let record = records()[&OTHER][0].record.clone();
    let boot = own_record::duplicate(&record).expect("it acts");
    let (state, cluster, records, addresses) = (state(&[]), Cluster::default(), Records::new(), BTreeMap::new());
    let received = Received { cluster: &cluster, records: &records, addresses: &addresses, selves: &[record] };
    let batch = feed.next(&state, received).expect("it is news");
    assert_eq!(batch.inputs.0, [Input::Duplicate { boot }]);
    feed.told(batch, Told::all_but(&[]));
    assert_eq!(feed.next(&state, received), None);
}
