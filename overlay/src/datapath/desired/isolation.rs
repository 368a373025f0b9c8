//! The rules of a bridge whose containers reach each other by links only.
//!
//! They judge what is delivered to a container of this host; what goes to another host is judged there. So nothing has to be
//! trusted that another host says of its containers, but for the addresses that they have.
//!
//! What answers passes without connection tracking, which bridges have only with a kernel module that few load
//! (`nf_conntrack_bridge`): TCP and SCTP show which packets open a connection, and what was asked over UDP is remembered for three
//! minutes. Connection tracking would do so for two (`nf_conntrack_udp_timeout_stream`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::{Attachment, port_ifname};
use crate::cluster::NetworkView;
use crate::datapath::firewall::{
    Chain, Element, Family, Field, FieldType, Kind, Match, Parts, Rule, Set, SetDefinition, Table, Verdict,
};
use crate::datapath::names::ANY_PORT;
use crate::model::addr::{IpVersion, Mac};
use crate::model::endpoint::Endpoint;
use crate::model::host::Liveness;
use crate::model::links::Links;
use crate::model::network::{Name, Network};

/// The interface and MAC of each container here: who asks for an address has none yet.
const MACS: SetDefinition = SetDefinition::set("macs", &[FieldType::Interface, FieldType::Mac]);
/// The interface, MAC and IPv6 addresses of each, as neighbour discovery tells them.
const TOLD: SetDefinition = SetDefinition::set("told6", &[FieldType::Interface, FieldType::Mac, FieldType::Bytes]);

/// What is looked up in one version of IP.
struct IsolationSets {
    /// The interface, MAC and address of each container here: what it sends under another one is dropped.
    own: SetDefinition,
    /// Who may reach whom, and at which port.
    linked: SetDefinition,
    /// Who may reach whom at all ports.
    pairs: SetDefinition,
    /// Who has to do with whom at all, both ways.
    acquainted: SetDefinition,
    /// What was asked over UDP a moment ago.
    asked: SetDefinition,
}

/// How many questions over UDP are remembered, and for how long.
const ASKED: u32 = 65_535;
const ASKED_FOR: Duration = Duration::from_secs(180);

const V4: FieldType = FieldType::Address(IpVersion::V4);
const V6: FieldType = FieldType::Address(IpVersion::V6);

const NAMES: IsolationSets = {
    use FieldType::{Interface, Mac, Port, Protocol};
    IsolationSets {
        own: SetDefinition::set("own", &[Interface, Mac, V4]),
        linked: SetDefinition::set("linked", &[V4, V4, Protocol, Port]),
        pairs: SetDefinition::set("pairs", &[V4, V4]),
        acquainted: SetDefinition::set("acquainted", &[V4, V4]),
        asked: SetDefinition::set("asked", &[V4, V4, Port, Port]).dynamic(ASKED, ASKED_FOR),
    }
};

const NAMES6: IsolationSets = {
    use FieldType::{Interface, Mac, Port, Protocol};
    IsolationSets {
        own: SetDefinition::set("own6", &[Interface, Mac, V6]),
        linked: SetDefinition::set("linked6", &[V6, V6, Protocol, Port]),
        pairs: SetDefinition::set("pairs6", &[V6, V6]),
        acquainted: SetDefinition::set("acquainted6", &[V6, V6]),
        asked: SetDefinition::set("asked6", &[V6, V6, Port, Port]).dynamic(ASKED, ASKED_FOR),
    }
};

const fn names(version: IpVersion) -> &'static IsolationSets {
    match version {
        IpVersion::V4 => &NAMES,
        IpVersion::V6 => &NAMES6,
    }
}

/// The table of a segment with these containers on this host. Of a network that is deleted there is no view, but it drains.
pub(super) fn table(
    network: &Network,
    view: Option<&NetworkView>,
    kept: Option<&Links>,
    attached: &[&Attachment],
) -> Table {
    let versions: Vec<IpVersion> = network.versions().collect();
    let chain = |name, hook, rules| Chain { name, hook, rules };
    Table {
        family: Family::Bridge,
        sets: senders_known(&versions, attached)
            .into_iter()
            .chain(versions.iter().flat_map(|version| links(*version, view, kept, attached)))
            .collect(),
        chains: vec![
            chain("prerouting", "type filter hook prerouting priority filter", senders(&versions)),
            chain("forward", "type filter hook forward priority filter", passage(&versions)),
        ],
    }
}

