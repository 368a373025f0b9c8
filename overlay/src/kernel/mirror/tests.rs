use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::kernel::link::PortFlags;
use crate::model::id::Vni;

const TUNNEL: u32 = 1;
/// Not among the links: it is always there.
const BRIDGE: u32 = 9;
const LINKS: [u32; 4] = [TUNNEL, 2, 3, 4];

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn link(index: u32, mtu: u32) -> Interface {
    let vni = Vni::new(7);
    let kind = if index == TUNNEL { Kind::Vxlan { vni, port: 4789, local: None } } else { Kind::Veth };
    Interface {
        index,
        mtu,
        kind,
        master: Some(BRIDGE),
        up: mtu > 1_400,
        port: PortFlags::container(false),
        ..Interface::default()
    }
}

fn bridge_row(link: u32, number: u8) -> Row {
    Row { link, mac: mac(number), kind: RowKind::Bridge { of: BRIDGE, local: false, fixed: true }, lasting: true }
}

fn tunnel_row(number: u8, vtep: u8) -> Row {
    let vtep = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, vtep)));
    Row { link: TUNNEL, mac: mac(number), kind: RowKind::Tunnel { vtep, port: None, vni: None }, lasting: true }
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

/// What a tunnel has as its own.
fn own() -> Remote {
    Remote { vtep: address(1), port: 4789, vni: Vni::new(7).expect("a VNI") }
}

/// All that is kept of the kernel.
type Kept<'a> = (
    &'a BTreeMap<u32, Interface>,
    &'a BTreeMap<(u32, [u8; 6]), Row>,
    &'a BTreeMap<TunnelKey, Vec<Row>>,
    &'a BTreeMap<u32, Arc<BTreeMap<IpAddr, Mac>>>,
);

fn of(mirror: &Mirror) -> Kept<'_> {
    (&mirror.links, &mirror.bridge_rows, &mirror.tunnel_rows, &mirror.neighbours)
}

/// What somebody does to the kernel's objects.
#[derive(Debug, Clone)]
enum Deed {
    SetLink(u32, u32),
    DeleteLink(u32),
    PutBridgeRow(u32, u8),
    DeleteBridgeRow(u8),
    /// In the place of all others of the MAC.
    PutTunnelRow(u8, u8),
    /// Beside the others of the MAC.
    AppendTunnelRow(u8, u8),
    DeleteTunnelRow(u8, u8),
    PutNeighbour(u32, u8, u8),
    DeleteNeighbour(u32, u8),
    /// Messages are lost.
    Lose,
}

fn deed() -> impl Strategy<Value = Deed> {
    let link = || select(LINKS.as_slice());
    prop_oneof![
        3 => (link(), 1_400_u32..1_403).prop_map(|(link, mtu)| Deed::SetLink(link, mtu)),
        1 => link().prop_map(Deed::DeleteLink),
        3 => (link(), 0_u8..4).prop_map(|(link, mac)| Deed::PutBridgeRow(link, mac)),
        1 => (0_u8..4).prop_map(Deed::DeleteBridgeRow),
        3 => (0_u8..4, 0_u8..3).prop_map(|(mac, vtep)| Deed::PutTunnelRow(mac, vtep)),
        1 => (0_u8..4, 0_u8..3).prop_map(|(mac, vtep)| Deed::AppendTunnelRow(mac, vtep)),
        2 => (0_u8..4, 0_u8..3).prop_map(|(mac, vtep)| Deed::DeleteTunnelRow(mac, vtep)),
        3 => (link(), 0_u8..4, 0_u8..4).prop_map(|(link, ip, mac)| Deed::PutNeighbour(link, ip, mac)),
        1 => (link(), 0_u8..4).prop_map(|(link, ip)| Deed::DeleteNeighbour(link, ip)),
        1 => Just(Deed::Lose),
    ]
}

/// The kernel, and what it tells.
#[derive(Debug, Clone, Default)]
struct Model {
    links: BTreeMap<u32, Interface>,
    bridge_rows: BTreeMap<u8, Row>,
    tunnel_rows: BTreeMap<u8, Vec<Row>>,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

impl Model {
    /// Does it, as far as it can be done; gives the messages.
    fn perform(&mut self, deed: &Deed) -> Vec<ObjectChange> {
        match *deed {
            Deed::SetLink(index, mtu) => {
                self.links.insert(index, link(index, mtu));
                vec![ObjectChange::Link(index)]
            }
            Deed::DeleteLink(index) => self.delete_link(index),
            Deed::PutBridgeRow(link, number) if self.links.contains_key(&link) => {
                self.bridge_rows.insert(number, bridge_row(link, number));
                vec![ObjectChange::RowCame(bridge_row(link, number))]
            }
            Deed::DeleteBridgeRow(number) => {
                self.bridge_rows.remove(&number).map(ObjectChange::RowWent).into_iter().collect()
            }
            Deed::PutTunnelRow(number, vtep) if self.links.contains_key(&TUNNEL) => {
                self.tunnel_rows.insert(number, vec![tunnel_row(number, vtep)]);
                vec![ObjectChange::RowCame(tunnel_row(number, vtep))]
            }
            Deed::AppendTunnelRow(number, vtep) if self.links.contains_key(&TUNNEL) => {
                let rows = self.tunnel_rows.entry(number).or_default();
                if !rows.contains(&tunnel_row(number, vtep)) {
                    rows.push(tunnel_row(number, vtep));
                }
                vec![ObjectChange::RowCame(tunnel_row(number, vtep))]
            }
            Deed::DeleteTunnelRow(number, vtep) => {
                let row = tunnel_row(number, vtep);
                let Some(rows) = self.tunnel_rows.get_mut(&number).filter(|rows| rows.contains(&row)) else {
                    return Vec::new();
                };
                rows.retain(|there| *there != row);
                self.tunnel_rows.retain(|_, rows| !rows.is_empty());
                vec![ObjectChange::RowWent(row)]
            }
            Deed::PutNeighbour(link, ip, number) if self.links.contains_key(&link) => {
                let mac = Mac::new(mac(number));
                self.neighbours.extend(mac.map(|mac| ((link, address(ip)), mac)));
                vec![ObjectChange::Neighbour((link, address(ip)), mac)]
            }
            Deed::DeleteNeighbour(link, ip) => {
                self.neighbours.remove(&(link, address(ip)));
                vec![ObjectChange::Neighbour((link, address(ip)), None)]
            }
            Deed::PutBridgeRow(..) | Deed::PutTunnelRow(..) | Deed::AppendTunnelRow(..) | Deed::PutNeighbour(..) => {
                Vec::new()
            }
            Deed::Lose => vec![ObjectChange::Anything],
        }
    }

