//! The attributes of a link that this program leaves as the kernel makes them, so that it can be seen when somebody changes one,
//! and set back.
//!
//! What this program sets itself (MTU, addresses, whose port a link is, ...) is compared with what is desired, elsewhere. What the
//! kernel changes by itself (counters, timers, state) is left out.

use std::collections::BTreeMap;

use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan,
    LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};

/// One attribute with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trait {
    Flag(LinkFlags, bool),
    Link(LinkAttribute),
    Bridge(InfoBridge),
    Port(InfoBridgePort),
    Vxlan(InfoVxlan),
}

/// Attributes by name.
pub(super) type Traits = BTreeMap<String, Trait>;

/// How the names of what a port of a bridge has begin.
pub(super) const OF_PORT: &str = "port-";
/// The state of a port, as [`name_of`] calls it.
const STATE: &str = "port-state";

/// The flags that people set; the others are states.
const FLAGS: [(&str, LinkFlags); 4] = [
    ("noarp", LinkFlags::Noarp),
    ("promisc", LinkFlags::Promisc),
    ("allmulti", LinkFlags::Allmulti),
    ("multicast", LinkFlags::Multicast),
];

/// Those of a message.
pub(super) fn read(message: &LinkMessage) -> Traits {
    let mut traits = Traits::new();
    let has_carrier = message.header.flags.contains(LinkFlags::LowerUp);
    traits.extend(FLAGS.map(|(name, flag)| (name.to_owned(), Trait::Flag(flag, message.header.flags.contains(flag)))));
    let mut note = |name: String, one: Trait| drop(traits.insert(name, one));
    let is_bridge = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::Bridge);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Data(InfoData::Bridge(data)) => {
                            let kept = data.iter().filter(|info| is_of_bridge(info));
                            kept.for_each(|info| note(name_of("", info), Trait::Bridge(info.clone())));
                        }
                        LinkInfo::Data(InfoData::Vxlan(data)) => {
                            let kept = data.iter().filter(|info| is_of_vxlan(info));
                            kept.for_each(|info| note(name_of("", info), Trait::Vxlan(info.clone())));
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                            let kept = data.iter().filter(|info| is_of_port(info, has_carrier));
                            kept.for_each(|info| note(name_of(OF_PORT, info), Trait::Port(info.clone())));
                        }
                        _ => {}
                    }
                }
                // The MAC of a bridge is desired to be a certain one.
                if infos.iter().any(is_bridge) {
                    traits.remove("address");
                    return traits;
                }
            }
            other if is_of_link(other) => note(name_of("", other), Trait::Link(other.clone())),
            _ => {}
        }
    }
    traits
}

/// What these attributes should be, if they are first seen like this. Some have a fixed value, whatever they are at first. A port that
/// does not pass frames yet may do so in a moment: its state counts from then on.
pub(super) fn expected(first: &Traits) -> Traits {
    let passes = Trait::Port(InfoBridgePort::State(BridgePortState::Forwarding));
    let mut expected = first.clone();
    expected.retain(|name, value| name != STATE || *value == passes);
    for value in expected.values_mut() {
        match value {
            Trait::Flag(flag, on) => *on = *flag == LinkFlags::Multicast,
            Trait::Link(LinkAttribute::Qdisc(kind)) => "noqueue".clone_into(kind),
            Trait::Link(LinkAttribute::ProtoDown(down)) => *down = 0,
            Trait::Link(_) | Trait::Bridge(_) | Trait::Port(_) | Trait::Vxlan(_) => {}
        }
    }
    expected
}

/// Of the attributes that both have, those that differ; with the values that they had.
pub(super) fn changed<'a>(before: &'a Traits, now: &'a Traits) -> impl Iterator<Item = (&'a str, &'a Trait)> {
    now.iter().filter_map(|(name, value)| {
        let had = before.get(name).filter(|had| *had != value)?;
        Some((name.as_str(), had))
    })
}

impl Trait {
    /// Can it be set back? What else stands on a link belongs to whoever put it there: a limit of the rate, a program.
    pub(super) fn can_be_restored(&self) -> bool {
        !matches!(self, Self::Link(LinkAttribute::Qdisc(_) | LinkAttribute::Xdp(_)))
    }
}

