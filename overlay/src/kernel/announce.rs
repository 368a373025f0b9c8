//! Telling containers that an address has another MAC: an ARP announcement (RFC 5227, section 3), or an unsolicited neighbour
//! advertisement (RFC 4861, section 7.2.6). Each is sent out of the segment's end of a container's pair, past the bridge.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::error::OrDoing;
use super::netns_sockets::NetnsSockets;
use crate::datapath::announcer::Announcement;
use crate::datapath::kernel_api::StepError;
use crate::model::addr::{IfName, Mac};

/// Tells the containers of a segment. A port that has gone meanwhile needs no telling.
pub(super) async fn tell(segment: &NetnsSockets, announcement: &Announcement) -> Result<(), StepError> {
    let doing = || format!("tell the containers of {} of other MACs", segment.netns.path().display());
    let announcement = announcement.clone();
    segment.netns.run_off(move || send(&announcement)).await.or_doing(doing)?.or_doing(doing)
}

/// Sends from the calling thread's namespace.
fn send(Announcement { macs, ports }: &Announcement) -> io::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    for interface in getifaddrs()? {
        let link = interface.address.as_ref().and_then(|address| address.as_link_addr());
        let owner = interface.interface_name.parse::<IfName>().ok().and_then(|ifname| ports.get(&ifname));
        let (Some(link), Some(owner)) = (link, owner) else { continue };
        for (address, mac) in macs.iter().filter(|(_, mac)| *mac != owner) {
            match sendto(socket.as_raw_fd(), &frame(*address, *mac), link, MsgFlags::empty()) {
                // A port that has gone, or is full, keeps nothing from the others.
                Ok(_) | Err(Errno::ENODEV | Errno::ENXIO | Errno::ENETDOWN | Errno::ENOBUFS | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// What is sent: `mac` has `address`.
fn frame(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(address, mac),
        IpAddr::V6(address) => advertisement(address, mac),
    }
}

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

fn ethernet(to: [u8; 6], from: Mac, ethertype: u16) -> Vec<u8> {
    [to.as_slice(), from.as_bytes(), &ethertype.to_be_bytes()].concat()
}

/// A request in which a container asks for its own address (RFC 826): Ethernet (1), IPv4 (0x0800), lengths 6 and 4, request (1).
fn arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, ETHERTYPE_ARP);
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.as_bytes());
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
/// Neighbour discovery takes no packet that a router may have passed on (RFC 4861, section 7.1.2).
const HOP_LIMIT: u8 = 255;

/// An advertisement (RFC 4861, section 4.4: type 136) that overrides what is known (0x20), with the MAC as its option (2, of 8 bytes).
fn advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(address.octets());
    body.extend([2, 1]);
    body.extend(mac.as_bytes());
    let length = u16::try_from(body.len()).expect("32 bytes");
    let checksum = checksum(address, ALL_NODES, &body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(body);
    frame
}

/// The checksum of an ICMPv6 message (RFC 8200, section 8.1), of an even number of bytes.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).expect("a short message");
    let pseudo = [from.octets().as_slice(), &to.octets(), &length.to_be_bytes(), &[0, 0, 0, ICMPV6], body].concat();
    let words = pseudo.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> Mac {
        Mac::new([2, 0x42, 10, 9, 0, 11]).expect("a unicast MAC")
    }

    #[test]
    fn an_arp_announcement_asks_for_the_address_of_its_sender() {
        let frame = arp(Ipv4Addr::new(10, 9, 0, 11), mac());
        let expected =
            "ffffffffffff 02420a09000b 0806 0001 0800 06 04 0001 02420a09000b 0a09000b 000000000000 0a09000b";
        assert_eq!(hex(&frame), expected.replace(' ', ""));
    }

    #[test]
    fn an_advertisement_overrides_and_has_a_right_checksum() {
        let address = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 0x11);
        let frame = advertisement(address, mac());
        let (header, body) = frame.split_at(14 + 40);
        assert_eq!(hex(&header[..14]), "33330000000102420a09000b86dd");
        assert_eq!(&body[..2], [136, 0]);
        assert_eq!(body[4], 0x20);
        // The sum over a packet with its checksum is all ones.
        assert_eq!(checksum(address, ALL_NODES, body), 0);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
