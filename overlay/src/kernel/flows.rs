//! Connections that the kernel tracks: those to a port that leads elsewhere now are forgotten, so that their next packet goes
//! there. Without that a UDP flow that never pauses would go to the old place for ever.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use tokio::task::spawn_blocking;

use super::addr;
use super::error::{Meaning, OrDoing};
use super::netns_sockets::NetnsSockets;
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::observed::Flow;

/// The kernel makes the parts of a dump no longer than this.
const PART: usize = 64 * 1024;

/// Forgets all connections of a namespace whose first packet was for one of these ports of its own. What passes through it to
/// the same port of somebody else goes on.
pub(super) async fn forget(sockets: &NetnsSockets, flows: &BTreeSet<Flow>) -> Result<(), StepError> {
    let doing = || "forget the connections to published ports that have changed";
    let own = addr::all(&sockets.route).await.or_doing(doing)?.into_values().flatten().map(|own| own.address).collect();
    let (netns, flows) = (Arc::clone(&sockets.netns), flows.clone());
    let forgotten = spawn_blocking(move || netns.run(|| forget_here(&flows, &own))).await;
    forgotten.map_err(io::Error::other).or_doing(doing)?.or_doing(doing)?.or_doing(doing)
}

fn forget_here(flows: &BTreeSet<Flow>, own: &BTreeSet<IpAddr>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let is_own = |first: &[Tuple]| destination(first).is_some_and(|to| to.is_loopback() || own.contains(&to));
    let is_meant = |first: &Vec<Tuple>| is_own(first) && flow_of(first).is_some_and(|flow| flows.contains(&flow));
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        for first in all(&socket, family)?.into_iter().filter(is_meant) {
            let delete = ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(first)]);
            send(&socket, family, delete, NLM_F_REQUEST | NLM_F_ACK)?;
            match receive(&socket, |_| ()) {
                // It has ended by itself.
                Err(error) if error.meaning() == Cause::Gone => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// The first packets of all connections.
fn all(socket: &Socket, family: NetfilterProtoFamily) -> io::Result<Vec<Vec<Tuple>>> {
    send(socket, family, ConntrackMessage::Get(Vec::new()), NLM_F_REQUEST | NLM_F_DUMP)?;
    let first = |attribute: ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
        _ => None,
    };
    let tuples = receive(socket, |attributes| attributes.into_iter().find_map(first))?;
    Ok(tuples.into_iter().flatten().collect())
}

/// The address that a first packet was for.
fn destination(first: &[Tuple]) -> Option<IpAddr> {
    let parts = first.iter().filter_map(|t| if let Tuple::Ip(parts) = t { Some(parts) } else { None }).flatten();
    parts.into_iter().find_map(|part| if let IPTuple::DestinationAddress(to) = part { Some(*to) } else { None })
}

/// What a first packet was for.
fn flow_of(first: &[Tuple]) -> Option<Flow> {
    let parts = || first.iter().filter_map(|t| if let Tuple::Proto(parts) = t { Some(parts) } else { None }).flatten();
    let protocol =
        parts().find_map(|part| if let ProtoTuple::Protocol(p) = part { Some(u8::from(*p)) } else { None })?;
    let port = parts().find_map(|part| if let ProtoTuple::DestinationPort(p) = part { Some(*p) } else { None })?;
    Some(Flow { protocol, port })
}

fn send(socket: &Socket, family: NetfilterProtoFamily, message: ConntrackMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let body = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(body));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// What the kernel answers, to its end.
fn receive<T>(socket: &Socket, take: impl Fn(Vec<ConntrackAttribute>) -> T) -> io::Result<Vec<T>> {
    let mut taken = Vec::new();
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        socket.recv(&mut part, 0)?;
        let mut rest = part.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(taken),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(taken),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => taken.push(take(attributes)),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
