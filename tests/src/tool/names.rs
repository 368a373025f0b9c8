//! `labtool names`: a nameserver of the lab's internet, with a manner of its own and one answer for every A question.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How the nameserver behaves. All but those that say otherwise answer by TCP as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Manner {
    /// Answers each name, whatever it is.
    Plain,
    /// Takes a second and a half for each answer.
    Slow,
    /// Repeats the question in lower case.
    LowerCase,
    /// Answers each question twice.
    Twice,
    /// Has 60 addresses for each name, more than fit into a datagram.
    Large,
    /// Gives one address by UDP and says that there are more, but can't be reached by TCP.
    CutTcpShut,
    /// The same, but takes connections and says nothing.
    CutTcpSilent,
    /// Leads over three other names to the address.
    Chain,
    /// Knows addresses of IPv4, and says of the same names that they don't exist when IPv6 is asked for.
    NoSuchNameForAaaa,
    /// Finds fault with questions that have EDNS, without repeating them.
    NoEdns,
    /// Finds fault with all questions.
    FormErr,
    /// Refuses all questions.
    Refuses,
    /// Fails to answer any.
    Fails,
    /// Knows no name, and says for how long that is to be remembered.
    KnowsNothing,
    /// Says nothing.
    Silent,
}

const SLOW: Duration = Duration::from_millis(1_500);
const MANY: u8 = 60;
/// What a datagram may have without EDNS, in bytes (RFC 1035, section 4.2.1).
const PLAIN_DATAGRAM: usize = 512;
const TTL: u32 = 60;

/// Answers at port 53 of `listen`, for ever.
///
/// # Errors
/// When the port cannot be bound.
pub fn main(listen: Ipv4Addr, answer: Ipv4Addr, manner: Manner) -> anyhow::Result<()> {
    let udp = Arc::new(UdpSocket::bind((listen, 53)).with_context(|| format!("UDP port 53 of {listen}"))?);
    if manner != Manner::CutTcpShut {
        let tcp = TcpListener::bind((listen, 53)).with_context(|| format!("TCP port 53 of {listen}"))?;
        thread::spawn(move || serve_tcp(&tcp, answer, manner));
    }
    println!("ready");
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = udp.recv_from(&mut buffer)?;
        let Some(replies) = buffer.get(..length).and_then(|query| replies(query, answer, manner)) else { continue };
        let udp = Arc::clone(&udp);
        let send = move || {
            if manner == Manner::Slow {
                thread::sleep(SLOW);
            }
            replies.iter().for_each(|reply| drop(udp.send_to(reply, from)));
        };
        thread::spawn(send);
    }
}

fn serve_tcp(listener: &TcpListener, answer: Ipv4Addr, manner: Manner) {
    let mut silent = Vec::new();
    for stream in listener.incoming().flatten() {
        if manner == Manner::CutTcpSilent {
            silent.push(stream);
        } else {
            thread::spawn(move || converse(stream, answer, manner));
        }
    }
}

/// One question after the other, each with its length in front (RFC 1035, section 4.2.2).
fn converse(mut stream: TcpStream, answer: Ipv4Addr, manner: Manner) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let reply = reply(&question(&query)?, answer, manner)?.to_vec().ok()?;
        stream
            .write_all(&u16::try_from(reply.len()).ok()?.to_be_bytes())
            .and_then(|()| stream.write_all(&reply))
            .ok()?;
    }
}

/// The datagrams that answer a query; none if it is not a query with one question.
fn replies(query: &[u8], answer: Ipv4Addr, manner: Manner) -> Option<Vec<Vec<u8>>> {
    let query = question(query)?;
    let mut reply = reply(&query, answer, manner)?;
    reply.metadata.truncation |=
        matches!(manner, Manner::CutTcpShut | Manner::CutTcpSilent) && !reply.answers.is_empty();
    let room = query.edns.as_ref().map_or(PLAIN_DATAGRAM, |edns| usize::from(edns.max_payload()));
    let mut bytes = reply.to_vec().ok()?;
    while bytes.len() > room {
        reply.metadata.truncation = true;
        reply.answers.pop()?;
        bytes = reply.to_vec().ok()?;
    }
    Some(vec![bytes; if manner == Manner::Twice { 2 } else { 1 }])
}

fn question(bytes: &[u8]) -> Option<Message> {
    let query = Message::from_vec(bytes).ok()?;
    (query.message_type == MessageType::Query && query.queries.len() == 1).then_some(query)
}