/// What each container here may say that it is, as sets.
fn senders_known(versions: &[IpVersion], attached: &[&Attachment]) -> Vec<Set> {
    let frame = |a: &Attachment| [Field::Interface(port_ifname(a.endpoint.id)), Field::Mac(a.endpoint.mac)];
    let macs = MACS.with(attached.iter().map(|a| Element::of(frame(a))));
    let told = |a: &&Attachment| {
        let own = addresses(&a.endpoint, IpVersion::V6).filter_map(|address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        let (frame, all) = (frame(a), own.chain([link_local(a.endpoint.mac)]));
        all.map(|address| Element::of(frame.iter().cloned().chain([Field::Bytes(address)]))).collect::<Vec<_>>()
    };
    let own = |version: &IpVersion| {
        let own = attached.iter().flat_map(|a| {
            let automatic = (*version == IpVersion::V6).then(|| IpAddr::V6(link_local(a.endpoint.mac)));
            let (frame, all) = (frame(a), addresses(&a.endpoint, *version).chain(automatic));
            all.map(move |address| Element::of(frame.iter().cloned().chain([Field::Address(address)])))
        });
        names(*version).own.with(own)
    };
    let told = TOLD.with(attached.iter().flat_map(told));
    versions.iter().map(own).chain([macs]).chain(versions.contains(&IpVersion::V6).then_some(told)).collect()
}

/// The address that an interface gives itself (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.as_bytes().map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

/// The links that end at a container here, as sets.
fn links(version: IpVersion, view: Option<&NetworkView>, kept: Option<&Links>, attached: &[&Attachment]) -> Vec<Set> {
    let here: BTreeSet<IpAddr> = attached.iter().flat_map(|a| addresses(&a.endpoint, version)).collect();
    let elsewhere = view.into_iter().flat_map(|view| view.endpoints.values());
    let elsewhere = elsewhere.filter(|located| located.liveness != Liveness::Dead).map(|located| &*located.endpoint);
    let mut called: BTreeMap<&Name, BTreeSet<IpAddr>> = BTreeMap::new();
    for endpoint in attached.iter().map(|a| &a.endpoint).chain(elsewhere) {
        for name in endpoint.names() {
            called.entry(name).or_default().extend(addresses(endpoint, version));
        }
    }
    let open = view.map(|view| &view.links).or(kept).into_iter().flat_map(Links::open);
    let (mut linked, mut pairs, mut acquainted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for link in open {
        let (from, to) = (called.get(&link.from), called.get(&link.to));
        for from in from.into_iter().flatten().copied() {
            let reached = to.into_iter().flatten().copied();
            for to in reached.filter(|to| *to != from && (here.contains(to) || here.contains(&from))) {
                let (from, to) = (Field::Address(from), Field::Address(to));
                acquainted.insert(Element::of([from.clone(), to.clone()]));
                acquainted.insert(Element::of([to.clone(), from.clone()]));
                match link.service {
                    None => pairs.insert(Element::of([from.clone(), to])),
                    Some(at) => linked.insert(Element::of([
                        from.clone(),
                        to,
                        Field::Protocol(at.protocol),
                        Field::Port(at.port),
                    ])),
                };
            }
        }
    }
    let names = names(version);
    vec![names.linked.with(linked), names.pairs.with(pairs), names.acquainted.with(acquainted), names.asked.with([])]
}

/// A container sends only from its own MAC and addresses, announces no others by ARP or neighbour discovery, and is no router.
/// These rules can't see inside a frame with a VLAN tag, so they drop it.
fn senders(versions: &[IpVersion]) -> Vec<Rule> {
    let from = || Match::In(ANY_PORT.to_owned());
    let foreign = |kind, set, parts| Rule::new([from(), Match::Is(kind), Match::Unlisted(set, parts)], Verdict::Drop);
    let new = |kind| Rule::new([from(), Match::Is(kind), Match::Listed(MACS.name, Parts::Frame)], Verdict::Accept);
    let mut rules = vec![Rule::new([from(), Match::Is(Kind::Foreign)], Verdict::Drop), new(Kind::ArpProbe)];
    // Without a set of its own a version is not the network's, and nobody has an address of it.
    rules.extend(
        IpVersion::ALL
            .into_iter()
            .filter(|version| !versions.contains(version))
            .map(|version| Rule::new([from(), Match::Is(Kind::Ip(version))], Verdict::Drop)),
    );
    if versions.contains(&IpVersion::V4) {
        rules.push(foreign(Kind::Ip(IpVersion::V4), names(IpVersion::V4).own.name, Parts::Sender(IpVersion::V4)));
        rules.push(foreign(Kind::Arp, names(IpVersion::V4).own.name, Parts::Teller));
    }
    if versions.contains(&IpVersion::V6) {
        rules.push(Rule::new([from(), Match::Is(Kind::RouterWord)], Verdict::Drop));
        rules.push(new(Kind::Unaddressed));
        rules.push(foreign(Kind::Ip(IpVersion::V6), names(IpVersion::V6).own.name, Parts::Sender(IpVersion::V6)));
        rules.push(foreign(Kind::Advertisement, TOLD.name, Parts::Advertiser));
    }
    rules
}

fn passage(versions: &[IpVersion]) -> Vec<Rule> {
    let accept = |when: Vec<Match>| Rule::new(when, Verdict::Accept);
    let drop = |when: Vec<Match>| Rule::new(when, Verdict::Drop);
    let (is, listed) = (Match::Is, Match::Listed);
    let of_each = |rules: &dyn Fn(IpVersion, &IsolationSets) -> Vec<Rule>| -> Vec<Rule> {
        versions.iter().flat_map(|version| rules(*version, names(*version))).collect()
    };
    let found = |version| accept(vec![is(if version == IpVersion::V4 { Kind::Arp } else { Kind::Discovery })]);
    // A fragment without ports is told by its addresses alone, and before all that would look for ports in it.
    let continued = |version, names: &IsolationSets| {
        vec![accept(vec![is(Kind::LaterFragment(version)), listed(names.acquainted.name, Parts::Pair(version))])]
    };
    // What can't be remembered could not be answered.
    let asked = |version, names: &IsolationSets| {
        let remember = Verdict::Remember(names.asked.name, Parts::Datagram(version));
        let linked = || vec![is(Kind::Udp), listed(names.linked.name, Parts::Service(version))];
        let paired = || vec![is(Kind::Udp), listed(names.pairs.name, Parts::Pair(version))];
        vec![Rule::new(linked(), remember), drop(linked()), Rule::new(paired(), remember), drop(paired())]
    };
    let opened = |version, names: &IsolationSets| {
        vec![
            accept(vec![listed(names.linked.name, Parts::Service(version))]),
            accept(vec![listed(names.pairs.name, Parts::Pair(version))]),
        ]
    };
    // From here on it can be an answer only, and has to show that it is one.
    let answered = |version, names: &IsolationSets| {
        let linked = || listed(names.linked.name, Parts::ServiceAnswered(version));
        let paired = || listed(names.pairs.name, Parts::PairAnswered(version));
        let acquainted = || listed(names.acquainted.name, Parts::Pair(version));
        vec![
            accept(vec![is(Kind::TcpGoingOn), linked()]),
            accept(vec![is(Kind::TcpGoingOn), paired()]),
            drop(vec![is(Kind::SctpFragment(version))]),
            drop(vec![is(Kind::SctpOpening)]),
            accept(vec![is(Kind::Sctp), linked()]),
            accept(vec![is(Kind::Sctp), paired()]),
            accept(vec![is(Kind::Udp), listed(names.asked.name, Parts::DatagramAnswered(version))]),
            accept(vec![is(Kind::EchoReply(version)), paired()]),
            accept(vec![is(Kind::IcmpError(version)), acquainted()]),
        ]
    };
    let mut rules: Vec<Rule> = versions.iter().map(|version| found(*version)).collect();
    rules.extend(of_each(&continued));
    rules.extend(of_each(&asked));
    rules.push(accept(vec![Match::NotOut(ANY_PORT.to_owned())]));
    rules.extend(of_each(&opened));
    rules.extend(of_each(&answered));
    rules.push(drop(Vec::new()));
    rules
}

fn addresses(endpoint: &Endpoint, version: IpVersion) -> impl Iterator<Item = IpAddr> + '_ {
    endpoint.addresses.iter().map(|assigned| assigned.address).filter(move |a| IpVersion::of(*a) == version)
}

#[cfg(test)]
mod tests;
