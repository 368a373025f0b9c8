//! The laws of plans, on arbitrary wishes and whatever somebody does by hand in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::bool::weighted;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::datapath::desired::{Bridge, Port, Prefixed, Remote, Transit, Uplink, port_ifname, uplink_ifname};
use crate::datapath::fake::{FakeKernel, Fault};
use crate::datapath::firewall::{Chain, Family, Match, Rule, Table, Verdict};
use crate::datapath::foreign_chains::{Calls, ChainName, Policy, Protocols};
use crate::datapath::kernel_api::Cause;
use crate::datapath::report::Report;
use crate::datapath::round::round;
use crate::model::addr::{IpVersion, Subnet};
use crate::model::id::{EndpointId, Vni};
use crate::model::intent::NetnsRef;

pub(crate) fn network(n: u8) -> NetworkId {
    NetworkId::from_bytes([n; 16])
}

fn endpoint(n: u8, m: u8) -> EndpointId {
    EndpointId::from_bytes([n, m, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn address(m: u8) -> IpAddr {
    [10, 0, 0, m].into()
}

pub(crate) fn mac(m: u8) -> Mac {
    Mac::of_address(address(m))
}

fn container(m: u8) -> NetnsRef {
    NetnsRef { path: PathBuf::from(format!("/run/netns/c{m}")), cookie: u64::from(m) }
}

const NETWORKS: std::ops::Range<u8> = 1..4;
const ENDPOINTS: std::ops::Range<u8> = 1..7;

/// What this host may be asked for: few networks and endpoints, so that two wishes often share some, and an endpoint is
/// here in one and elsewhere in the other.
pub(crate) fn wish() -> impl Strategy<Value = Desired> {
    let forwarding = btree_set(prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)], 0..3);
    (0..3_usize, btree_map(NETWORKS, segment(), 0..3), forwarding).prop_map(|(rules, segments, forwarding)| Desired {
        forwarding,
        firewall: table(rules),
        peers: BTreeSet::new(),
        segments: segments.into_iter().map(|(n, make)| (network(n), make.of(n).into())).collect(),
    })
}

/// A host with one network that has a tunnel and a way out.
pub(crate) fn wish_with_uplink() -> Desired {
    Desired {
        forwarding: [IpVersion::V4].into(),
        firewall: table(0),
        peers: BTreeSet::new(),
        segments: BTreeMap::from([(network(1), plain().of(1).into())]),
    }
}

fn plain() -> Make {
    Make {
        rules: 1,
        filter: None,
        mtu: 1400,
        gateway: 254,
        transit: 0,
        other_vni: false,
        tunnel: true,
        uplink: true,
        routed: 0,
        here: BTreeSet::new(),
        elsewhere: BTreeMap::new(),
        answered: BTreeSet::new(),
    }
}

#[derive(Debug, Clone)]
struct Make {
    rules: usize,
    filter: Option<usize>,
    mtu: u32,
    gateway: u8,
    transit: u8,
    other_vni: bool,
    tunnel: bool,
    uplink: bool,
    routed: u8,
    here: BTreeSet<u8>,
    elsewhere: BTreeMap<u8, (u8, u32)>,
    answered: BTreeSet<u8>,
}

fn segment() -> impl Strategy<Value = Make> {
    let elsewhere = btree_map(ENDPOINTS, (1..4_u8, 1..4_u32), 0..6);
    let (here, answered) = (btree_set(ENDPOINTS, 0..4), btree_set(ENDPOINTS, 0..6));
    let rules = (0..3_usize, of(0..2_usize));
    let form = (rules, 1400..1403_u32, 251..253_u8, 0..2_u8, any::<bool>());
    let ways = (weighted(0.8), weighted(0.8), 0..3_u8);
    (form, ways, here, elsewhere, answered).prop_map(
        |(((rules, filter), mtu, gateway, transit, other_vni), (tunnel, uplink, routed), here, elsewhere, answered)| {
            Make { rules, filter, mtu, gateway, transit, other_vni, tunnel, uplink, routed, here, elsewhere, answered }
        },
    )
}

impl Make {
    fn of(self, n: u8) -> Segment {
        let Self { rules, filter, mtu, gateway, transit, other_vni, .. } = self;
        let Self { tunnel, uplink, routed, here, elsewhere, answered, .. } = self;
        // No two networks ever share one: a host chooses its VNIs so.
        let vni = Vni::new(u32::from(n) * 10 + u32::from(other_vni)).expect("in range");
        let remote = |(host, vni): (u8, u32)| Remote {
            vtep: [192, 0, 2, host].into(),
            port: 4789,
            vni: Vni::new(vni).expect("in range"),
        };
        let is_elsewhere = |m: &u8| tunnel && !here.contains(m);
        Segment {
            firewall: table(rules),
            filter: filter.map(|rules| Table { family: Family::Bridge, ..table(rules) }),
            bridge: Bridge {
                mac: Mac::new([0x0e, n, n, n, n, n]).expect("unicast"),
                mtu,
                addresses: vec![Prefixed { address: address(gateway), len: 24 }],
            },
            tunnel: tunnel.then_some(Tunnel { vni, port: 4789, local: [192, 0, 2, 9].into(), mtu }),
            uplink: uplink.then(|| Uplink {
                host_ifname: uplink_ifname(network(n)),
                transits: vec![Transit {
                    host: [169, 254, 128 + n, 2 * transit].into(),
                    segment: [169, 254, 128 + n, 2 * transit + 1].into(),
                }],
                routed: (0..routed).filter_map(|n| Subnet::of([10, n, 0, 0].into(), 16)).collect(),
            }),
            ports: here.iter().map(|m| (endpoint(n, *m), port(n, *m, mtu))).collect(),
            remotes: elsewhere.into_iter().filter(|(m, _)| is_elsewhere(m)).map(|(m, r)| (mac(m), remote(r))).collect(),
            neighbours: answered.iter().filter(|m| is_elsewhere(m)).map(|m| (address(*m), mac(*m))).collect(),
        }
    }
}

fn port(n: u8, m: u8, mtu: u32) -> Port {
    Port {
        host_ifname: port_ifname(endpoint(n, m)),
        netns: container(m),
        ifname: format!("eth{n}").parse().expect("a name"),
        mac: mac(m),
        addresses: vec![Prefixed { address: address(m), len: 24 }],
        gateways: vec![address(254)],
        metric: 100,
        mtu,
    }
}

fn table(rules: usize) -> Table {
    let rule = |n: usize| Rule::new([Match::UdpTo(u16::try_from(n).expect("few"))], Verdict::Drop);
    let hook = "type filter hook forward priority filter";
    let family = Family::Inet;
    Table {
        family,
        sets: Vec::new(),
        chains: vec![Chain { name: "forward", hook, rules: (0..rules).map(rule).collect() }],
    }
}

/// Anything that somebody may do to a network.
fn fault() -> impl Strategy<Value = Fault> {
    let port = |n, m| port_ifname(endpoint(n, m));
    (0..24_u8, NETWORKS, ENDPOINTS).prop_map(move |(kind, n, m)| match kind {
        0 => Fault::ForwardingOff,
        1 => Fault::DeleteHostTable,
        2 => Fault::DeleteNamespace(network(n)),
        3 => Fault::DeleteTable(network(n)),
        4 => Fault::AddRule(network(n)),
        5 => Fault::DeleteBridge(network(n)),
        6 => Fault::BridgeDown(network(n)),
        7 => Fault::DeleteAddress(network(n), address(252)),
        8 => Fault::DeleteTunnel(network(n)),
        9 => Fault::LetFlood(network(n)),
        10 => Fault::DeleteUplink(network(n)),
        11 => Fault::DeleteDefaultRoute(network(n)),
        12 => Fault::DeletePort(network(n), port(n, m)),
        13 => Fault::DetachPort(network(n), port(n, m)),
        14 => Fault::Unmark(network(n), port(n, m)),
        15 => Fault::DeleteRemote(network(n), mac(m)),
        16 => Fault::DeleteBridgeRow(network(n), mac(m)),
        17 => Fault::DeleteTunnelRow(network(n), mac(m)),
        18 => Fault::LetAge(network(n), mac(m)),
        19 => Fault::NarrowPort(network(n), port(n, m)),
        21 => Fault::AddAddress(network(n)),
        22 => Fault::Alter(network(n)),
        20 => Fault::DeleteAcceptRules(CHAINS[usize::from(m) % CHAINS.len()].of().0),
        _ => Fault::DeleteNeighbour(network(n), address(m)),
    })
}

/// A kernel in whose containers there is something already.
pub(crate) fn kernel() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    for m in ENDPOINTS {
        kernel.open_container(container(m));
        kernel.add_foreign_interface(&container(m), foreign());
    }
    kernel.take_vni(Vni::new(4096).expect("in range"), 4789);
    kernel.add_way_out("wan0".parse().expect("a name"));
    for (chain, policy) in CHAINS.map(Made::of) {
        let calls_docker = chain.family == Protocols::Ip && policy == Policy::Drop;
        kernel.add_chain(chain, policy, if calls_docker { Calls::DockerUser } else { Calls::Nothing });
    }
    kernel
}

