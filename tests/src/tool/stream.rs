//! `labtool stream`: one long TCP connection that never rests, and the longest time for which it stood still.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One message to and fro, then this much rest.
const REST: Duration = Duration::from_millis(10);
/// What became of the connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Messages that came back.
    pub messages: u64,
    /// The longest time that a message took to come back, in milliseconds.
    pub longest_stall_ms: u64,
    /// Whether the connection was lost.
    pub broken: bool,
}

/// Serves connections on `port` for ever: each gets back what it sends.
///
/// # Errors
/// When the port cannot be bound.
pub fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("TCP port {port}"))?;
    println!("ready");
    for connection in listener.incoming() {
        let mut connection = connection?;
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = connection.read(&mut buffer) {
                if connection.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// Talks to `to` over one connection until standard input ends. If it stands still for longer than `patience`, it counts
/// as lost.
///
/// # Errors
/// When the connection cannot be made at all.
pub fn dial(to: SocketAddr, patience: Duration) -> anyhow::Result<StreamReport> {
    let mut connection = TcpStream::connect(to).with_context(|| to.to_string())?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(patience))?;
    println!("ready");
    let stop = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::SeqCst);
        }
    });
    let mut report = StreamReport { messages: 0, longest_stall_ms: 0, broken: false };
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let mut buffer = [0; 8];
        let there = connection.write_all(&report.messages.to_be_bytes());
        match there.and_then(|()| connection.read_exact(&mut buffer)) {
            Ok(()) if u64::from_be_bytes(buffer) == report.messages => report.messages += 1,
            Ok(()) => anyhow::bail!("message {} came back as another one", report.messages),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => report.broken = true,
        }
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.longest_stall_ms = report.longest_stall_ms.max(took);
        if report.broken {
            break;
        }
        thread::sleep(REST);
    }
    Ok(report)
}
