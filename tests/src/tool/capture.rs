//! `labtool capture`: records what comes in on an interface as a pcap file.
//!
//! Why not tcpdump: as root of a user namespace it fails, because it insists on giving up its groups.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use serde::{Deserialize, Serialize};

const BUFFER: usize = 8 << 20;
/// Larger than any segment that offloading leaves whole.
const SNAPLEN: u32 = 1 << 18;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// What was recorded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CaptureReport {
    /// Frames in the file.
    pub frames: u64,
    /// Frames that the kernel had no room for.
    pub dropped: u32,
}

/// Records every frame that comes in on `interface` until standard input ends.
///
/// # Errors
/// When there is no such interface, or the file cannot be written.
pub fn main(interface: &str, file: &Path) -> anyhow::Result<CaptureReport> {
    let socket = listen(interface).with_context(|| format!("cannot listen on {interface}"))?;
    let mut pcap = BufWriter::new(File::create(file)?);
    write_header(&mut pcap)?;
    println!("ready");
    let stdin = io::stdin();
    let mut buffer = vec![0; SNAPLEN as usize];
    let mut frames = 0;
    let mut over = false;
    loop {
        while let Some((length, incoming)) = receive(&socket, &mut buffer)? {
            if incoming {
                write_frame(&mut pcap, buffer.get(..length).unwrap_or(&buffer))?;
                frames += 1;
            }
        }
        // Only now: what had come before the input ended is in the file.
        if over {
            pcap.flush()?;
            return Ok(CaptureReport { frames, dropped: dropped(&socket)? });
        }
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if ready[1].any() == Some(true) {
            over = stdin.lock().read(&mut [0; 64])? == 0;
        }
    }
}

/// A socket for every frame of one interface (packet(7)).
fn listen(interface: &str) -> anyhow::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    // SAFETY: plain old data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = i32::try_from(if_nametoindex(interface)?)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address is of the type that the family says, and as long as said.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// The next frame's length, and whether it came in; none if there is none now.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> anyhow::Result<Option<(usize, bool)>> {
    // SAFETY: plain old data, for which all zeroes is a value.
    let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: buffer and address are ours to write, and as long as said.
    let received = unsafe {
        let (buffer, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        libc::recvfrom(socket.as_raw_fd(), buffer, size, 0, (&raw mut from).cast(), &raw mut length)
    };
    match Errno::result(received) {
        Ok(length) => Ok(Some((usize::try_from(length)?, from.sll_pkttype != libc::PACKET_OUTGOING))),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn dropped(socket: &OwnedFd) -> anyhow::Result<u32> {
    // struct tpacket_stats: packets, drops.
    let mut statistics = [0_u32; 2];
    let mut length = libc::socklen_t::try_from(size_of_val(&statistics))?;
    // SAFETY: the kernel writes at most `length` bytes.
    Errno::result(unsafe {
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        libc::getsockopt(socket.as_raw_fd(), level, name, statistics.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(statistics[1])
}

/// draft-ietf-opsawg-pcap, section 4, in this machine's byte order.
fn write_header(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&0xa1b2_c3d4_u32.to_ne_bytes())?;
    out.write_all(&2_u16.to_ne_bytes())?;
    out.write_all(&4_u16.to_ne_bytes())?;
    for word in [0, 0, SNAPLEN, ETHERNET] {
        out.write_all(&word.to_ne_bytes())?;
    }
    Ok(())
}

fn write_frame(out: &mut impl Write, frame: &[u8]) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let length = u32::try_from(frame.len())?;
    for word in [u32::try_from(now.as_secs())?, now.subsec_micros(), length, length] {
        out.write_all(&word.to_ne_bytes())?;
    }
    Ok(out.write_all(frame)?)
}
