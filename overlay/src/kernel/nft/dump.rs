//! Questions about nftables to the kernel of one namespace, and its answers, as types of the crate `netlink-packet-netfilter`
//! (`linux/netfilter/nf_tables.h`).

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla, NlaBuffer, NlasIterator, Parseable,
};
use netlink_packet_netfilter::nftables::{ListAttribute, NfTablesMessage, NfTablesMessageType};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::super::netns::{Netns, NetnsError};

/// Length of `struct nfgenmsg`, which stands before the attributes.
const GENMSG: usize = 4;
/// The kernel makes the parts of a dump no longer than this.
const PART: usize = 32 * 1024;
/// How often a dump is asked for that changes interrupt. After that the round fails as busy, and is tried again.
const ATTEMPTS: u32 = 4;

/// A netfilter-netlink socket inside a namespace, to look at tables there.
pub(in crate::kernel) struct Reader {
    socket: TokioSocket,
    sequence: u32,
}

/// How many objects a question is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    /// One, which has to be there.
    One,
    /// All that match.
    Dump,
}

/// A message of the kernel. Its attributes are parsed by those who need them.
pub(super) struct Answer {
    pub kind: NfTablesMessageType,
    attributes: Vec<u8>,
}

/// An attribute of a message whose value is a long list. The crate's own parser of such a list prints the whole list once per
/// element, so a message is parsed without it, and the list element by element.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum List {
    /// `NFTA_RULE_EXPRESSIONS`
    Expressions = 4,
    /// `NFTA_SET_ELEM_LIST_ELEMENTS`
    Elements = 3,
}

impl Reader {
    /// Must be called on a tokio runtime.
    pub(in crate::kernel) fn open(netns: &Netns) -> Result<Self, NetnsError> {
        let runtime = tokio::runtime::Handle::current();
        let made = netns.run(|| {
            let _guard = runtime.enter();
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            Ok(socket)
        })?;
        let socket = made.map_err(|source| NetnsError::Refused { path: netns.path().to_owned(), source })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks about the tables of a family. A dump during which another program changes them may leave something out, and is asked for
    /// again (`NLM_F_DUMP_INTR`, `linux/netlink.h`).
    pub(super) async fn ask(
        &mut self,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
        query: Query,
    ) -> io::Result<Vec<Answer>> {
        for _ in 1..ATTEMPTS {
            match self.ask_once(family, question.clone(), query).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answers => return answers,
            }
        }
        self.ask_once(family, question, query).await
    }

    async fn ask_once(
        &mut self,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
        query: Query,
    ) -> io::Result<Vec<Answer>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(family, question, query, self.sequence);
        self.socket.send_to(&request, &SocketAddr::new(0, 0)).await?;
        let mut answers = Vec::new();
        let mut is_interrupted = false;
        let mut part = Vec::with_capacity(PART);
        loop {
            part.clear();
            self.socket.recv(&mut part).await?;
            let mut rest = part.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
                // An answer to a question that was given up has another number.
                if message.sequence_number() == self.sequence {
                    is_interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                    match message.message_type() {
                        NLMSG_DONE if is_interrupted => return Err(io::ErrorKind::Interrupted.into()),
                        NLMSG_DONE => return Ok(answers),
                        NLMSG_ERROR => return Err(refusal(message.payload())),
                        kind => answers.push(Answer::of(kind, message.payload())),
                    }
                }
                rest = rest.get(length..).unwrap_or_default();
            }
            if query == Query::One && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

impl Answer {
    pub(super) fn of(message_type: u16, payload: &[u8]) -> Self {
        // The upper byte is the subsystem: a socket is told of nothing but what it has asked.
        let [_, kind] = message_type.to_be_bytes();
        Self { kind: kind.into(), attributes: payload.get(GENMSG..).unwrap_or_default().to_vec() }
    }

    /// All attributes of a message without a long list.
    pub(super) fn all<A>(&self) -> Result<Vec<A>, DecodeError>
    where
        A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
    {
        NlasIterator::new(self.attributes.as_slice()).map(|nla| A::parse(&nla?)).collect()
    }

    /// All attributes but the list.
    pub(super) fn besides<A>(&self, list: List) -> Result<Vec<A>, DecodeError>
    where
        A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
    {
        let is_other = |nla: &Result<NlaBuffer<&[u8]>, DecodeError>| !nla.as_ref().is_ok_and(|nla| list.is(nla));
        NlasIterator::new(self.attributes.as_slice()).filter(is_other).map(|nla| A::parse(&nla?)).collect()
    }

    /// The elements of the list, each with its own attributes.
    pub(super) fn list<A>(&self, list: List) -> Result<Vec<Vec<A>>, DecodeError>
    where
        ListAttribute<A>: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
    {
        let mut elements = Vec::new();
        for nla in NlasIterator::new(self.attributes.as_slice()) {
            let nla = nla?;
            for element in NlasIterator::new(nla.value()).take_while(|_| list.is(&nla)) {
                if let ListAttribute::Element(attributes) = ListAttribute::parse(&element?)? {
                    elements.push(attributes);
                }
            }
        }
        Ok(elements)
    }
}

impl List {
    fn is(self, attribute: &NlaBuffer<&[u8]>) -> bool {
        attribute.kind() == self as u16
    }
}

/// The bytes of an attribute for which the crate has no type.
pub(super) fn value_of(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// A text that may be followed by zeros.
pub(super) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn request(family: NetfilterProtoFamily, question: NfTablesMessage, query: Query, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.sequence_number = sequence;
    header.flags = match query {
        Query::One => NLM_F_REQUEST,
        Query::Dump => NLM_F_REQUEST | NLM_F_DUMP,
    };
    let body = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), question);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(body));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(-code)
}

#[cfg(test)]
mod tests;
