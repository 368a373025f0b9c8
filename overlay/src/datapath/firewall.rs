//! Packet filter rules as values. Each namespace has one table of ours, `inet overlay`, and some segments one for what passes
//! their bridge, `bridge overlay`. A table is replaced whole.
//!
//! A rule carries the hash of its text as its comment. So a look at the kernel tells whether the rules there
//! are the ones wanted without reading their meaning back: any rule added, lost, moved or changed by hand shows.

use std::fmt;
use std::net::IpAddr;

use crate::model::addr::{IpVersion, Subnet, fnv1a};

mod fields;
mod observed;
mod sets;

pub use fields::FieldType;
pub use observed::{ObservedTable, StoredElement};
pub use sets::{Element, Field, Holding, Set, SetDefinition};

/// Which packets a table sees. Its name is `overlay` in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Those that are routed, IPv4 and IPv6.
    #[default]
    Inet,
    /// Frames that pass a bridge.
    Bridge,
}

/// A table: sets, and chains in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// What it sees.
    pub family: Family,
    /// The sets and maps.
    pub sets: Vec<Set>,
    /// The chains.
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name in the table.
    pub name: &'static str,
    /// Where packets enter it, in nft's words: `type filter hook forward priority filter`.
    pub hook: &'static str,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A rule: what all must match, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them must match; none at all matches every packet.
    pub when: Vec<Match>,
    /// What happens to the packet.
    pub then: Verdict,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Came in on an interface of this name; a trailing `*` stands for any end.
    In(String),
    /// Goes out on such an interface.
    Out(String),
    /// Goes out on another interface.
    NotOut(String),
    /// Is from an address of this subnet.
    From(Subnet),
    /// Is to this address.
    To(IpAddr),
    /// Is UDP to this port.
    UdpTo(u16),
    /// Belongs to a connection that is known.
    Known,
    /// Was for another address before it was translated.
    Translated,
    /// Is for an address of this namespace.
    Local,
    /// Is for an address of this subnet.
    Within(Subnet),
    /// Is for an address outside of it.
    NotWithin(Subnet),
    /// Goes the way that the first packet of its connection went.
    Original,
    /// Has ports.
    HasPorts,
    /// Is for what this set has, by these of its parts.
    Listed(&'static str, Parts),
    /// Is not.
    Unlisted(&'static str, Parts),
    /// Is one of a kind.
    Is(Kind),
}

/// Kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ARP (RFC 826).
    Arp,
    /// ARP of somebody who has no address yet (RFC 5227, section 1.1).
    ArpProbe,
    /// IPv4 or IPv6.
    Ip(IpVersion),
    /// Neither IP nor ARP; also what has a VLAN's tag, whatever is in it.
    Foreign,
    /// Neighbour discovery: who has an address, and who says so (RFC 4861).
    Discovery,
    /// Word of who has an address.
    Advertisement,
    /// What only routers say (RFC 4861).
    RouterWord,
    /// What somebody sends who has no address yet: is the one free (RFC 4862), and which groups it is in (RFC 3810).
    Unaddressed,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// A TCP segment that opens no connection, and shows it: no SYN without ACK (RFC 9293, section 3.5).
    TcpGoingOn,
    /// A first fragment of SCTP: it need not show all its chunks.
    SctpFragment(IpVersion),
    /// A TCP segment that says how long those may be that answer it: SYN, with ACK or without.
    TcpSyn,
    /// An SCTP packet that opens a connection: INIT (RFC 9260, section 5.1).
    SctpOpening,
    /// An answer to a ping (RFC 792, RFC 4443).
    EchoReply(IpVersion),
    /// Word of a packet that did not arrive (RFC 792, RFC 4443).
    IcmpError(IpVersion),
    /// A fragment that shows no ports: not the first (RFC 791, section 3.2; RFC 8200, section 4.5).
    LaterFragment(IpVersion),
}