/// The request that sets these attributes of a link.
pub(super) fn restoring(index: u32, traits: &[Trait]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header = LinkHeader { index, ..LinkHeader::default() };
    let (mut bridge, mut port, mut vxlan) = (Vec::new(), Vec::new(), Vec::new());
    for one in traits {
        match one {
            Trait::Flag(flag, on) => {
                message.header.change_mask |= *flag;
                message.header.flags.set(*flag, *on);
            }
            Trait::Link(attribute) => message.attributes.push(attribute.clone()),
            Trait::Bridge(info) => bridge.push(info.clone()),
            Trait::Port(info) => port.push(info.clone()),
            Trait::Vxlan(info) => vxlan.push(info.clone()),
        }
    }
    let mut infos = Vec::new();
    if !bridge.is_empty() {
        infos.extend([LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(bridge))]);
    }
    if !vxlan.is_empty() {
        infos.extend([LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(vxlan))]);
    }
    if !port.is_empty() {
        infos.extend([LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(InfoPortData::BridgePort(port))]);
    }
    if !infos.is_empty() {
        message.attributes.push(LinkAttribute::LinkInfo(infos));
    }
    message
}

fn is_of_link(attribute: &LinkAttribute) -> bool {
    use LinkAttribute::{
        Address, Broadcast, GroIpv4MaxSize, GroMaxSize, Group, GsoIpv4MaxSize, GsoMaxSegs, GsoMaxSize, ProtoDown,
        Qdisc, TxQueueLen, Xdp,
    };
    match attribute {
        // Links that go together are in this group for a moment.
        Group(group) => *group != super::link::LEAVING,
        _ => matches!(
            attribute,
            Address(_)
                | Broadcast(_)
                | GroIpv4MaxSize(_)
                | GroMaxSize(_)
                | GsoIpv4MaxSize(_)
                | GsoMaxSegs(_)
                | GsoMaxSize(_)
                | ProtoDown(_)
                | Qdisc(_)
                | TxQueueLen(_)
                | Xdp(_)
        ),
    }
}

fn is_of_bridge(info: &InfoBridge) -> bool {
    use InfoBridge::{
        AgeingTime, FdbMaxLearned, ForwardDelay, GroupAddr, GroupFwdMask, HelloTime, MaxAge, MulticastHashMax,
        MulticastIgmpVersion, MulticastMldVersion, MulticastQuerier, MulticastQueryUseIfaddr, MulticastRouter,
        MulticastStatsEnabled, NfCallArpTables, NfCallIp6Tables, NfCallIpTables, Priority, VlanDefaultPvid,
        VlanProtocol, VlanStatsEnabled, VlanStatsPerPort,
    };
    matches!(
        info,
        AgeingTime(_)
            | FdbMaxLearned(_)
            | ForwardDelay(_)
            | GroupAddr(_)
            | GroupFwdMask(_)
            | HelloTime(_)
            | MaxAge(_)
            | MulticastHashMax(_)
            | MulticastIgmpVersion(_)
            | MulticastMldVersion(_)
            | MulticastQuerier(_)
            | MulticastQueryUseIfaddr(_)
            | MulticastRouter(_)
            | MulticastStatsEnabled(_)
            | NfCallArpTables(_)
            | NfCallIp6Tables(_)
            | NfCallIpTables(_)
            | Priority(_)
            | VlanDefaultPvid(_)
            | VlanProtocol(_)
            | VlanStatsEnabled(_)
            | VlanStatsPerPort(_)
    )
}