    /// With a link go its rows and neighbours, and the kernel tells of each.
    fn delete_link(&mut self, index: u32) -> Vec<ObjectChange> {
        let mut told = Vec::new();
        self.bridge_rows.retain(|_, row| {
            let stays = row.link != index;
            if !stays {
                told.push(ObjectChange::RowWent(row.clone()));
            }
            stays
        });
        if index == TUNNEL {
            told.extend(std::mem::take(&mut self.tunnel_rows).into_values().flatten().map(ObjectChange::RowWent));
        }
        let without = self.neighbours.keys().filter(|(link, _)| *link == index);
        told.extend(without.map(|key| ObjectChange::Neighbour(*key, None)));
        self.neighbours.retain(|(link, _), _| *link != index);
        self.links.remove(&index);
        told.push(ObjectChange::Link(index));
        told
    }

    fn dump(&self) -> Dump {
        Dump {
            links: self.links.values().cloned().collect(),
            rows: self.bridge_rows.values().chain(self.tunnel_rows.values().flatten()).cloned().collect(),
            neighbours: self.neighbours.clone(),
        }
    }

    /// What a copy is that is read now.
    fn copied(&self) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.begin();
        mirror.finish(self.dump());
        mirror
    }
}

/// Reads again what has to be read, as a look does; `meanwhile` happens while it reads.
fn refresh(mirror: &mut Mirror, model: &mut Model, meanwhile: &[Deed]) {
    if !mirror.is_whole() {
        mirror.begin();
        let (first, second) = meanwhile.split_at(meanwhile.len() / 2);
        let mut perform = |mirror: &mut Mirror, deeds: &[Deed]| {
            deeds.iter().for_each(|deed| model.perform(deed).into_iter().for_each(|told| mirror.apply(told)));
            model.dump()
        };
        // The three dumps are not of one moment.
        let links = perform(mirror, &[]).links;
        let rows = perform(mirror, first).rows;
        let neighbours = perform(mirror, second).neighbours;
        mirror.finish(Dump { links, rows, neighbours });
    }
    for (index, told) in mirror.touched() {
        mirror.set_link(index, Some(told), model.links.get(&index).cloned());
    }
}

proptest! {
    /// Whatever happens, and whenever all is read: after a look the copy is what the kernel has.
    #[test]
    fn the_copy_is_what_the_kernel_has(rounds in vec((vec(deed(), 0..12), vec(deed(), 0..6)), 1..8)) {
        let (mut model, mut mirror) = (Model::default(), Mirror::default());
        for (deeds, meanwhile) in rounds {
            deeds.iter().for_each(|deed| model.perform(deed).into_iter().for_each(|told| mirror.apply(told)));
            refresh(&mut mirror, &mut model, &meanwhile);
            // Messages may have been lost while all was read, or a dump may have missed something.
            while !mirror.is_whole() {
                refresh(&mut mirror, &mut model, &[]);
            }
            let mut expected = model.copied();
            for tunnel in [TUNNEL, 2] {
                // Also when it was asked for another one before.
                prop_assert_eq!(mirror.remotes(tunnel, own()), expected.remotes(tunnel, own()));
            }
            prop_assert_eq!(of(&mirror), of(&expected));
        }
    }
}

#[test]
fn a_move_of_a_mac_to_another_port_is_one_message() {
    let mut mirror = Model::default().copied();
    mirror.apply(ObjectChange::RowCame(bridge_row(2, 1)));
    mirror.apply(ObjectChange::RowCame(bridge_row(3, 1)));
    assert_eq!(mirror.behind_ports(None).into_keys().collect::<Vec<_>>(), [3]);
}

#[test]
fn lists_of_addresses_of_other_devices_are_not_kept() {
    let mut mirror = Mirror::default();
    mirror.begin();
    let own = Row { link: 2, ..tunnel_row(1, 1) };
    mirror.finish(Dump { links: vec![link(TUNNEL, 1_450), link(2, 1_450)], rows: vec![own], ..Dump::default() });
    assert!(mirror.tunnel_rows.is_empty(), "{mirror:?}");
}

#[test]
fn messages_that_nobody_reads_do_not_pile_up() {
    let mut mirror = Mirror::default();
    mirror.begin();
    (0..=MOST_PENDING).for_each(|_| mirror.apply(ObjectChange::Link(1)));
    assert_eq!(mirror.pending, None);
    mirror.finish(Dump::default());
    assert!(!mirror.is_whole());
}
