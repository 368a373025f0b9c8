//! `labtool flow`: numbered UDP packets at a fixed rate to an echo, and exactly how many of them came back.

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

/// How long after the last packet an echo may still come.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// A sender that was kept off the CPU catches up with at most this many packets at once: a burst that overruns a
/// socket buffer would be a loss made by the tool.
const CATCH_UP: u32 = 20;
const BUFFER: usize = 4 << 20;

/// What became of the packets of one flow.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets of which the echo came back at least once.
    pub received: u64,
    /// `sent - received`.
    pub lost: u64,
    /// Echoes beyond the first of a packet.
    pub doubled: u64,
    /// Packets that the kernel refused to send; they count as lost too.
    pub refused: u64,
    /// First and last number of each run of lost packets.
    pub gaps: Vec<(u64, u64)>,
    /// Median round trip, in microseconds.
    pub rtt_p50_us: u64,
    /// 99th percentile of the round trip, in microseconds.
    pub rtt_p99_us: u64,
}

/// Sends back whatever comes to `port`, for ever.
///
/// # Errors
/// When the port cannot be bound.
pub fn echo(port: u16) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port)).with_context(|| format!("UDP port {port}"))?;
    widen(&socket)?;
    println!("ready");
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // The way back may be broken for a moment: that is what the other side counts.
        _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
    }
}

/// Sends `rate` packets a second to `to` until standard input ends, waits for stragglers and reports.
///
/// # Errors
/// When no socket can be made or a thread of the tool died.
pub fn send(to: SocketAddr, rate: u32) -> anyhow::Result<FlowReport> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    widen(&socket)?;
    let (stop, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let sender = thread::spawn({
        let (socket, stop) = (socket.try_clone()?, Arc::clone(&stop));
        move || pump(&socket, to, rate, start, &stop)
    });
    let receiver = thread::spawn({
        let socket = socket.try_clone()?;
        move || collect(&socket, start)
    });
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;

    stop.store(true, Ordering::SeqCst);
    let lost_thread = |_| anyhow::anyhow!("a thread of the flow died");
    let (sent_at, refused) = sender.join().map_err(lost_thread)?;
    // The receiver waits for the stragglers, then sees the end in its time-out.
    let arrivals = receiver.join().map_err(lost_thread)??;
    Ok(report(&sent_at, refused, &arrivals))
}

fn pump(socket: &UdpSocket, to: SocketAddr, rate: u32, start: Instant, stop: &AtomicBool) -> (Vec<Duration>, u64) {
    let interval = Duration::from_secs(1) / rate.max(1);
    let (mut sent_at, mut refused) = (Vec::new(), 0);
    let mut next = start.elapsed();
    while !stop.load(Ordering::SeqCst) {
        let now = start.elapsed();
        if now < next {
            thread::sleep(next - now);
            continue;
        }
        let number = sent_at.len() as u64;
        sent_at.push(now);
        if socket.send_to(&number.to_be_bytes(), to).is_err() {
            refused += 1;
        }
        next = (next + interval).max(now.saturating_sub(interval * CATCH_UP));
    }
    (sent_at, refused)
}

/// Numbers and times of all echoes, until none has come for the time of the stragglers.
fn collect(socket: &UdpSocket, start: Instant) -> anyhow::Result<Vec<(u64, Duration)>> {
    socket.set_read_timeout(Some(STRAGGLERS))?;
    let mut arrivals = Vec::new();
    let mut buffer = [0; 8];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((8, _)) => arrivals.push((u64::from_be_bytes(buffer), start.elapsed())),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(arrivals),
            // ICMP errors show up here; the packet that they are about is missing anyway.
            Err(_) => {}
        }
    }
}

fn report(sent_at: &[Duration], refused: u64, arrivals: &[(u64, Duration)]) -> FlowReport {
    let mut seen = vec![false; sent_at.len()];
    let (mut doubled, mut round_trips) = (0, Vec::new());
    for &(number, at) in arrivals {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let (Some(seen), Some(sent)) = (seen.get_mut(index), sent_at.get(index)) else { continue };
        if *seen {
            doubled += 1;
            continue;
        }
        *seen = true;
        round_trips.push(u64::try_from(at.saturating_sub(*sent).as_micros()).unwrap_or(u64::MAX));
    }
    round_trips.sort_unstable();
    let percentile = |p: usize| round_trips.get(round_trips.len() * p / 100).copied().unwrap_or(0);
    let (sent, received) = (sent_at.len() as u64, round_trips.len() as u64);
    FlowReport {
        sent,
        received,
        lost: sent - received,
        doubled,
        refused,
        gaps: gaps(&seen),
        rtt_p50_us: percentile(50),
        rtt_p99_us: percentile(99),
    }
}

fn gaps(seen: &[bool]) -> Vec<(u64, u64)> {
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for (number, _) in (0..).zip(seen).filter(|(_, seen)| !**seen) {
        match gaps.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => gaps.push((number, number)),
        }
    }
    gaps
}

/// A large receive buffer, past the system's limit if the user may.
fn widen(socket: &UdpSocket) -> anyhow::Result<()> {
    let fd = socket.as_fd();
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