/// The parts of a packet that are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Protocol and port that it is for.
    Port,
    /// Address, protocol and port that it is for.
    HostPort(IpVersion),
    /// The same, and the address that it is from.
    Client(IpVersion),
    /// Interface and MAC that it is from.
    Frame,
    /// Interface, MAC and address that it is from.
    Sender(IpVersion),
    /// Interface, MAC and address that an ARP packet says to be from.
    Teller,
    /// Interface, MAC and address that word of neighbour discovery is about.
    Advertiser,
    /// Address that it is from and address that it is for.
    Pair(IpVersion),
    /// Both, protocol and port that it is for.
    Service(IpVersion),
    /// What [`Parts::Pair`] was of a packet that this one answers.
    PairAnswered(IpVersion),
    /// What [`Parts::Service`] was of a packet that this one answers.
    ServiceAnswered(IpVersion),
    /// Both addresses and both UDP ports.
    Datagram(IpVersion),
    /// What [`Parts::Datagram`] was of one that this one answers.
    DatagramAnswered(IpVersion),
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is gone, and counted.
    Drop,
    /// It gets the address of the interface that it leaves by.
    Masquerade,
    /// Connection tracking does not see it.
    NoTrack,
    /// It goes where this map says by these of its parts, under the same version of IP; if it says nothing, it goes on.
    Translate(IpVersion, &'static str, Parts),
    /// It asks for no longer TCP segments than fit both ways (RFC 879), and goes on to the next rule.
    ClampMss,
    /// These of its parts are put into this set, for a while, and it goes on; if the set is full, to the next rule.
    Remember(&'static str, Parts),
}

impl Table {
    /// The transaction that replaces our table of this family by this one, as `nft -f` takes it.
    pub fn script(&self) -> String {
        let mut script = format!("{}table {} overlay {{\n", self.family.removal(), self.family);
        for set in &self.sets {
            script += &format!("  {}", set.definition);
            if !set.elements.is_empty() {
                script += &format!(" elements = {{ {} }}", set.list());
            }
            script += " }\n";
        }
        for chain in &self.chains {
            script += &format!("  chain {} {{\n    {}; policy accept;\n", chain.name, chain.hook);
            for rule in &chain.rules {
                script += &format!("    {rule} comment \"{}\"\n", rule.comment(chain.hook));
            }
            script += "  }\n";
        }
        script + "}\n"
    }
}

impl Family {
    /// The transaction that removes our table of this family, as `nft -f` takes it.
    pub fn removal(self) -> String {
        // Added first so that deleting it can't fail.
        format!("add table {self} overlay\ndelete table {self} overlay\n")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl Chain {
    /// The comments of its rules in order.
    fn comments(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.comment(self.hook)).collect()
    }
}

impl Rule {
    /// A rule for packets that match all of `when`.
    pub fn new(when: impl IntoIterator<Item = Match>, then: Verdict) -> Self {
        Self { when: when.into_iter().collect(), then }
    }

    fn comment(&self, hook: &str) -> String {
        format!("ov:{:016x}", fnv1a(format!("{hook}: {self}").as_bytes()))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for m in &self.when {
            write!(f, "{m} ")?;
        }
        match self.then {
            Verdict::Accept => f.write_str("counter accept"),
            Verdict::Drop => f.write_str("counter drop"),
            Verdict::Masquerade => f.write_str("counter masquerade"),
            Verdict::NoTrack => f.write_str("counter notrack"),
            Verdict::Translate(version, map, parts) => {
                write!(f, "counter dnat {} to {parts} map @{map}", prefix(version))
            }
            Verdict::ClampMss => f.write_str("counter tcp option maxseg size set rt mtu"),
            Verdict::Remember(set, parts) => write!(f, "update @{set} {{ {parts} }} counter accept"),
        }
    }
}

/// How nft calls it.
fn prefix(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "ip",
        IpVersion::V6 => "ip6",
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |ip: IpAddr| prefix(IpVersion::of(ip));
        match self {
            Self::In(name) => write!(f, "iifname \"{name}\""),
            Self::Out(name) => write!(f, "oifname \"{name}\""),
            Self::NotOut(name) => write!(f, "oifname != \"{name}\""),
            Self::From(subnet) => write!(f, "{} saddr {subnet}", family(subnet.network())),
            Self::To(address) => write!(f, "{} daddr {address}", family(*address)),
            Self::UdpTo(port) => write!(f, "udp dport {port}"),
            Self::Known => f.write_str("ct state established,related"),
            Self::Translated => f.write_str("ct status dnat"),
            Self::Local => f.write_str("fib daddr type local"),
            Self::Within(subnet) => write!(f, "{} daddr {subnet}", family(subnet.network())),
            Self::NotWithin(subnet) => write!(f, "{} daddr != {subnet}", family(subnet.network())),
            Self::Original => f.write_str("ct direction original"),
            Self::HasPorts => f.write_str("meta l4proto { tcp, udp, sctp }"),
            Self::Listed(set, parts) => write!(f, "{parts} @{set}"),
            Self::Unlisted(set, parts) => write!(f, "{parts} != @{set}"),
            Self::Is(kind) => kind.fmt(f),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arp => "ether type arp",
            Self::ArpProbe => "arp saddr ip 0.0.0.0",
            Self::Ip(IpVersion::V4) => "ether type ip",
            Self::Ip(IpVersion::V6) => "ether type ip6",
            Self::Foreign => "ether type != { ip, arp, ip6 }",
            Self::Discovery => "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
            Self::Advertisement => "icmpv6 type nd-neighbor-advert",
            Self::RouterWord => "icmpv6 type { nd-router-advert, nd-redirect }",
            Self::Unaddressed => "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report }",
            Self::Udp => "meta l4proto udp",
            Self::Sctp => "meta l4proto sctp",
            Self::TcpGoingOn => "tcp flags & (syn | ack) != syn",
            Self::SctpFragment(IpVersion::V4) => "meta l4proto sctp ip frag-off & 0x3fff == 0x2000",
            Self::SctpFragment(IpVersion::V6) => "meta l4proto sctp frag frag-off 0 frag more-fragments 1",
            Self::TcpSyn => "tcp flags & (syn | rst) == syn",
            Self::SctpOpening => "sctp chunk init exists",
            Self::EchoReply(IpVersion::V4) => "icmp type echo-reply",
            Self::EchoReply(IpVersion::V6) => "icmpv6 type echo-reply",
            Self::IcmpError(IpVersion::V4) => "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
            Self::IcmpError(IpVersion::V6) => {
                "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"
            }
            Self::LaterFragment(IpVersion::V4) => "ip frag-off & 0x1fff != 0",
            Self::LaterFragment(IpVersion::V6) => "frag frag-off != 0",
        })
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "meta l4proto . th dport",
            Self::HostPort(IpVersion::V4) => "ip daddr . meta l4proto . th dport",
            Self::HostPort(IpVersion::V6) => "ip6 daddr . meta l4proto . th dport",
            Self::Client(IpVersion::V4) => "ip daddr . meta l4proto . th dport . ip saddr",
            Self::Client(IpVersion::V6) => "ip6 daddr . meta l4proto . th dport . ip6 saddr",
            Self::Frame => "iifname . ether saddr",
            Self::Sender(IpVersion::V4) => "iifname . ether saddr . ip saddr",
            Self::Sender(IpVersion::V6) => "iifname . ether saddr . ip6 saddr",
            Self::Teller => "iifname . ether saddr . arp saddr ip",
            // Its target (RFC 4861, section 4.4), for which older versions of nft have no name.
            Self::Advertiser => "iifname . ether saddr . @th,64,128",
            Self::Pair(IpVersion::V4) => "ip saddr . ip daddr",
            Self::Pair(IpVersion::V6) => "ip6 saddr . ip6 daddr",
            Self::Service(IpVersion::V4) => "ip saddr . ip daddr . meta l4proto . th dport",
            Self::Service(IpVersion::V6) => "ip6 saddr . ip6 daddr . meta l4proto . th dport",
            Self::PairAnswered(IpVersion::V4) => "ip daddr . ip saddr",
            Self::PairAnswered(IpVersion::V6) => "ip6 daddr . ip6 saddr",
            Self::ServiceAnswered(IpVersion::V4) => "ip daddr . ip saddr . meta l4proto . th sport",
            Self::ServiceAnswered(IpVersion::V6) => "ip6 daddr . ip6 saddr . meta l4proto . th sport",
            Self::Datagram(IpVersion::V4) => "ip saddr . ip daddr . udp sport . udp dport",
            Self::Datagram(IpVersion::V6) => "ip6 saddr . ip6 daddr . udp sport . udp dport",
            Self::DatagramAnswered(IpVersion::V4) => "ip daddr . ip saddr . udp dport . udp sport",
            Self::DatagramAnswered(IpVersion::V6) => "ip6 daddr . ip6 saddr . udp dport . udp sport",
        })
    }
}

#[cfg(test)]
mod tests;