/// A chain of somebody else's: family, table, name and policy.
#[derive(Clone, Copy)]
struct Made(Protocols, &'static str, &'static str, Policy);

impl Made {
    fn of(self) -> (ChainName, Policy) {
        let Self(family, table, chain, policy) = self;
        (ChainName { family, table: table.to_owned(), chain: chain.to_owned() }, policy)
    }
}

/// As Docker has them, ufw, firewalld, and somebody who writes rules by hand.
const CHAINS: [Made; 5] = [
    Made(Protocols::Ip, "filter", "FORWARD", Policy::Drop),
    Made(Protocols::Ip, "filter", "DOCKER-USER", Policy::Return),
    Made(Protocols::Ip6, "filter", "FORWARD", Policy::Drop),
    Made(Protocols::Inet, "firewalld", "filter_FORWARD", Policy::Accept),
    Made(Protocols::Inet, "mine", "forward", Policy::Drop),
];

fn foreign() -> IfName {
    "docker0".parse().expect("a name")
}

/// One round. The kernel in memory never waits.
pub(crate) fn go(kernel: &mut FakeKernel, wish: &Desired, knowledge: Knowledge) -> Report {
    wait(round(kernel, &Look::Everything, wish, knowledge)).expect("it can always be looked at").1
}

/// What a future gives that never waits.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("the kernel in memory never waits"),
    }
}

