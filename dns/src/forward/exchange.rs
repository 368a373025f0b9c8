//! One question, put to one nameserver until it answers.
//!
//! There is one UDP socket with a port that the kernel draws, and one random id, for all sendings: an answer to an earlier sending
//! counts as well. It counts only if it comes from the address asked, with that id and that question (RFC 5452, section 9). Names have
//! no case (RFC 4343), and some nameservers repeat the question in lower case.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::ProtoError;
use hickory_proto::op::{Header, Message, MessageType, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Config;
use crate::tcp;

/// More than any nameserver sends by UDP, whatever it was told (RFC 6891, section 6.2.5).
const MAX_DATAGRAM: usize = 4096;

/// A question and how to ask it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub query: Message,
    /// Never by UDP.
    pub tcp_only: bool,
    pub config: Arc<Config>,
}

/// What a nameserver made of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer.
    Final(Message),
    /// It could not or would not say.
    Excuse(Message),
    /// It can't be reached.
    Failed,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the question can't be written")]
    Unwritable(#[from] ProtoError),
    #[error("the connection was closed before the answer")]
    Closed,
    #[error("the answer was cut to nothing, and can't be had whole")]
    Cut,
}

impl Exchange {
    /// Asks the nameserver; waits for its answer without end.
    pub(super) async fn with(self: Arc<Self>, server: SocketAddr) -> Outcome {
        let answer = match self.ask(server, &self.query).await {
            // It does not know EDNS, and so refuses questions that have it (RFC 6891, section 7).
            Ok(answer) if self.query.edns.is_some() && is_without_edns(&answer) => {
                self.ask(server, &without_edns(&self.query)).await
            }
            first => first,
        };
        match answer {
            Ok(answer) if is_excuse(answer.response_code) || is_lame(&answer) => Outcome::Excuse(answer),
            Ok(answer) => Outcome::Final(answer),
            Err(_) => Outcome::Failed,
        }
    }

    async fn ask(&self, server: SocketAddr, query: &Message) -> Result<Message, AskError> {
        if self.tcp_only {
            return ask_by_tcp(server, query).await;
        }
        let answer = self.ask_by_udp(server, query).await?;
        if !answer.truncation {
            return Ok(answer);
        }
        let has_nothing = answer.answers.is_empty();
        let limit = if has_nothing { self.config.patience } else { self.config.tcp };
        match timeout(limit, ask_by_tcp(server, query)).await {
            Ok(Ok(whole)) if !is_excuse(whole.response_code) => Ok(whole),
            _ if has_nothing => Err(AskError::Cut),
            // What has come is better than nothing, and says itself that it is cut.
            _ => Ok(answer),
        }
    }

    async fn ask_by_udp(&self, server: SocketAddr, query: &Message) -> Result<Message, AskError> {
        let query = renewed(query);
        let bytes = query.to_vec()?;
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Port 0: the kernel draws one at random. Connected: the kernel drops what others send, and tells if the port is shut.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        loop {
            socket.send(&bytes).await?;
            if let Ok(answer) = timeout(self.config.resend, answer_by_udp(&socket, &query)).await {
                return Ok(answer?);
            }
        }
    }
}

async fn answer_by_udp(socket: &UdpSocket, query: &Message) -> io::Result<Message> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).and_then(|bytes| answer_to(query, bytes)) {
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &Message) -> Result<Message, AskError> {
    let query = renewed(query);
    let mut stream = TcpStream::connect(server).await?;
    tcp::write(&mut stream, &query.to_vec()?).await?;
    while let Some(bytes) = tcp::read(&mut stream).await? {
        if let Some(answer) = answer_to(&query, &bytes) {
            return Ok(answer);
        }
    }
    Err(AskError::Closed)
}

fn renewed(query: &Message) -> Message {
    let mut renewed = query.clone();
    // hickory draws the id of a new query from the thread's generator, a CSPRNG.
    renewed.metadata.id = Message::query().id;
    renewed
}

fn without_edns(query: &Message) -> Message {
    let mut plain = query.clone();
    plain.edns = None;
    plain
}

/// The message if it answers the query. Of one that can't be read, its header is the answer.
fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let Ok(answer) = Message::from_vec(bytes) else { return unreadable_answer_to(query, bytes) };
    let same =
        |(a, q): (&Query, &Query)| a.query_type == q.query_type && a.query_class == q.query_class && a.name == q.name;
    // A nameserver that refuses a question need not repeat it.
    let repeats = answer.queries.len() == query.queries.len() && answer.queries.iter().zip(&query.queries).all(same);
    let refuses = answer.queries.is_empty() && is_excuse(answer.response_code);
    let fits = answer.id == query.id && answer.message_type == MessageType::Response && (repeats || refuses);
    fits.then_some(answer)
}

/// An answer that is cut in the middle of a record is cut; any other that can't be read is of no use.
fn unreadable_answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let header = Header::read(&mut BinDecoder::new(bytes)).ok()?.metadata;
    let is_answer = header.id == query.id && header.message_type == MessageType::Response;
    let mut answer = Message::response(query.id, query.op_code);
    answer.metadata.truncation = header.truncation;
    answer.metadata.response_code = if header.truncation { ResponseCode::NoError } else { ResponseCode::ServFail };
    answer.add_queries(query.queries.iter().cloned());
    is_answer.then_some(answer)
}

/// It neither knows the name nor asks others for it: the C library asks the next one then.
fn is_lame(answer: &Message) -> bool {
    answer.response_code == ResponseCode::NoError
        && !answer.truncation
        && !answer.authoritative
        && !answer.recursion_available
        && answer.answers.is_empty()
        && answer.additionals.is_empty()
}

/// The nameserver could not or would not say: another one may.
fn is_excuse(code: ResponseCode) -> bool {
    use ResponseCode::{FormErr, NotImp, Refused, ServFail};
    [FormErr, NotImp, Refused, ServFail].contains(&code)
}

fn is_without_edns(answer: &Message) -> bool {
    answer.edns.is_none() && [ResponseCode::FormErr, ResponseCode::NotImp].contains(&answer.response_code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_question_has_an_id_of_its_own() {
        let query = Message::query();
        let ids: BTreeSet<u16> = (0..100).map(|_| renewed(&query).id).collect();
        assert!(ids.len() > 90, "{ids:?}");
    }
}
