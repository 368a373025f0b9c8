use proptest::prelude::*;

use super::*;
use crate::cluster::derive::tests::{endpoint, host_id, name};

fn located() -> impl Strategy<Value = Located> {
    let alias = prop::option::of(prop_oneof![Just("db"), Just("web1"), Just("web2")]);
    (0_u8..12, 0_u8..16, alias, 0_u8..2).prop_map(|(number, address, alias, host)| {
        let aliases = alias.into_iter().map(name).collect();
        let endpoint = Endpoint { aliases, ..endpoint(number, 0, address, (1, 0)) };
        Located { endpoint: endpoint.into(), host: host_id(host), liveness: Liveness::Live }
    })
}

proptest! {
    /// Few changes and many take different ways.
    #[test]
    fn the_indices_are_those_of_the_endpoints_after_any_change(
        changes in prop::collection::vec((prop::collection::vec(0_u8..12, 0..3), prop::collection::vec(located(), 0..4)), 0..8),
        repeats in 1_usize..40,
    ) {
        let mut endpoints = Endpoints::default();
        for (gone, come) in changes {
            let gone: Vec<EndpointId> = gone.into_iter().map(|number| EndpointId::from_bytes([number; 16])).collect();
            endpoints.change(&gone.repeat(repeats), come);
            let afresh: Endpoints = endpoints.values().cloned().collect();
            prop_assert_eq!(&endpoints.by_id, &afresh.by_id);
            prop_assert_eq!(&endpoints.by_address, &afresh.by_address);
            prop_assert_eq!(&endpoints.by_name, &afresh.by_name);
            for last in 0..16 {
                let address = IpAddr::from([10, 0, 0, last]);
                let expected = endpoints.values().find(|located| located.endpoint.has(address));
                prop_assert_eq!(endpoints.at(address), expected);
            }
            for text in ["db", "web1", "web2", "web3"] {
                let text = name(text);
                let expected = endpoints.values().filter(|located| located.endpoint.names().any(|own| *own == text));
                prop_assert_eq!(endpoints.called(&text).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
        }
    }
}
