//! DNS questions a second that a segment answers: four clients in a container, names of the network only.
//!
//! Not by dnsperf, which speaks from one address: the agent admits a thousand questions a second from each. The
//! clients here have 64 addresses each.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use overlay_tests::lab::{Container, Lab};

use crate::figure::{Figure, Unit};
use crate::netns::NetnsPath;
use crate::rounds::Lane;

const NETWORK: &str = "names";
/// Where every segment answers.
const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
const CLIENTS: usize = 4;
/// Addresses of one client, a socket each: 256 in all, so that the limit is 256,000 questions a second.
const ADDRESSES: usize = 256 / CLIENTS;
/// Questions of one client that wait for an answer: 100 in all, as dnsperf has it.
const WAITING: usize = 25;
const TIME: Duration = Duration::from_secs(2);
const LOST: Duration = Duration::from_secs(2);
const HEADER: usize = 12;

/// One lane; there is nothing on the underlay to compare it to.
pub fn lane(lab: &Lab) -> anyhow::Result<Lane> {
    lab.network(NETWORK, "10.44.0.0/16")?;
    let mut names = Vec::new();
    for host in lab.names() {
        let container = lab.reachable(&host, NETWORK, &format!("name-{host}"), "")?;
        names.extend([container.name().to_owned(), format!("{}.{NETWORK}", container.name())]);
    }
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name)).collect();
    let asker = lab.connect("h1", NETWORK, "asker", "")?;
    let sockets = sockets(lab, &asker)?;
    let figure = Figure::new(format!("DNS questions to a segment, {CLIENTS} clients"), Unit::PerSecond);
    Ok(Lane::new(figure, move || {
        let start = Instant::now();
        let answered = thread::scope(|scope| {
            let clients = sockets.chunks(ADDRESSES).map(|sockets| scope.spawn(|| ask(sockets, &questions)));
            let clients: Vec<_> = clients.collect();
            let answered = clients.into_iter().map(|client| client.join().map_err(|_| anyhow::anyhow!("died"))?);
            answered.sum::<anyhow::Result<u32>>()
        })?;
        Ok(f64::from(answered) / start.elapsed().as_secs_f64())
    }))
}

/// Gives the container more addresses, at the end of the subnet where nobody else is, and opens a socket on each.
fn sockets(lab: &Lab, container: &Container) -> anyhow::Result<Vec<UdpSocket>> {
    let addresses: Vec<Ipv4Addr> = (0..=u8::MAX).map(|last| Ipv4Addr::new(10, 44, 200, last)).collect();
    let batch: String = addresses.iter().map(|address| format!("address add {address}/32 dev eth0\n")).collect();
    container.place().feed("ip -batch -", &batch)?;
    NetnsPath::of(lab.host(container.host())?, container.netns())?.open(|| {
        let open = |address: &Ipv4Addr| {
            let socket = UdpSocket::bind((*address, 0))?;
            socket.connect((SERVER, 53))?;
            socket.set_read_timeout(Some(LOST))?;
            Ok(socket)
        };
        addresses.iter().map(open).collect()
    })
}

/// Asks for a while, from one socket after the other; how many answers came. All of them have to, and be right.
fn ask(sockets: &[UdpSocket], questions: &[Vec<u8>]) -> anyhow::Result<u32> {
    let start = Instant::now();
    let mut buffer = [0; 1500];
    let mut turns = sockets.iter().cycle().zip(questions.iter().cycle());
    // Of those that wait, the oldest is at the front: each socket has one question under way at most.
    let mut waiting = std::collections::VecDeque::with_capacity(WAITING);
    let mut answered = 0;
    while start.elapsed() < TIME || !waiting.is_empty() {
        if waiting.len() < WAITING && start.elapsed() < TIME {
            let (socket, question) = turns.next().context("no sockets")?;
            socket.send(question)?;
            waiting.push_back(socket);
        } else if let Some(socket) = waiting.pop_front() {
            let length = socket.recv(&mut buffer).context("a question was not answered")?;
            check(buffer.get(..length).unwrap_or_default())?;
            answered += 1;
        }
    }
    Ok(answered)
}

/// A question for the address of a name (RFC 1035, section 4.1).
fn question(name: &str) -> Vec<u8> {
    // Any id, recursion desired, one question.
    let mut message = vec![0x4f, 0x56, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.extend(u8::try_from(label.len()));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Whether a message is a response without error that has an answer.
fn check(message: &[u8]) -> anyhow::Result<()> {
    let header = message.get(..HEADER).context("a reply without header")?;
    let [_, _, flags, code, _, _, _, answers, ..] = *header else { anyhow::bail!("a reply without header") };
    ensure!(flags & 0x80 != 0 && code & 0x0f == 0 && answers > 0, "no answer: {header:02x?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_as_the_rfc_has_it() {
        let message = question("one.web");
        assert_eq!(message.get(HEADER..), Some(&b"\x03one\x03web\0\0\x01\0\x01"[..]));
    }

    #[test]
    fn what_is_no_answer_does_not_count() {
        let reply = |flags, code, answers| [0x4f, 0x56, flags, code, 0, 1, 0, answers, 0, 0, 0, 0];
        assert!(check(&reply(0x85, 0x80, 1)).is_ok());
        assert!(check(&reply(0x05, 0x80, 1)).is_err(), "a query");
        assert!(check(&reply(0x85, 0x85, 0)).is_err(), "refused");
        assert!(check(&reply(0x85, 0x80, 0)).is_err(), "no data");
        assert!(check(&reply(0x85, 0x80, 1)[..HEADER - 1]).is_err());
    }
}
