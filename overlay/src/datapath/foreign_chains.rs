//! Foreign chains: chains of other programs that a packet between a container and the world meets. A packet has to pass every
//! chain at the forward hook, so what another program's chain drops is lost, whatever our own table says (nft(8), "verdict
//! statements").
//!
//! A few chains are meant for rules of others. There, accept rules of ours let pass what our own table has judged already; in any
//! other chain nothing is ever changed, but it is told. Nothing stands open for longer than a network has a way out here.
//!
//! Inwards all passes: our own chain drops what is neither known nor for a published port. Outwards only by the ways that lead
//! to other hosts, or a container of ours would get past the policy that keeps it from Docker's own bridges, from virtual
//! machines, and whatever else the host routes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::datapath::desired::Desired;
use crate::datapath::names::ANY_UPLINK;
use crate::model::addr::{IfName, IpVersion};

/// A chain, in nft's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName {
    /// Which packets it sees.
    pub family: Protocols,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub chain: String,
}

/// Which of the forwarded packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocols {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

/// What others have in the host's namespace that packets of ours meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// The chains that take accept rules of ours, and all that drop by policy what is forwarded.
    pub chains: BTreeMap<ChainName, ChainInfo>,
    /// The interfaces that lead to other hosts: those that a gateway is behind, and the one with the VTEP's address.
    pub egress: BTreeSet<IfName>,
    /// Is there a filter of the old `iptables`, whose rules nobody sees by way of nftables?
    pub has_legacy: bool,
}

/// A chain of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// What becomes of a packet that none of its rules decides.
    pub policy: Policy,
    /// Its table belongs to the program that made it: the kernel lets nobody else change it (`NFT_TABLE_F_OWNER`).
    pub is_owned: bool,
    /// Whom its rules call before they decide.
    pub calls: Calls,
    /// Does any rule in it that is not ours name our interfaces?
    pub knows_us: bool,
    /// The comments of our rules in it, sorted.
    pub ours: Vec<String>,
}

/// What becomes of the packets that a chain does not decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They go on.
    Accept,
    /// They are dropped.
    Drop,
    /// The chain that has called this one decides.
    Return,
}

/// Which other chain a chain calls, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// None that matters.
    Nothing,
    /// Docker's chain for people's own rules.
    DockerUser,
}

/// A rule of ours in a foreign chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AcceptRule {
    /// What goes to a container may pass.
    In,
    /// What comes from one may leave by this interface.
    Out(IfName),
}

/// A chain that is in the way and that is not changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockingChain {
    /// It drops by policy, and is none of those that are known.
    Policy(ChainName),
    /// It would take accept rules, but the kernel lets only its owner change it.
    Owned(ChainName),
    /// Rules of the old `iptables`, which may let anything pass or nothing.
    Legacy,
}

/// How comments of ours begin: they show as comments, also in `iptables -S`.
const COMMENT: &str = "overlayd:";

/// What stands between containers and the world, and what of it we have to open or to shut: the chains whose rules of ours are not
/// as they should be, with those that there should be.
pub fn changes(others: &Others, desired: &Desired) -> BTreeMap<ChainName, BTreeSet<AcceptRule>> {
    let rules = rules(others, desired);
    let versions = versions(desired);
    let is_open = |name: &ChainName| name.family.sees(&versions) && takes_rules(others, name);
    let wanted = |name: &ChainName| if is_open(name) { rules.clone() } else { BTreeSet::new() };
    let chains = others.chains.iter().filter(|(_, info)| !info.is_owned);
    let chains = chains.map(|(name, info)| (name, &info.ours, wanted(name)));
    let changed = chains.filter(|(_, ours, wanted)| **ours != comments(wanted));
    changed.map(|(name, _, wanted)| (name.clone(), wanted)).collect()
}

