//! The rules of a bridge whose containers reach each other by links only.
//!
//! They judge what is delivered to a container of this host; what goes to another host is judged there. So nothing has to be
//! trusted that another host says of its containers, but for the addresses that they have.
//!
//! What answers passes without connection tracking, which bridges have only with a kernel module that few load
//! (`nf_conntrack_bridge`): TCP and SCTP show which packets open a connection, and what was asked over UDP is remembered for three
//! minutes. Connection tracking would do so for two (`nf_conntrack_udp_timeout_stream`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Attachment, port_ifname};
use crate::cluster::NetworkView;
use crate::endpoint::Endpoint;
use crate::firewall::{Chain, Element, Family, Field, Kind, Match, Parts, Rule, Set, Table, Verdict};
use crate::host::Liveness;
use crate::links::Links;
use crate::network::Name;

/// The interface, MAC and address of each container here: what it sends under another one is dropped.
const OWN: &str = "own";
const OWN_KIND: &str = "set own { type ifname . ether_addr . ipv4_addr;";
/// The interface and MAC of each: who asks for an address has none yet.
const MACS: &str = "macs";
const MACS_KIND: &str = "set macs { type ifname . ether_addr;";
/// Who may reach whom, and at which port.
const LINKED: &str = "linked";
const LINKED_KIND: &str = "set linked { type ipv4_addr . ipv4_addr . inet_proto . inet_service;";
/// Who may reach whom at all ports.
const PAIRS: &str = "pairs";
const PAIRS_KIND: &str = "set pairs { type ipv4_addr . ipv4_addr;";
/// Who has to do with whom at all, both ways.
const ACQUAINTED: &str = "acquainted";
const ACQUAINTED_KIND: &str = "set acquainted { type ipv4_addr . ipv4_addr;";
/// What was asked over UDP a moment ago.
const ASKED: &str = "asked";
const ASKED_KIND: &str = "set asked { type ipv4_addr . ipv4_addr . inet_service . inet_service; size 65535; \
                          flags dynamic,timeout; timeout 3m;";

/// The table of a segment with these containers on this host. Of a network that is deleted there is no view, but it drains.
pub(super) fn table(view: Option<&NetworkView>, kept: Option<&Links>, attached: &[&Attachment]) -> Table {
    let mac = |a: &&Attachment| element([Field::Interface(port_ifname(a.endpoint.id)), Field::Mac(a.endpoint.mac)]);
    let macs = Set { name: MACS, kind: MACS_KIND, elements: attached.iter().map(mac).collect() };
    let own = attached.iter().flat_map(|attachment| {
        let endpoint = &attachment.endpoint;
        let ifname = port_ifname(endpoint.id);
        v4(endpoint).map(move |address| {
            element([Field::Interface(ifname.clone()), Field::Mac(endpoint.mac), Field::Address(address)])
        })
    });
    let own = Set { name: OWN, kind: OWN_KIND, elements: own.collect() };
    let chain = |name, hook, rules| Chain { name, hook, rules };
    Table {
        family: Family::Bridge,
        sets: [own, macs].into_iter().chain(links(view, kept, attached)).collect(),
        chains: vec![
            chain("prerouting", "type filter hook prerouting priority filter", senders()),
            chain("forward", "type filter hook forward priority filter", passage()),
        ],
    }
}

