//! SCTP as far as it takes to see whether an association is let in: INIT and INIT ACK (RFC 9260, section 5.1), over raw sockets, since
//! few kernels have SCTP itself.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::libc;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// A parameter of INIT ACK that the other side only gives back.
const STATE_COOKIE: u16 = 7;
/// Ports, verification tag, checksum.
const HEADER: usize = 12;
/// Type, flags, length, tag, window, streams both ways, first number.
const CHUNK: usize = 20;
/// An INIT without an answer is sent again after this time, as an SCTP does that was told to hurry.
const RESEND: Duration = Duration::from_millis(200);

/// Answers `NAME ADDRESS` to each INIT for a port, for ever.
///
/// # Errors
/// When there is no raw socket to be had.
pub fn doorman(name: &str, port: u16) -> anyhow::Result<()> {
    let socket = raw()?;
    println!("ready");
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let Some(packet) = payload(buffer.get(..length).unwrap_or_default()) else { continue };
        let Some(init) = Packet::read(packet).filter(|p| p.kind == INIT && p.to == port) else { continue };
        let cookie = format!("{name} {}", from.ip());
        let answer = Packet { kind: INIT_ACK, from: port, to: init.from, verification: init.tag, tag: 1, cookie };
        // Whoever does not get it asks again.
        _ = socket.send_to(&answer.bytes(), from);
    }
}

/// Asks such a doorman.
///
/// # Errors
/// When nobody answers in time.
pub fn visit(to: SocketAddr, from: u16, within: Duration) -> anyhow::Result<String> {
    let SocketAddr::V4(to) = to else { bail!("SCTP is asked under IPv4 only") };
    let socket = raw()?;
    let from = if from == 0 { 1024 + u16::try_from(std::process::id() % 60_000)? } else { from };
    let tag = std::process::id().max(1);
    let init = Packet { kind: INIT, from, to: to.port(), verification: 0, tag, cookie: String::new() };
    let began = Instant::now();
    let mut buffer = [0; 2048];
    let mut sent: Option<Instant> = None;
    while let Some(left) = within.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        if sent.is_none_or(|sent| sent.elapsed() >= RESEND) {
            socket.send_to(&init.bytes(), SocketAddrV4::new(*to.ip(), 0))?;
            sent = Some(Instant::now());
        }
        socket.set_read_timeout(Some(left.min(RESEND)))?;
        let (length, sender) = match socket.recv_from(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            received => received.context("no answer")?,
        };
        let packet = payload(buffer.get(..length).unwrap_or_default()).and_then(Packet::read);
        let Some(packet) = packet.filter(|p| p.kind == INIT_ACK && p.to == from) else { continue };
        ensure!(sender.ip() == *to.ip() && packet.from == to.port(), "{sender} port {} answers", packet.from);
        ensure!(packet.verification == tag, "it answers somebody else");
        return Ok(packet.cookie);
    }
    bail!("no answer")
}

/// A raw socket for SCTP. The standard library has no type for it, but that for UDP makes the same calls.
fn raw() -> anyhow::Result<UdpSocket> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("a raw socket for SCTP");
    }
    // SAFETY: it was just opened, and is nobody else's.
    Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// What is behind the IPv4 header (RFC 791, section 3.1).
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let words = usize::from(packet.first()? & 0x0f);
    packet.get(4 * words..)
}

/// A packet with one chunk.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    kind: u8,
    from: u16,
    to: u16,
    verification: u32,
    tag: u32,
    cookie: String,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let cookie = self.cookie.as_bytes();
        let parameter = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
        let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.verification.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind, 0]);
        bytes.extend(length(CHUNK + parameter));
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend(65_536_u32.to_be_bytes());
        bytes.extend([0, 1, 0, 1]);
        bytes.extend(self.tag.to_be_bytes());
        if parameter > 0 {
            bytes.extend(STATE_COOKIE.to_be_bytes());
            bytes.extend(length(parameter));
            bytes.extend(cookie);
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        // The one field of SCTP that is little-endian (RFC 9260, appendix A).
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    /// `None` for what is no INIT and no INIT ACK, or has a wrong checksum.
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut plain = bytes.to_vec();
        plain.get_mut(8..12)?.fill(0);
        if crc32c(&plain).to_le_bytes() != bytes.get(8..12)? {
            return None;
        }
        let kind = *bytes.get(HEADER)?;
        let length = usize::from(half(HEADER + 2)?);
        let cookie = bytes.get(HEADER + CHUNK + 4..HEADER + length).unwrap_or_default();
        let cookie = String::from_utf8_lossy(cookie).into_owned();
        let packet =
            Self { kind, from: half(0)?, to: half(2)?, verification: word(4)?, tag: word(HEADER + 4)?, cookie };
        [INIT, INIT_ACK].contains(&kind).then_some(packet)
    }
}

/// CRC32c (RFC 3385), a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, and 32 of ones.
        assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
    }

    #[test]
    fn what_is_written_is_read() {
        for cookie in ["", "web 192.0.2.254"] {
            let (kind, cookie) = (INIT_ACK, cookie.to_owned());
            let packet = Packet { kind, from: 9000, to: 1024, verification: 7, tag: 8, cookie };
            let mut bytes = packet.bytes();
            assert_eq!(Packet::read(&bytes), Some(packet));
            bytes[14] ^= 1;
            assert_eq!(Packet::read(&bytes), None);
        }
        assert_eq!(payload(&[0x45; 20]), Some([].as_slice()));
        assert_eq!(payload(&[0x45; 2]), None);
    }
}
