//! What is on the wire, and what is inside the tunnel that runs over it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::exec::Proc;
use super::host::Host;
use super::traffic::{LAST_REPORT, last_line};
use crate::tool::capture::CaptureReport;

/// IANA's port of VXLAN (RFC 7348, section 5).
const VXLAN_PORT: u16 = 4789;

/// A recording that runs.
#[derive(Debug)]
pub struct Capture {
    recorder: Proc,
    file: PathBuf,
}

/// A frame inside the tunnel, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inner {
    /// ARP, request or reply.
    Arp,
    /// IPv6 neighbour and router discovery, or multicast listener reports (RFC 4861, 3810).
    NeighbourDiscovery,
    /// To the broadcast address or a group, and none of the above.
    Group,
    /// From one to one.
    Unicast,
}

/// How many frames of each kind were inside the tunnel, by VNI and kind.
pub type Tally = std::collections::BTreeMap<(u32, Inner), usize>;

impl Capture {
    pub(super) fn start(switch: &Host, interface: &str) -> anyhow::Result<Self> {
        let file = Host::directory(switch.name()).join(format!("{interface}.pcap"));
        let line = format!("capture {interface} {}", file.display());
        let recorder = switch.place().tool(&line, &file.with_extension("log"))?;
        Ok(Self { recorder, file })
    }

    /// Ends the recording and counts what was inside the tunnel.
    ///
    /// # Errors
    /// When frames were lost or the file is unreadable.
    pub fn stop(mut self) -> anyhow::Result<Tally> {
        let report: CaptureReport = last_line(&mut self.recorder, LAST_REPORT)?;
        ensure!(report.dropped == 0, "the capture is not complete: {report:?}");
        let bytes = fs::read(&self.file)?;
        let mut tally = Tally::new();
        for frame in frames(&bytes).context("not a pcap file")? {
            if let Some((vni, inner)) = decapsulate(frame, VXLAN_PORT) {
                *tally.entry((vni, classify(inner))).or_default() += 1;
            }
        }
        Ok(tally)
    }
}

/// The frames of a pcap file (draft-ietf-opsawg-pcap), Ethernet, written on a machine of our own byte order.
fn frames(pcap: &[u8]) -> Option<Vec<&[u8]>> {
    let magic = u32::from_ne_bytes(pcap.get(..4)?.try_into().ok()?);
    if !matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d) {
        return None;
    }
    let mut rest = pcap.get(24..)?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?);
        let end = 16 + usize::try_from(length).ok()?;
        frames.push(rest.get(16..end)?);
        rest = rest.get(end..)?;
    }
    Some(frames)
}

/// VNI and inner frame of an outer Ethernet frame that carries VXLAN over IPv4 (RFC 7348, section 5).
fn decapsulate(frame: &[u8], port: u16) -> Option<(u32, &[u8])> {
    let packet = frame.get(14..).filter(|_| frame.get(12..14) == Some(&[0x08, 0x00]))?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let udp = packet.get(header..).filter(|_| packet.get(9) == Some(&17))?;
    let vxlan = udp.get(8..).filter(|_| udp.get(2..4) == Some(&port.to_be_bytes()))?;
    let vni = vxlan.get(4..7)?;
    let vni = vni.iter().fold(0, |vni, byte| vni << 8 | u32::from(*byte));
    Some((vni, vxlan.get(8..)?))
}

fn classify(frame: &[u8]) -> Inner {
    let group = frame.first().is_some_and(|byte| byte & 1 == 1);
    // ICMPv6 types 130-137 and 143, after a fixed header of 40 bytes; MLD has a hop-by-hop header before it.
    let icmp6 = |at: usize| matches!(frame.get(at), Some(130..=137 | 143));
    match frame.get(12..14) {
        Some([0x08, 0x06]) => Inner::Arp,
        Some([0x86, 0xdd]) if frame.get(20) == Some(&58) && icmp6(54) => Inner::NeighbourDiscovery,
        Some([0x86, 0xdd]) if frame.get(20) == Some(&0) && icmp6(62) => Inner::NeighbourDiscovery,
        _ if group => Inner::Group,
        _ => Inner::Unicast,
    }
}

#[cfg(test)]
mod tests;
