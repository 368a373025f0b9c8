//! Forwarding entries: which MAC is behind which port of the bridge, and behind which VTEP.
//!
//! A remote MAC has two rows: the bridge's (behind `vx0`) and the tunnel's (behind that VTEP). One request writes both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Error, Handle};

use super::error::Unless;
use crate::datapath::desired::Remote;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::Mac;
use crate::model::id::Vni;

/// NOARP for the bridge and REACHABLE for the tunnel: each of them takes only one of the two. With `ExtLearned` the
/// rows neither age nor move by learning (`br_fdb_external_learn_add`, `vxlan_fdb_add` in Linux).
const REMOTE_STATE: NeighbourState = NeighbourState::Other(0x42);
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// One row as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub link: u32,
    pub mac: [u8; 6],
    pub kind: RowKind,
    /// It neither ages nor moves by learning.
    pub lasting: bool,
}

/// Whose row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    /// The bridge's: the MAC is behind this port.
    Bridge {
        /// The bridge.
        of: u32,
        /// The port's own MAC, not one behind it.
        local: bool,
        /// Set as we set that of a container: static, not by a controller.
        fixed: bool,
    },
    /// The tunnel's: the MAC is behind this VTEP; port and VNI only where they are not the device's own.
    Tunnel { vtep: Option<IpAddr>, port: Option<u16>, vni: Option<Vni> },
}

/// All rows in a namespace.
pub(super) async fn all(route: &Handle) -> Result<Vec<Row>, Error> {
    of(route, 0).await
}

/// The rows of one link; of all links if it is 0. The kernel goes through a bridge's whole table for each of its ports that it is
/// asked for.
async fn of(route: &Handle, link: u32) -> Result<Vec<Row>, Error> {
    let mut request = route.neighbours().get().set_address_family(AddressFamily::Bridge);
    request.message_mut().header.ifindex = link;
    let rows = request.execute();
    rows.try_filter_map(|message| std::future::ready(Ok(row(&message)))).try_collect().await
}

/// Points a MAC at a VTEP, wherever it was before: both rows, in one request.
pub(super) async fn put_remote(route: &Handle, tunnel: u32, mac: Mac, remote: Remote) -> Result<(), Error> {
    let mut request = route
        .neighbours()
        .add_bridge(tunnel, mac.as_bytes())
        .destination(remote.vtep)
        .state(REMOTE_STATE)
        .flags(NeighbourFlags::Own | NeighbourFlags::Controller | NeighbourFlags::ExtLearned)
        .replace();
    let attributes = &mut request.message_mut().attributes;
    attributes.extend([NeighbourAttribute::Vni(remote.vni.get()), NeighbourAttribute::Port(remote.port)]);
    request.execute().await
}

/// Removes both rows of a MAC, as far as they are there.
pub(super) async fn delete_remote(route: &Handle, tunnel: u32, mac: Mac) -> Result<(), Error> {
    // Not in one request: it would stop at the first row that is not there.
    delete(route, tunnel, mac.as_bytes(), NeighbourFlags::Controller).await?;
    delete(route, tunnel, mac.as_bytes(), NeighbourFlags::Own).await
}

/// Removes what would make the tunnel flood.
pub(super) async fn delete_flooding(route: &Handle, tunnel: u32) -> Result<(), Error> {
    for row in of(route, tunnel).await?.iter().filter(|row| row.link == tunnel && row.floods()) {
        delete(route, tunnel, &row.mac, NeighbourFlags::Own).await?;
    }
    Ok(())
}

/// Makes `mac` the one that is behind a container's port.
pub(super) async fn set_container(route: &Handle, port: u32, mac: Mac) -> Result<(), Error> {
    // A row that a controller made keeps that mark when it is replaced.
    let fits = |row: &Row| row.mac == *mac.as_bytes() && matches!(row.kind, RowKind::Bridge { fixed: true, .. });
    let in_the_way = |row: &&Row| row.link == port && row.is_behind_port() && !fits(row);
    for row in of(route, port).await?.iter().filter(in_the_way) {
        delete(route, port, &row.mac, NeighbourFlags::Controller).await?;
    }
    let request = route.neighbours().add_bridge(port, mac.as_bytes());
    request.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller).replace().execute().await
}

async fn delete(route: &Handle, link: u32, mac: &[u8; 6], whose: NeighbourFlags) -> Result<(), Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link;
    message.header.flags = whose;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    route.neighbours().del(message).execute().await.unless(Cause::Gone)
}

impl Row {
    /// A row of the tunnel that sends to nobody in particular: for the zero MAC, or a group.
    pub(super) fn floods(&self) -> bool {
        matches!(self.kind, RowKind::Tunnel { .. }) && Mac::new(self.mac).is_none()
    }

    /// A row of the bridge for a MAC behind the port.
    pub(super) fn is_behind_port(&self) -> bool {
        matches!(self.kind, RowKind::Bridge { local: false, .. })
    }
}

/// What there is of a MAC behind a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// One lasting row of each.
    Whole(Remote),
    /// Anything else.
    Half,
}

/// What these rows are that the bridge and the tunnel have of a MAC behind the tunnel, whose own port and VNI are those of `own`.
pub(super) fn behind(bridge: Option<&Row>, tunnel: &[Row], own: Remote) -> Behind {
    let bridge = bridge.filter(|row| row.is_behind_port());
    match (bridge, tunnel) {
        (None, []) => Behind::Nothing,
        (
            Some(Row { lasting: true, .. }),
            [Row { lasting: true, kind: RowKind::Tunnel { vtep: Some(vtep), port, vni }, .. }],
        ) => Behind::Whole(Remote { vtep: *vtep, port: port.unwrap_or(own.port), vni: vni.unwrap_or(own.vni) }),
        _ => Behind::Half,
    }
}

/// The row that a message of the bridge's family is about.
pub(super) fn row(message: &NeighbourMessage) -> Option<Row> {
    let state = u16::from(message.header.state);
    let learned_outside = message.header.flags.contains(NeighbourFlags::ExtLearned);
    let (mut mac, mut vtep, mut port, mut vni, mut bridge, mut vlan) = (None, None, None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Destination(address) => vtep = ip(address),
            NeighbourAttribute::Port(number) => port = Some(*number),
            NeighbourAttribute::Vni(number) => vni = Vni::new(*number),
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::Vlan(_) => vlan = true,
            _ => {}
        }
    }
    let kind = if let Some(of) = bridge {
        let fixed = state & NUD_NOARP != 0 && !learned_outside;
        RowKind::Bridge { of, local: state & NUD_PERMANENT != 0, fixed }
    } else {
        RowKind::Tunnel { vtep, port, vni }
    };
    let lasting = learned_outside || state & (NUD_NOARP | NUD_PERMANENT) != 0;
    // Without VLAN filtering a row of a VLAN moves no frame.
    mac.filter(|_| !vlan).map(|mac| Row { link: message.header.ifindex, mac, kind, lasting })
}

/// In the bridge's family the crate leaves addresses as they came.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        },
        _ => None,
    }
}
