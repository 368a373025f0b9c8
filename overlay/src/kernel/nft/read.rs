//! Reading our table back over netlink: the names of the chains, the comments of the rules, and the elements of the sets
//! (`linux/netfilter/nf_tables.h`).

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::super::error::Meaning;
use super::super::netns::{Netns, NetnsError};
use crate::datapath::firewall::{Family, Marks, mark};
use crate::datapath::kernel_api::Cause;

pub(super) const TABLE: &str = "overlay";
const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
pub(super) const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
pub(super) const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 4;
pub(super) const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES | 6;
pub(super) const NFT_MSG_GETRULE: u16 = NFNL_SUBSYS_NFTABLES | 7;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
const NFT_MSG_NEWSET: u16 = NFNL_SUBSYS_NFTABLES | 9;
const NFT_MSG_GETSET: u16 = NFNL_SUBSYS_NFTABLES | 10;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 13;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
/// Of a set that rules put elements into.
const NFT_SET_EVAL: u32 = 0x20;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_DATA_VALUE: u16 = 1;
/// How the names of those sets begin that `nft` makes for a rule's `{ ... }`.
const ANONYMOUS: &str = "__";
/// In a rule's user data, where `nft` keeps its comment (libnftnl `udata.h`): type, length, text and a zero.
const UDATA_COMMENT: u8 = 0;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length of `struct nfgenmsg`.
const GENMSG: usize = 4;
/// The kernel makes the parts of a dump no longer than this.
const PART: usize = 32 * 1024;

