use super::*;

const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);
const WEB: EndpointId = EndpointId::from_bytes([2; 16]);

/// A segment of `network` with one port, marked as that endpoint's.
fn with_port(network: NetworkId, endpoint: Option<EndpointId>) -> Observed {
    let port = ObservedPort { endpoint, mtu: 1450, connected: None };
    let segment = ObservedSegment { ports: [("ovp1".parse().expect("a name"), port)].into(), ..Default::default() };
    Observed { segments: [(network, segment)].into(), ..Observed::default() }
}

#[test]
fn an_endpoint_is_lost_only_when_neither_its_path_nor_its_port_is_there() {
    let (attached, deleted) = (with_port(NETWORK, Some(WEB)), Observed::default());
    let cases = [
        (&attached, AtPath::Same, false),
        // The process that it was named by has ended, and another one is in the namespace.
        (&attached, AtPath::Gone, false),
        // Somebody deleted the port: it is made again.
        (&deleted, AtPath::Same, false),
        (&deleted, AtPath::Gone, true),
    ];
    for (observed, at_path, lost) in cases {
        assert_eq!(observed.is_lost(NETWORK, WEB, at_path), lost, "{at_path:?}, {observed:?}");
    }
}

#[test]
fn only_the_endpoints_own_port_speaks_for_it() {
    let other = EndpointId::from_bytes([3; 16]);
    for observed in [
        with_port(NETWORK, Some(other)),
        // Half-made: nobody can tell whose it was to be.
        with_port(NETWORK, None),
        with_port(NetworkId::from_bytes([9; 16]), Some(WEB)),
    ] {
        assert!(observed.is_lost(NETWORK, WEB, AtPath::Gone), "{observed:?}");
    }
}