/// The whole answer to a query; `None` from a nameserver that says nothing.
fn reply(query: &Message, answer: Ipv4Addr, manner: Manner) -> Option<Message> {
    let asked = query.queries.first()?;
    let mut reply = Message::response(query.id, query.op_code);
    reply.metadata.recursion_desired = query.recursion_desired;
    reply.metadata.recursion_available = true;
    let is_lower = manner == Manner::LowerCase;
    let name = if is_lower { asked.name.to_lowercase() } else { asked.name.clone() };
    let a = asked.query_type == RecordType::A;
    let code = match manner {
        Manner::Silent => return None,
        Manner::NoEdns if query.edns.is_some() => {
            reply.metadata.response_code = ResponseCode::FormErr;
            return Some(reply);
        }
        Manner::NoSuchNameForAaaa if asked.query_type == RecordType::AAAA => ResponseCode::NXDomain,
        Manner::KnowsNothing => ResponseCode::NXDomain,
        Manner::FormErr => ResponseCode::FormErr,
        Manner::Refuses => ResponseCode::Refused,
        Manner::Fails => ResponseCode::ServFail,
        Manner::Plain
        | Manner::Slow
        | Manner::LowerCase
        | Manner::Twice
        | Manner::Large
        | Manner::CutTcpShut
        | Manner::CutTcpSilent
        | Manner::Chain
        | Manner::NoSuchNameForAaaa
        | Manner::NoEdns => ResponseCode::NoError,
    };
    reply.metadata.response_code = code;
    let mut question = asked.clone();
    question.name = name.clone();
    reply.add_query(question);
    match code {
        ResponseCode::NoError if a => reply.answers = answers(name, answer, manner),
        ResponseCode::NXDomain => drop(reply.add_authority(start_of_authority())),
        _ => {}
    }
    Some(reply)
}

fn answers(name: Name, answer: Ipv4Addr, manner: Manner) -> Vec<Record> {
    let address = |name: &Name, address| Record::from_rdata(name.clone(), TTL, RData::A(A(address)));
    match manner {
        Manner::Large => {
            let [a, b, c, _] = answer.octets();
            (1..=MANY).map(|last| address(&name, Ipv4Addr::new(a, b, c, last))).collect()
        }
        Manner::Chain => {
            let mut all = Vec::new();
            let mut from = name;
            for to in ["one.chain.test.", "two.chain.test.", "three.chain.test."] {
                let to: Name = to.parse().unwrap_or_default();
                all.push(Record::from_rdata(from, TTL, RData::CNAME(CNAME(to.clone()))));
                from = to;
            }
            all.push(address(&from, answer));
            all
        }
        _ => vec![address(&name, answer)],
    }
}

fn start_of_authority() -> Record {
    let day = 86_400;
    Record::from_rdata(Name::root(), day, RData::SOA(SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, day)))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    fn query(kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query("Example.org.".parse().expect("a name"), kind));
        query
    }

    fn told(kind: RecordType, manner: Manner) -> Option<Message> {
        let bytes = query(kind).to_vec().expect("it is a message");
        let replies = replies(&bytes, Ipv4Addr::new(198, 51, 100, 1), manner)?;
        Some(Message::from_vec(replies.first()?).expect("it is a message"))
    }

    #[test]
    fn an_a_question_gets_the_answer_and_junk_gets_none() {
        let told = told(RecordType::A, Manner::Plain).expect("a reply");
        assert_eq!(told.answers.len(), 1);
        assert_eq!(replies(b"rubbish", Ipv4Addr::LOCALHOST, Manner::Plain), None);
        let response = told.to_vec().expect("it is a message");
        assert_eq!(replies(&response, Ipv4Addr::LOCALHOST, Manner::Plain), None);
    }

    #[test]
    fn each_manner_is_what_it_says() {
        let code =
            |kind, manner| told(kind, manner).map(|told| (told.response_code, told.answers.len(), told.truncation));
        assert_eq!(code(RecordType::A, Manner::CutTcpShut), Some((ResponseCode::NoError, 1, true)));
        let large = code(RecordType::A, Manner::Large).expect("a reply");
        assert!(large.2 && (25..60).contains(&large.1), "{large:?}");
        assert_eq!(code(RecordType::A, Manner::Chain), Some((ResponseCode::NoError, 4, false)));
        assert_eq!(code(RecordType::AAAA, Manner::NoSuchNameForAaaa), Some((ResponseCode::NXDomain, 0, false)));
        assert_eq!(code(RecordType::A, Manner::NoSuchNameForAaaa), Some((ResponseCode::NoError, 1, false)));
        assert_eq!(code(RecordType::A, Manner::Silent), None);
        let lower = told(RecordType::A, Manner::LowerCase).expect("a reply");
        assert_eq!(lower.queries[0].name.to_string(), "example.org.");
    }
}
