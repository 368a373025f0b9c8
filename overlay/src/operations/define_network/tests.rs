use super::*;
use crate::model::network::Name;

#[test]
fn a_list_that_is_cut_says_by_how_much() {
    assert_eq!(listed(vec!["a".to_owned(), "b".to_owned()], 2), "a, b");
    assert_eq!(listed(vec!["a".to_owned(), "b".to_owned()], 5), "a, b, 3 more");
}

#[test]
fn a_network_with_an_endpoint_here_that_no_view_shows_yet_is_not_removed() {
    use crate::operations::fixture::{attachment, founder, make, network, put};
    let mut state = founder();
    let network = network(1);
    make(&mut state, &Input::Create(network.clone()));
    put(&mut state, attachment(1, network.id));
    let mut cluster = Cluster::default();
    cluster.networks.insert(network.id, NetworkView::new(&network).into());
    let remove =
        |hindered| RemoveNetwork { network: network.id, hindered, cluster: Arc::new(cluster.clone()), synced: true };
    for hindered in [Hindered::ByAll, Hindered::ByOwn] {
        let refused = remove(hindered).decide(&state, 0);
        let name: Name = "net1".parse().expect("a label");
        let endpoints = "`web1` on this host".to_owned();
        assert_eq!(refused, Err(NetworkRefusal::InUseAgain { network: name.to_string(), endpoints }));
    }
    make(&mut state, &crate::operations::detach::Detach(vec![attachment(1, network.id).endpoint.id]));
    make(&mut state, &remove(Hindered::ByAll));
    assert!(state.intents.networks.is_empty() && state.ledger.tombstones().contains(&network.id));
}
