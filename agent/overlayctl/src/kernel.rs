//! `overlayctl network inspect --kernel`: what `ip`, `bridge` and `nft` would show inside a segment.

use overlay_proto::v1::{ForwardingEntry, InspectKernelReply, Interface};

use crate::output::{Failure, Format, line, or_dash, print};

/// Prints it for people.
pub fn show(reply: &InspectKernelReply) -> Result<(), Failure> {
    line(&format!("namespace {}\n", reply.netns))?;
    let header = ["#", "INTERFACE", "KIND", "PEER", "BRIDGE", "STATE", "MTU", "MAC", "RECEIVED", "SENT", "ADDRESSES"];
    print(Format::Table, &reply.interfaces, header, reply.interfaces.iter().map(interface))?;
    line("")?;
    let header = ["MAC", "TABLE", "INTERFACE", "VTEP", "VNI"];
    print(Format::Table, &reply.entries, header, reply.entries.iter().map(entry))?;
    line("")?;
    let neighbours = reply.neighbours.iter().map(|neighbour| [neighbour.address.clone(), neighbour.mac.clone()]);
    print(Format::Table, &reply.neighbours, ["ADDRESS", "ANSWERED WITH"], neighbours)?;
    line("")?;
    line(reply.rules.trim_end())
}

fn interface(one: &Interface) -> [String; 11] {
    let passed = |packets, bytes, dropped| match dropped {
        0 => format!("{packets} packets, {bytes} bytes"),
        _ => format!("{packets} packets, {bytes} bytes, {dropped} dropped"),
    };
    [
        one.index.to_string(),
        one.name.clone(),
        or_dash(one.kind.clone()),
        or_dash(if one.peer_index == 0 { String::new() } else { one.peer_index.to_string() }),
        or_dash(one.controller.clone()),
        if one.up { "up" } else { "down" }.to_owned(),
        one.mtu.to_string(),
        or_dash(one.mac.clone()),
        passed(one.received_packets, one.received_bytes, one.received_dropped),
        passed(one.sent_packets, one.sent_bytes, one.sent_dropped),
        or_dash(one.addresses.join(" ")),
    ]
}

fn entry(entry: &ForwardingEntry) -> [String; 5] {
    let table = if entry.local { format!("{}, its own", entry.table) } else { entry.table.clone() };
    let vni = if entry.vni == 0 { String::new() } else { entry.vni.to_string() };
    let vtep = if entry.port == 0 { entry.vtep.clone() } else { format!("{}:{}", entry.vtep, entry.port) };
    [entry.mac.clone(), table, entry.interface.clone(), or_dash(vtep), or_dash(vni)]
}