/// A netfilter-netlink socket inside a namespace, to look at our table there.
pub(in crate::kernel) struct Reader {
    socket: TokioSocket,
    sequence: u32,
    /// What is asked about, as a `NFPROTO` number.
    pub(super) protocol: u8,
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
        Ok(Self { socket, sequence: 0, protocol: NFPROTO_INET })
    }

    /// The marks of our table of a family; `None` if it is not there.
    pub(in crate::kernel) async fn marks(&mut self, family: Family) -> io::Result<Option<Marks>> {
        self.protocol = match family {
            Family::Inet => NFPROTO_INET,
            Family::Bridge => NFPROTO_BRIDGE,
        };
        match self.ask(NFT_MSG_GETTABLE, NFTA_TABLE_NAME, Ask::One).await {
            Err(error) if error.meaning() == Cause::Gone => return Ok(None),
            other => drop(other?),
        }
        let mut marks = BTreeMap::<String, Vec<String>>::new();
        for (kind, attributes) in self.ask(NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, Ask::All).await? {
            // Older kernels dump the chains of all tables.
            let is = |attribute, text: &str| attributes.get(&attribute).is_some_and(|v| text_of(v) == text);
            if kind == NFT_MSG_NEWCHAIN && is(NFTA_CHAIN_TABLE, TABLE) {
                marks.entry(attributes.get(&NFTA_CHAIN_NAME).map(|v| text_of(v)).unwrap_or_default()).or_default();
            }
        }
        for (kind, attributes) in self.ask(NFT_MSG_GETRULE, NFTA_RULE_TABLE, Ask::All).await? {
            let text = |attribute| attributes.get(&attribute).map(|v| text_of(v)).unwrap_or_default();
            if kind == NFT_MSG_NEWRULE && text(NFTA_RULE_TABLE) == TABLE {
                let comment = attributes.get(&NFTA_RULE_USERDATA).and_then(|data| comment(data)).unwrap_or_default();
                marks.entry(text(NFTA_RULE_CHAIN)).or_default().push(comment);
            }
        }
        for (name, is_filled_by_packets) in self.sets().await? {
            let mut elements = Vec::new();
            if is_filled_by_packets {
                marks.insert(format!("@{name}"), elements);
                continue;
            }
            let of = [(NFTA_SET_ELEM_LIST_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
            let parts = self.exchange(NFT_MSG_GETSETELEM, &of, Ask::All);
            for (kind, attributes) in parts.await? {
                if let (NFT_MSG_NEWSETELEM, Some(list)) = (kind, attributes.get(&NFTA_SET_ELEM_LIST_ELEMENTS)) {
                    elements.extend(element_marks(list)?);
                }
            }
            elements.sort();
            marks.insert(format!("@{name}"), elements);
        }
        Ok(Some(marks.into_iter().collect()))
    }

    /// The names of our table's sets and maps, and whether packets fill them.
    async fn sets(&mut self) -> io::Result<Vec<(String, bool)>> {
        let mut names = Vec::new();
        for (kind, attributes) in self.ask(NFT_MSG_GETSET, NFTA_SET_TABLE, Ask::All).await? {
            let text = |attribute| attributes.get(&attribute).map(|v| text_of(v)).unwrap_or_default();
            let name = text(NFTA_SET_NAME);
            if kind == NFT_MSG_NEWSET && text(NFTA_SET_TABLE) == TABLE && !name.starts_with(ANONYMOUS) {
                let flags = attributes.get(&NFTA_SET_FLAGS).and_then(|v| v.first_chunk::<4>());
                names.push((name, flags.is_some_and(|flags| u32::from_be_bytes(*flags) & NFT_SET_EVAL != 0)));
            }
        }
        Ok(names)
    }

    /// Asks about our table. The answers' types and attributes.
    async fn ask(&mut self, kind: u16, table: u16, ask: Ask) -> io::Result<Vec<(u16, Attributes)>> {
        self.exchange(kind, &[(table, TABLE)], ask).await
    }

    /// Asks for what has these attributes.
    pub(super) async fn exchange(
        &mut self,
        kind: u16,
        of: &[(u16, &str)],
        ask: Ask,
    ) -> io::Result<Vec<(u16, Attributes)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = match ask {
            Ask::One => NLM_F_REQUEST,
            Ask::All => NLM_F_REQUEST | NLM_F_DUMP,
        };
        let request = request(self.protocol, (kind, flags), self.sequence, of);
        self.socket.send_to(&request, &SocketAddr::new(0, 0)).await?;
        let mut answers = Vec::new();
        let mut part = Vec::with_capacity(PART);
        loop {
            part.clear();
            self.socket.recv(&mut part).await?;
            let mut rest = part.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
                // What is left of a question that was given up.
                if message.sequence_number() == self.sequence {
                    match message.message_type() {
                        NLMSG_DONE => return Ok(answers),
                        NLMSG_ERROR => return Err(refusal(message.payload())),
                        kind => answers.push((kind, attributes(message.payload())?)),
                    }
                }
                rest = rest.get(length..).unwrap_or_default();
            }
            if matches!(ask, Ask::One) && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Ask {
    One,
    All,
}

pub(super) type Attributes = BTreeMap<u16, Vec<u8>>;

/// A request: `nlmsghdr`, `nfgenmsg`, and attributes that are texts.
fn request(protocol: u8, (kind, flags): (u16, u16), sequence: u32, of: &[(u16, &str)]) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (attribute, text) in of {
        let length = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
        attributes.extend(length.to_ne_bytes());
        attributes.extend(attribute.to_ne_bytes());
        attributes.extend(text.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::new();
    message.extend(u32::try_from(16 + GENMSG + attributes.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([protocol, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// The marks of the elements in a list of them.
fn element_marks(list: &[u8]) -> io::Result<Vec<String>> {
    let value = |data: Option<&Vec<u8>>| -> io::Result<Vec<u8>> {
        let inner = data.map(|data| nested(data)).transpose()?;
        Ok(inner.and_then(|mut inner| inner.remove(&NFTA_DATA_VALUE)).unwrap_or_default())
    };
    NlasIterator::new(list)
        .map(|element| {
            let element = nested(element.map_err(io::Error::other)?.value())?;
            let first = value(element.get(&NFTA_SET_ELEM_KEY))?;
            let last = if element.contains_key(&NFTA_SET_ELEM_KEY_END) {
                value(element.get(&NFTA_SET_ELEM_KEY_END))?
            } else {
                first.clone()
            };
            Ok(mark(&first, &last, &value(element.get(&NFTA_SET_ELEM_DATA))?))
        })
        .collect()
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(-code)
}

fn attributes(payload: &[u8]) -> io::Result<Attributes> {
    nested(payload.get(GENMSG..).unwrap_or_default())
}

pub(super) fn nested(body: &[u8]) -> io::Result<Attributes> {
    NlasIterator::new(body)
        .map(|attribute| attribute.map(|a| (a.kind(), a.value().to_vec())).map_err(io::Error::other))
        .collect()
}

pub(super) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The comment among a rule's user data.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text_of(value));
        }
        data = next;
    }
    None
}
