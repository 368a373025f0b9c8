use super::*;
use crate::model::addr::Mac;
use crate::model::endpoint::Assigned;
use crate::model::network::{Range, Settings};

fn membership(number: u8, driver: Driver) -> (NetworkId, Arc<NetworkMembership>) {
    let id = NetworkId::from_bytes([number; 16]);
    let range = Range::new("10.0.0.0/24".parse().expect("a subnet"), None).expect("a good one");
    let network = Network {
        id,
        name: "net".parse().expect("a label"),
        ranges: vec![range],
        created: 1,
        creator: HostId::from_bytes([1; 16]),
        since: 0,
        settings: Settings { driver, ..Settings::default() },
    };
    (id, NetworkMembership { network, vni: None }.into())
}

#[test]
fn others_hear_nothing_of_a_network_that_is_on_one_host() {
    let networks = [membership(1, Driver::Vxlan), membership(2, Driver::Bridge)];
    let mut record = Record { networks: networks.into(), ..Record::default() };
    for network in record.networks.keys().copied().collect::<Vec<_>>() {
        let address = IpAddr::from([10, 0, 0, 2]);
        let (block, version) = (BlockId { range: 0, index: 0 }, Version::default());
        record.blocks.insert(network, vec![Run { start: block, len: 1, epoch: 1 }]);
        record.borrowed.insert(network, [(address, version)].into());
        record.outbox.insert(network, [Statement::Return { address, version }].into());
        let endpoint = Endpoint {
            id: EndpointId::from_bytes(*network.as_bytes()),
            network,
            name: "web".parse().expect("a label"),
            aliases: BTreeSet::new(),
            addresses: vec![Assigned { address, lease: version }],
            mac: Mac::of_address(address),
            created: 1,
        };
        record.endpoints.insert(endpoint.id, Arc::new(endpoint));
    }
    let told = record.for_others().into_owned();
    let id = NetworkId::from_bytes([1; 16]);
    let only = |keys: Vec<NetworkId>| assert_eq!(keys, [id]);
    only(told.networks.keys().copied().collect());
    only(told.blocks.keys().copied().collect());
    only(told.borrowed.keys().copied().collect());
    only(told.outbox.keys().copied().collect());
    only(told.endpoints.values().map(|endpoint| endpoint.network).collect());
    // And of the others all.
    record.networks.retain(|of, _| *of == id);
    assert!(matches!(record.for_others(), Cow::Borrowed(_)));
}