fn is_of_port(info: &InfoBridgePort, has_carrier: bool) -> bool {
    use InfoBridgePort::{
        BackupNextHopId, BackupPort, Cost, FastLeave, GroupFwdMask, Guard, HairpinMode, Locked, Mab,
        MulticastEhtHostsLimit, MulticastMaxGroups, MulticastRouter, MulticastToUnicast, NeighForwardGrat,
        NeighVlanSuppress, Priority, Protect, ProxyARP, State, VlanTunnel,
    };
    match info {
        // Without a carrier it is the kernel's doing.
        State(_) => has_carrier,
        _ => matches!(
            info,
            BackupNextHopId(_)
                | BackupPort(_)
                | Cost(_)
                | FastLeave(_)
                | GroupFwdMask(_)
                | Guard(_)
                | HairpinMode(_)
                | Locked(_)
                | Mab(_)
                | MulticastEhtHostsLimit(_)
                | MulticastMaxGroups(_)
                | MulticastRouter(_)
                | MulticastToUnicast(_)
                | NeighForwardGrat(_)
                | NeighVlanSuppress(_)
                | Priority(_)
                | Protect(_)
                | ProxyARP(_)
                | VlanTunnel(_)
        ),
    }
}

fn is_of_vxlan(info: &InfoVxlan) -> bool {
    use InfoVxlan::{
        Ageing, CollectMetadata, Df, Group, Group6, L2Miss, L3Miss, Label, Learning, Limit, Link, PortRange, Proxy,
        Rsc, Tos, Ttl, TtlInherit, UDPCsum, UDPZeroCsumRX, UDPZeroCsumTX,
    };
    matches!(
        info,
        Ageing(_)
            | CollectMetadata(_)
            | Df(_)
            | Group(_)
            | Group6(_)
            | L2Miss(_)
            | L3Miss(_)
            | Label(_)
            | Learning(_)
            | Limit(_)
            | Link(_)
            | PortRange(_)
            | Proxy(_)
            | Rsc(_)
            | Tos(_)
            | Ttl(_)
            | TtlInherit(_)
            | UDPCsum(_)
            | UDPZeroCsumRX(_)
            | UDPZeroCsumTX(_)
    )
}

/// `TxQueueLen(1000)` is called `tx-queue-len`.
fn name_of(prefix: &str, value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let variant = text.split('(').next().unwrap_or_default();
    let mut name = prefix.to_owned();
    // No dash before the first word, nor within a row of capitals.
    let mut follows_capital = true;
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !follows_capital {
            name.push('-');
        }
        follows_capital = letter.is_ascii_uppercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: impl IntoIterator<Item = LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes.extend(attributes);
        message
    }

    #[test]
    fn what_somebody_has_changed_is_named_and_can_be_set_back() {
        let made = read(&message([LinkAttribute::TxQueueLen(1000), LinkAttribute::Qdisc("noqueue".to_owned())]));
        let found = read(&message([LinkAttribute::TxQueueLen(7), LinkAttribute::Qdisc("tbf".to_owned())]));
        let changed: Vec<_> = changed(&made, &found).collect();
        assert_eq!(changed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["qdisc", "tx-queue-len"]);
        assert_eq!(changed.iter().map(|(_, had)| had.can_be_restored()).collect::<Vec<_>>(), [false, true]);
        let request = restoring(3, &[changed[1].1.clone()]);
        assert_eq!((request.header.index, request.attributes), (3, vec![LinkAttribute::TxQueueLen(1000)]));
    }

    #[test]
    fn a_flag_is_set_back_alone() {
        let request = restoring(3, &[Trait::Flag(LinkFlags::Promisc, false)]);
        assert_eq!((request.header.flags, request.header.change_mask), (LinkFlags::empty(), LinkFlags::Promisc));
    }

    #[test]
    fn the_state_of_a_port_counts_from_when_it_passes_frames() {
        let state = |state| Traits::from([(STATE.to_owned(), Trait::Port(InfoBridgePort::State(state)))]);
        let forwarding = state(BridgePortState::Forwarding);
        assert_eq!(expected(&state(BridgePortState::Disabled)), Traits::new());
        assert_eq!(expected(&forwarding), forwarding);
        assert_eq!(name_of("port-", &InfoBridgePort::State(BridgePortState::Blocking)), STATE);
    }

    #[test]
    fn names_are_words_with_dashes() {
        let names = [InfoBridge::NfCallIp6Tables(true), InfoBridge::AgeingTime(1)].map(|info| name_of("", &info));
        assert_eq!(names, ["nf-call-ip6-tables", "ageing-time"]);
        assert_eq!(name_of("port-", &InfoBridgePort::HairpinMode(true)), "port-hairpin-mode");
    }
}
