//! ICMP echoes (RFC 792) from a container, a thousand a second, until the first one is answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::netns::NetnsPath;

const EACH: Duration = Duration::from_millis(1);
/// Type, code, checksum, identifier and sequence number of an echo request. There is one at a time in a container,
/// so these can be constant; so is the checksum, of all that is not it.
const REQUEST: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
/// The type of an echo reply.
const REPLY: u8 = 0;

/// When the first reply from `to` came.
pub fn first_reply(container: &NetnsPath, to: Ipv4Addr, within: Duration) -> anyhow::Result<Instant> {
    let socket = container.open(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
        // The standard library has no raw sockets; once connected, they are used in the same way.
        let socket = UdpSocket::from(raw);
        socket.connect((to, 0))?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(EACH))?;
    let start = Instant::now();
    loop {
        ensure!(start.elapsed() < within, "no reply from {to} within {within:?}");
        // It may fail for as long as there is no route or neighbour.
        _ = socket.send(&REQUEST);
        let mut packet = [0; 128];
        match socket.recv(&mut packet) {
            Ok(length) if is_reply(packet.get(..length).unwrap_or_default()) => return Ok(Instant::now()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // ICMP errors show up here: unreachable, as yet.
            Err(_) => overlay_tests::eventually::pass(EACH),
        }
    }
}

/// Whether a packet, IPv4 header and all, is an echo reply.
fn is_reply(packet: &[u8]) -> bool {
    let header = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    header >= 20 && packet.get(header) == Some(&REPLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_internet_checksum() {
        let words = REQUEST.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)));
        assert_eq!(words.sum::<u32>(), 0xffff, "RFC 1071: the sum of all words, in ones' complement");
    }

    #[test]
    fn only_an_echo_reply_is_one() {
        let packet = |kind| [&[0x45][..], &[0; 19], &[kind, 0, 0xff, 0xff, 0, 0, 0, 0]].concat();
        assert!(is_reply(&packet(0)));
        assert!(!is_reply(&packet(3)), "destination unreachable");
        assert!(!is_reply(&packet(8)), "a request");
        assert!(!is_reply(&[]) && !is_reply(&[0x45; 20]));
    }
}
