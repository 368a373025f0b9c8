//! `labtool names`: a name server of the lab's internet, with one answer for every A question.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Context;

const HEADER: usize = 12;
const TYPE_A: [u8; 4] = [0, 1, 0, 1];

/// Answers every A question that comes to UDP port 53 of `listen` with `answer`, for ever; others get no data.
///
/// # Errors
/// When the port cannot be bound.
pub fn main(listen: Ipv4Addr, answer: Ipv4Addr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((listen, 53)).with_context(|| format!("UDP port 53 of {listen}"))?;
    println!("ready");
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(reply) = reply(buffer.get(..length).unwrap_or_default(), answer) {
            _ = socket.send_to(&reply, from);
        }
    }
}

/// The answer to one query (RFC 1035, section 4); none if it is not a query with one question.
fn reply(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let header = query.get(..HEADER)?;
    if header.get(2)? & 0x80 != 0 || header.get(4..6)? != [0, 1] {
        return None;
    }
    let name = query.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let end = HEADER + name + 1 + TYPE_A.len();
    let question = query.get(HEADER..end)?;
    let known = question.ends_with(&TYPE_A);
    let mut reply = Vec::from(header.get(..2)?);
    // A response, authoritative; recursion as asked and available; one question, perhaps one answer.
    reply.extend([0x84 | (header.get(2)? & 1), 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    reply.extend(question);
    if known {
        // The name by pointer, A, IN, TTL 60, four octets.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_a_question_gets_the_answer_and_junk_gets_none() {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x07example\x03org\0\0\x01\0\x01");
        let answer = reply(&query, Ipv4Addr::new(198, 51, 100, 1)).expect("a reply");
        assert_eq!(answer.get(..4), Some(&[0xab, 0xcd, 0x85, 0x80][..]));
        assert!(answer.ends_with(&[198, 51, 100, 1]));
        for junk in [&query[..5], &query[..20], &answer[..]] {
            assert_eq!(reply(junk, Ipv4Addr::LOCALHOST), None);
        }
    }
}
