//! `labtool doorman` and `labtool visit`: a server that answers each client, by TCP and UDP, with its own name and the address
//! that it sees the client at; and that client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

/// Answers `NAME ADDRESS` on a port, for ever.
///
/// # Errors
/// When the port cannot be bound.
pub fn doorman(name: &str, port: u16) -> anyhow::Result<()> {
    // Under both versions of IP.
    let tcp = TcpListener::bind(("::", port)).with_context(|| format!("TCP port {port}"))?;
    let udp = UdpSocket::bind(("::", port)).with_context(|| format!("UDP port {port}"))?;
    println!("ready");
    let spoken = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            // Whoever does not get it asks again.
            _ = udp.send_to(format!("{spoken} {}", from.ip().to_canonical()).as_bytes(), from);
        }
    });
    for client in tcp.incoming() {
        let mut client = client?;
        let from = client.peer_addr()?;
        _ = client.write_all(format!("{name} {}", from.ip().to_canonical()).as_bytes());
    }
    Ok(())
}

/// Asks a doorman, from a port of its own or from any.
///
/// # Errors
/// When nobody answers in time.
pub fn visit(protocol: &str, to: SocketAddr, from: u16, within: Duration) -> anyhow::Result<String> {
    let mut answer = vec![0; 128];
    let length = match protocol {
        "tcp" => {
            let mut stream = TcpStream::connect_timeout(&to, within)?;
            stream.set_read_timeout(Some(within))?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            answer = all;
            answer.len()
        }
        "udp" => {
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            let socket = UdpSocket::bind((any, from))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(within))?;
            socket.send(b"?")?;
            socket.recv(&mut answer)?
        }
        "sctp" => return super::sctp::visit(to, from, within),
        other => bail!("no protocol {other}"),
    };
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}