/// What is in the way and stays: for a person to know of.
pub fn blocking_chains(others: &Others, desired: &Desired) -> BTreeSet<BlockingChain> {
    let versions = versions(desired);
    if versions.is_empty() {
        return BTreeSet::new();
    }
    let blocking = |(name, info): (&ChainName, &ChainInfo)| {
        let takes_rules = takes_rules(others, name);
        // What it calls stands before its policy.
        let is_opened = takes_rules || info.calls == Calls::DockerUser;
        match (info.is_owned && takes_rules, info.policy) {
            (true, _) => Some(BlockingChain::Owned(name.clone())),
            (false, Policy::Drop) if !is_opened && !info.knows_us => Some(BlockingChain::Policy(name.clone())),
            _ => None,
        }
    };
    let met = others.chains.iter().filter(|(name, _)| name.family.sees(&versions));
    met.filter_map(blocking).chain(others.has_legacy.then_some(BlockingChain::Legacy)).collect()
}

/// The comments of these rules, sorted.
pub fn comments(rules: &BTreeSet<AcceptRule>) -> Vec<String> {
    let mut comments: Vec<String> = rules.iter().map(AcceptRule::comment).collect();
    comments.sort();
    comments
}

/// The versions of IP that have a way out of some network.
pub(crate) fn versions(desired: &Desired) -> BTreeSet<IpVersion> {
    let uplinks = desired.segments.values().filter_map(|segment| segment.uplink.as_ref());
    uplinks.flat_map(|uplink| &uplink.transits).map(|transit| IpVersion::of(transit.host)).collect()
}

/// The rules of ours in each chain that takes them.
fn rules(others: &Others, desired: &Desired) -> BTreeSet<AcceptRule> {
    if versions(desired).is_empty() {
        return BTreeSet::new();
    }
    // What a rule could not name, or would take for the start of a name.
    let is_plain = |ifname: &&IfName| !ifname.as_str().contains(['"', '\\', '*']);
    others.egress.iter().filter(is_plain).cloned().map(AcceptRule::Out).chain([AcceptRule::In]).collect()
}

const FORWARD: &str = "FORWARD";

/// The chains that are meant for rules of others, or that a program leaves to others on purpose.
fn takes_rules(others: &Others, name: &ChainName) -> bool {
    if is_iptables(name, FORWARD) {
        // As ufw has it. Where Docker's chain is called, it stands before all the others; after `iptables -F` it is there, and nobody
        // calls it.
        let drops = |info: &ChainInfo| info.policy == Policy::Drop && info.calls == Calls::Nothing;
        return others.chains.get(name).is_some_and(drops);
    }
    is_iptables(name, DOCKER_USER) || *name == firewalld()
}

fn is_iptables(name: &ChainName, chain: &str) -> bool {
    name.family != Protocols::Inet && name.table == "filter" && name.chain == chain
}

/// Docker makes this chain for people's own rules, calls it first and never flushes it
/// (docs.docker.com, "Packet filtering and firewalls").
pub const DOCKER_USER: &str = "DOCKER-USER";

/// The chain of firewalld 1.x, whose last rule rejects.
fn firewalld() -> ChainName {
    ChainName { family: Protocols::Inet, table: "firewalld".to_owned(), chain: "filter_FORWARD".to_owned() }
}

impl ChainName {
    /// May rules of ours stand in it? Of all other chains only the policy matters.
    pub fn takes_accept_rules(&self) -> bool {
        is_iptables(self, FORWARD) || is_iptables(self, DOCKER_USER) || *self == firewalld()
    }
}

impl Protocols {
    fn sees(self, versions: &BTreeSet<IpVersion>) -> bool {
        match self {
            Self::Ip => versions.contains(&IpVersion::V4),
            Self::Ip6 => versions.contains(&IpVersion::V6),
            Self::Inet => !versions.is_empty(),
        }
    }
}

impl AcceptRule {
    /// Is a rule with this comment ours?
    pub fn is_our_comment(comment: &str) -> bool {
        comment.starts_with(COMMENT)
    }

    /// Its comment.
    pub fn comment(&self) -> String {
        match self {
            Self::In => format!("{COMMENT}in"),
            Self::Out(ifname) => format!("{COMMENT}out:{ifname}"),
        }
    }
}

/// As `nft` takes it, and as `iptables` can read it: with a counter, and nothing that it has no word for.
impl fmt::Display for AcceptRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In => write!(f, "oifname \"{ANY_UPLINK}\"")?,
            Self::Out(ifname) => write!(f, "iifname \"{ANY_UPLINK}\" oifname \"{ifname}\"")?,
        }
        write!(f, " counter accept comment \"{}\"", self.comment())
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

#[cfg(test)]
mod tests;
