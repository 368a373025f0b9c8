use super::*;
use crate::ledger::Denial;
use crate::model::host::Ways;
use crate::model::intent::NetnsRef;
use crate::model::member::Seal;
use crate::operations::detach::{Detach, DetachLost, TidyUp};
use crate::operations::fixture::{ME, attachment, founder, make, network, put};
use crate::operations::hear::{HearLinks, Inputs, Learn, RememberPeers};

const OTHER: HostId = HostId::from_bytes([9; 16]);

#[test]
fn a_clone_is_not_changed_with_its_original() {
    let mut state = founder();
    make(&mut state, &Input::Create(network(1)));
    let before = state.clone();
    put(&mut state, attachment(1, network(1).id));
    make(&mut state, &Input::Close(network(1).id));
    assert!(before.intents.attachments.is_empty() && before.ledger.tombstones().is_empty());
    assert_eq!(state.intents.attachments.len(), 1);
}

#[test]
fn an_identity_that_is_given_up_leaves_nothing_of_it() {
    let mut state = founder();
    make(&mut state, &Input::Create(network(1)));
    put(&mut state, attachment(1, network(1).id));
    make(&mut state, &Input::Refused { by: OTHER, denial: Denial::Sealed { host: ME } });
    assert!(matches!(state.ledger.membership().activation, Activation::Fenced(_)));
    assert_eq!(*state.intents, Intents::default());
    assert!(state.record().endpoints.is_empty() && state.record().networks.is_empty());
}

#[test]
fn where_a_host_was_heard_goes_with_its_seal() {
    let mut state = founder();
    let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 7946));
    let hear = |id, last| RememberPeers([(id, at(last))].into());
    make(&mut state, &hear(OTHER, 9));
    let again = decide(&state, &hear(OTHER, 9), 0).expect("it is never refused");
    assert!(again.changes.is_empty(), "what is said again changes nothing");
    struct Sealed;
    impl Request for Sealed {
        type Answer = ();
        type Refusal = Infallible;

        fn decide(&self, _: &State, _: Millis) -> Result<Decision<()>, Infallible> {
            let seal = ledger::Change::Seal(OTHER, Seal { heir: ME, done: true });
            Ok(Decision { changes: vec![Change::Ledger(seal)], answer: () })
        }
    }
    make(&mut state, &Sealed);
    assert!(state.peers.is_empty());
    make(&mut state, &hear(OTHER, 9));
    assert!(state.peers.is_empty(), "gossip tells of it for a while");
}

#[test]
fn networks_of_another_cluster_are_not_learnt() {
    let mut state = founder();
    let learn = |founder| Learn { networks: vec![network(1)], founder };
    make(&mut state, &learn(Some(OTHER)));
    make(&mut state, &learn(None));
    assert!(state.intents.networks.is_empty());
    make(&mut state, &learn(Some(ME)));
    assert_eq!(state.intents.networks, [(network(1).id, network(1))].into());
    // Nor one that was deleted.
    make(&mut state, &Inputs(vec![Input::Close(network(1).id)]));
    make(&mut state, &learn(Some(ME)));
    assert!(state.intents.networks.is_empty());
}

#[test]
fn the_seat_goes_with_the_last_endpoint_and_a_deleted_network_too() {
    let mut state = founder();
    let id = network(1).id;
    make(&mut state, &Input::Create(network(1)));
    for number in [1, 2] {
        put(&mut state, attachment(number, id));
        let endpoint = attachment(number, id).endpoint;
        let bind = ledger::Change::Bind(id, endpoint.addresses[0].address, endpoint.id);
        state.apply(&[Change::Ledger(bind)]);
    }
    make(&mut state, &Input::Close(id));
    make(&mut state, &Detach(vec![attachment(1, id).endpoint.id]));
    assert!(state.intents.networks.contains_key(&id) && state.intents.seats.contains_key(&id));
    make(&mut state, &Detach(vec![attachment(2, id).endpoint.id, attachment(3, id).endpoint.id]));
    assert!(state.intents.networks.is_empty() && state.intents.seats.is_empty());
}

#[test]
fn an_endpoint_that_was_attached_again_elsewhere_is_not_the_one_that_was_lost() {
    let mut state = founder();
    let id = network(1).id;
    make(&mut state, &Input::Create(network(1)));
    let (gone, back) = (attachment(1, id), attachment(2, id));
    put(&mut state, gone.clone());
    put(&mut state, back.clone());
    let before = NetnsRef { cookie: back.netns.cookie + 1, ..back.netns.clone() };
    let lost = DetachLost(vec![
        (gone.endpoint.id, gone.netns),
        (back.endpoint.id, before),
        (attachment(3, id).endpoint.id, back.netns),
    ]);
    let decision = decide(&state, &lost, 0).expect("nothing speaks against it");
    assert_eq!(decision.answer, [gone.endpoint.id].into());
    make(&mut state, &lost);
    assert_eq!(state.intents.attachments.keys().copied().collect::<Vec<_>>(), [back.endpoint.id]);
}

#[test]
fn what_a_crash_left_half_done_is_tidied_up_once() {
    let mut state = founder();
    let id = network(1).id;
    make(&mut state, &Input::Create(network(1)));
    let endpoint = attachment(1, id).endpoint;
    let bind = ledger::Change::Bind(id, endpoint.addresses[0].address, endpoint.id);
    state.apply(&[Change::Ledger(bind)]);
    make(&mut state, &Input::Close(id));
    assert!(state.intents.networks.contains_key(&id), "an address is given to an endpoint in it");
    make(&mut state, &TidyUp);
    assert!(state.ledger.accounts().is_empty() && state.intents.networks.is_empty());
    assert!(decide(&state, &TidyUp, 0).expect("it is never refused").changes.is_empty());
}

#[test]
fn links_are_joined_in_known_networks_only_and_the_mtu_is_no_commit() {
    let mut state = founder();
    make(&mut state, &Input::Create(network(1)));
    let link = crate::model::links::Link {
        from: crate::operations::fixture::label("a"),
        to: crate::operations::fixture::label("b"),
        service: None,
    };
    let links: Links = [(link, crate::model::links::LinkDecision { at: 3, removed: false })].into_iter().collect();
    let heard = HearLinks([(network(1).id, links.clone()), (network(2).id, links.clone())].into());
    make(&mut state, &heard);
    assert_eq!(state.intents.links, [(network(1).id, links)].into());
    assert!(decide(&state, &heard, 0).expect("it is never refused").changes.is_empty());
    let mtu = decide(&state, &Ways { underlay_mtu: 1400, routed: std::collections::BTreeSet::new() }, 0)
        .expect("it is never refused")
        .changes;
    assert!(!mtu.is_empty() && !mtu.iter().any(Change::is_durable));
    state.apply(&mtu);
    assert_eq!(state.record().host.map(|host| host.underlay_mtu), Some(1400));
}