/// What people break by hand between two rounds.
pub(crate) fn faults() -> impl Strategy<Value = Vec<Fault>> {
    vec(fault(), 0..4)
}

proptest! {
    #[test]
    fn what_is_as_it_should_be_needs_no_plan(wish in wish()) {
        let mut kernel = kernel();
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert!(report.settled(), "{:?}", report);
        prop_assert_eq!(plan(kernel.state(), &wish, Knowledge::Whole), vec![]);
        prop_assert_eq!(plan(kernel.state(), &wish, Knowledge::Partial), vec![]);
    }

    #[test]
    fn from_one_wish_one_round_leads_to_another_whatever_was_done_by_hand(
        before in wish(),
        faults in vec(fault(), 0..4),
        after in wish(),
    ) {
        let mut kernel = kernel();
        go(&mut kernel, &before, Knowledge::Whole);
        faults.iter().for_each(|fault| kernel.inject(fault));
        let report = go(&mut kernel, &after, Knowledge::Whole);
        prop_assert!(report.settled(), "{:?}", report);
        let mut fresh = self::kernel();
        go(&mut fresh, &after, Knowledge::Whole);
        // The switches are the whole host's: what is on may be on for others, too.
        let seen = Observed { forwarding: after.forwarding.clone(), ..kernel.state().clone() };
        prop_assert!(kernel.state().forwarding.is_superset(&after.forwarding));
        prop_assert_eq!(&seen, fresh.state());
        for m in ENDPOINTS {
            prop_assert_eq!(kernel.interfaces(&container(m)), fresh.interfaces(&container(m)));
        }
    }

    #[test]
    fn one_round_repairs_whatever_was_done_by_hand(wish in wish(), faults in vec(fault(), 0..6)) {
        let mut kernel = kernel();
        go(&mut kernel, &wish, Knowledge::Whole);
        let whole = kernel.state().clone();
        faults.iter().for_each(|fault| kernel.inject(fault));
        let report = go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert!(report.settled(), "{:?}", report);
        prop_assert_eq!(kernel.state(), &whole);
    }

    #[test]
    fn what_a_round_has_done_a_second_does_not_do_again(wish in wish(), faults in vec(fault(), 0..6)) {
        let mut kernel = kernel();
        go(&mut kernel, &wish, Knowledge::Whole);
        faults.iter().for_each(|fault| kernel.inject(fault));
        go(&mut kernel, &wish, Knowledge::Whole);
        prop_assert_eq!(go(&mut kernel, &wish, Knowledge::Whole).done, vec![]);
    }

    #[test]
    fn what_is_foreign_survives(wishes in vec(wish(), 1..4)) {
        let mut kernel = kernel();
        for wish in &wishes {
            go(&mut kernel, wish, Knowledge::Whole);
        }
        go(&mut kernel, &Desired::default(), Knowledge::Whole);
        prop_assert!(kernel.state().segments.is_empty());
        let fresh = self::kernel();
        prop_assert_eq!(&kernel.state().others, &fresh.state().others);
        for m in ENDPOINTS {
            prop_assert_eq!(kernel.interfaces(&container(m)), BTreeSet::from([foreign()]));
        }
    }

    #[test]
    fn who_knows_little_takes_nothing_of_others_away(before in wish(), after in wish()) {
        let mut kernel = kernel();
        go(&mut kernel, &before, Knowledge::Whole);
        let observed = kernel.state().clone();
        for step in plan(&observed, &after, Knowledge::Partial) {
            let Step::Segment(id, step) = step else { continue };
            let here = || after.segments.get(&id).into_iter().flat_map(|segment| segment.ports.values());
            match step {
                SegmentStep::Row(RowStep::DeleteRemote(mac)) => prop_assert!(here().any(|port| port.mac == mac), "{}", mac),
                SegmentStep::Row(RowStep::DeleteNeighbour(ip)) => {
                    prop_assert!(here().any(|port| port.addresses.iter().any(|a| a.address == ip)), "{}", ip);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn gates_stand_open_just_as_long_as_there_is_a_way_out(wishes in vec(wish(), 1..4)) {
        let mut kernel = kernel();
        for wish in &wishes {
            go(&mut kernel, wish, Knowledge::Partial);
            // Those here have IPv4 only.
            let has_way_out = wish.segments.values().any(|segment| segment.uplink.is_some());
            let comments = if has_way_out { vec!["overlayd:in", "overlayd:out:wan0"] } else { vec![] };
            let [forward, docker, forward6, firewalld, mine] = CHAINS.map(|c| &kernel.state().others.chains[&c.of().0].ours);
            prop_assert!([docker, firewalld].iter().all(|ours| **ours == comments), "{:?}", kernel.state().others);
            prop_assert!([forward, forward6, mine].iter().all(|ours| ours.is_empty()), "{:?}", kernel.state().others);
        }
    }

    #[test]
    fn rules_come_first_and_neighbours_last(before in wish(), after in wish()) {
        let mut kernel = kernel();
        go(&mut kernel, &before, Knowledge::Whole);
        let steps = plan(kernel.state(), &after, Knowledge::Whole);
        for id in after.segments.keys() {
            let ranks: Vec<u8> = steps.iter().filter_map(|step| rank(step, *id)).collect();
            prop_assert!(ranks.is_sorted(), "{:?}", steps);
        }
    }
}

/// The order within a segment: rules, what is withdrawn from the outside in, devices, ports, entries, neighbours.
fn rank(step: &Step, of: NetworkId) -> Option<u8> {
    let Step::Segment(id, step) = step else { return None };
    let rank = match step {
        SegmentStep::Create(_) | SegmentStep::Delete => 0,
        SegmentStep::ReplaceFirewall(_)
        | SegmentStep::ForgetFlows(_)
        | SegmentStep::ReplaceFilter(_)
        | SegmentStep::UpdateFilter(_)
        | SegmentStep::DeleteFilter => 1,
        SegmentStep::Row(RowStep::DeleteNeighbour(_)) => 2,
        SegmentStep::Row(RowStep::DeleteRemote(_)) => 3,
        SegmentStep::DeletePort(_) => 4,
        SegmentStep::CreateBridge(_) | SegmentStep::UpdateBridge(_) => 5,
        SegmentStep::DeleteTunnel => 6,
        SegmentStep::CreateTunnel(_) => 7,
        SegmentStep::ConnectTunnel { .. } => 8,
        SegmentStep::CreateUplink(_)
        | SegmentStep::UpdateUplink(_)
        | SegmentStep::DeleteUplink
        | SegmentStep::Restore(_) => 9,
        SegmentStep::CreatePort(..) | SegmentStep::UpdatePort(_) | SegmentStep::ConnectPort(_) => 10,
        SegmentStep::Row(RowStep::PutRemote(..)) => 11,
        SegmentStep::Row(RowStep::PutNeighbour(..)) => 12,
        SegmentStep::Announce(_) => 13,
    };
    (*id == of).then_some(rank)
}

proptest! {
    #[test]
    fn a_port_follows_the_mtu_and_is_not_made_anew(wish in wish(), mtu in 1280..1400_u32) {
        let mut kernel = kernel();
        go(&mut kernel, &wish, Knowledge::Whole);
        let mut narrow = wish;
        let segments = narrow.segments.values_mut().map(Arc::make_mut);
        segments.flat_map(|s| s.ports.values_mut()).for_each(|port| port.mtu = mtu);
        let report = go(&mut kernel, &narrow, Knowledge::Whole);
        let ports: Vec<&Port> = narrow.segments.values().flat_map(|s| s.ports.values()).collect();
        prop_assert_eq!(report.done.len(), ports.len());
        for (step, port) in report.done.iter().zip(ports) {
            prop_assert!(matches!(step, Step::Segment(_, SegmentStep::UpdatePort(p)) if p == port), "{:?}", step);
        }
    }
}

#[test]
fn an_endpoint_that_came_home_is_no_longer_looked_for_elsewhere() {
    let mut kernel = kernel();
    let away = Make { elsewhere: BTreeMap::from([(1, (2, 3))]), answered: BTreeSet::from([1]), ..plain() };
    let home = Make { here: BTreeSet::from([1]), ..plain() };
    let forwarding = BTreeSet::from([IpVersion::V4]);
    let wish = |make: Make| Desired {
        forwarding: forwarding.clone(),
        firewall: table(0),
        peers: BTreeSet::new(),
        segments: BTreeMap::from([(network(1), make.of(1).into())]),
    };
    go(&mut kernel, &wish(away), Knowledge::Whole);
    // Even at the start, when nothing else is withdrawn: the address can't be in two places.
    let report = go(&mut kernel, &wish(home), Knowledge::Partial);
    let withdrawn = [
        Step::Segment(network(1), RowStep::DeleteNeighbour(address(1)).into()),
        Step::Segment(network(1), RowStep::DeleteRemote(mac(1)).into()),
    ];
    assert_eq!(report.done[..2], withdrawn);
    let segment = &kernel.state().segments[&network(1)];
    assert!(segment.remotes.is_empty() && segment.neighbours.is_empty());
}

#[test]
fn what_could_not_be_forgotten_is_tried_again() {
    let mut kernel = kernel();
    let flow = Flow { protocol: 17, port: 5353 };
    let is_step = |step: &Step| {
        matches!(step, Step::Host(HostStep::ForgetFlows(_)) | Step::Segment(_, SegmentStep::ForgetFlows(_)))
    };
    let wish = wish_with_uplink();
    go(&mut kernel, &wish, Knowledge::Whole);
    let mut state = kernel.state().clone();
    state.unforgotten.insert(flow);
    state.segments.values_mut().for_each(|segment| segment.unforgotten.extend([flow]));
    kernel = kernel.with_state(state);
    kernel.refuse(move |step| is_step(step).then_some(Cause::Busy));
    assert!(!go(&mut kernel, &wish, Knowledge::Whole).settled());
    assert!(kernel.state().unforgotten.contains(&flow), "it is not remembered");
    kernel.refuse_nothing();
    let report = go(&mut kernel, &wish, Knowledge::Whole);
    assert!(report.settled() && report.done.iter().filter(|step| is_step(step)).count() == 2, "{report:?}");
    assert!(plan(kernel.state(), &wish, Knowledge::Whole).is_empty());
}