/// The links that end at a container here, as sets.
fn links(view: Option<&NetworkView>, kept: Option<&Links>, attached: &[&Attachment]) -> [Set; 4] {
    let here: BTreeSet<Ipv4Addr> = attached.iter().flat_map(|a| v4(&a.endpoint)).collect();
    let elsewhere = view.into_iter().flat_map(|view| view.endpoints.values());
    let elsewhere = elsewhere.filter(|located| located.liveness != Liveness::Dead).map(|located| &*located.endpoint);
    let mut called: BTreeMap<&Name, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for endpoint in attached.iter().map(|a| &a.endpoint).chain(elsewhere) {
        for name in endpoint.names() {
            called.entry(name).or_default().extend(v4(endpoint));
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
                acquainted.insert(element([from.clone(), to.clone()]));
                acquainted.insert(element([to.clone(), from.clone()]));
                match link.service {
                    None => pairs.insert(element([from.clone(), to])),
                    Some(at) => {
                        linked.insert(element([from.clone(), to, Field::Protocol(at.protocol), Field::Port(at.port)]))
                    }
                };
            }
        }
    }
    [
        Set { name: LINKED, kind: LINKED_KIND, elements: linked },
        Set { name: PAIRS, kind: PAIRS_KIND, elements: pairs },
        Set { name: ACQUAINTED, kind: ACQUAINTED_KIND, elements: acquainted },
        Set { name: ASKED, kind: ASKED_KIND, elements: BTreeSet::new() },
    ]
}

/// A container speaks for itself only: neither has it the address of one that is linked, nor does it say so. In a tag it could
/// hide what it says from these rules, but not from who hears it.
fn senders() -> Vec<Rule> {
    let from = || Match::In("ovp*".to_owned());
    let foreign = |kind, parts| Rule::new([from(), Match::Is(kind), Match::Unlisted(OWN, parts)], Verdict::Drop);
    vec![
        Rule::new([from(), Match::Is(Kind::Foreign)], Verdict::Drop),
        Rule::new([from(), Match::Is(Kind::ArpProbe), Match::Listed(MACS, Parts::Frame)], Verdict::Accept),
        foreign(Kind::Ipv4, Parts::Sender),
        foreign(Kind::Arp, Parts::Teller),
    ]
}

fn passage() -> Vec<Rule> {
    let accept = |when: Vec<Match>| Rule::new(when, Verdict::Accept);
    let drop = |when: Vec<Match>| Rule::new(when, Verdict::Drop);
    let remember = |when: Vec<Match>| Rule::new(when, Verdict::Remember(ASKED, Parts::Datagram));
    let (is, listed) = (Match::Is, Match::Listed);
    vec![
        accept(vec![is(Kind::Arp)]),
        // What can't be remembered could not be answered.
        remember(vec![is(Kind::Udp), listed(LINKED, Parts::Service)]),
        drop(vec![is(Kind::Udp), listed(LINKED, Parts::Service)]),
        remember(vec![is(Kind::Udp), listed(PAIRS, Parts::Pair)]),
        drop(vec![is(Kind::Udp), listed(PAIRS, Parts::Pair)]),
        accept(vec![Match::NotOut("ovp*".to_owned())]),
        accept(vec![listed(LINKED, Parts::Service)]),
        accept(vec![listed(PAIRS, Parts::Pair)]),
        // From here on it can be an answer only, and has to show that it is one.
        accept(vec![is(Kind::TcpGoingOn), listed(LINKED, Parts::ServiceAnswered)]),
        accept(vec![is(Kind::TcpGoingOn), listed(PAIRS, Parts::PairAnswered)]),
        drop(vec![is(Kind::SctpFragment)]),
        drop(vec![is(Kind::SctpOpening)]),
        accept(vec![is(Kind::Sctp), listed(LINKED, Parts::ServiceAnswered)]),
        accept(vec![is(Kind::Sctp), listed(PAIRS, Parts::PairAnswered)]),
        accept(vec![is(Kind::Udp), listed(ASKED, Parts::DatagramAnswered)]),
        accept(vec![is(Kind::EchoReply), listed(PAIRS, Parts::PairAnswered)]),
        accept(vec![is(Kind::IcmpError), listed(ACQUAINTED, Parts::Pair)]),
        accept(vec![is(Kind::LaterFragment), listed(ACQUAINTED, Parts::Pair)]),
        drop(Vec::new()),
    ]
}

fn v4(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> + '_ {
    endpoint.addresses.iter().filter_map(|assigned| match assigned.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

fn element(key: impl IntoIterator<Item = Field>) -> Element {
    Element { key: key.into_iter().collect(), value: Vec::new() }
}

#[cfg(test)]
mod tests;
