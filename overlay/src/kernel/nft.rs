//! Our table `inet overlay` in one namespace: written by the program `nft`, read back over netlink.
//!
//! `nft` compiles rules better than any library, and replaces a table in one transaction. What is read back is only the
//! names of the chains and the comments of the rules, so no rule's meaning has to be understood (`linux/netfilter/nf_tables.h`).

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::Meaning;
use super::netns::{Netns, NetnsError};
use crate::firewall::{Marks, Table};
use crate::report::Cause;

/// How long `nft` may take; it takes some ten milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const TABLE: &str = "overlay";
const NFPROTO_INET: u8 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 3;
const NFT_MSG_GETCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 4;
const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES | 6;
const NFT_MSG_GETRULE: u16 = NFNL_SUBSYS_NFTABLES | 7;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_USERDATA: u16 = 7;
/// In a rule's user data, where `nft` keeps its comment (libnftnl `udata.h`): type, length, text and a zero.
const UDATA_COMMENT: u8 = 0;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length of `struct nfgenmsg`.
const GENMSG: usize = 4;
/// The kernel makes the parts of a dump no longer than this.
const PART: usize = 32 * 1024;

/// Why the rules could not be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum NftError {
    #[error("the program `nft` is not here: install the package nftables")]
    Missing,
    #[error("can't run the program `nft`: see what `nft --version` says")]
    Run(#[source] io::Error),
    #[error("the program `nft` did not end within {} s and was killed", PATIENCE.as_secs())]
    Slow,
    #[error("nft says: {said}")]
    Refused { said: String },
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

impl Meaning for NftError {
    fn meaning(&self) -> Cause {
        match self {
            Self::Missing => Cause::Unsupported,
            Self::Run(error) => error.meaning(),
            Self::Slow => Cause::Busy,
            Self::Refused { .. } => Cause::Refused,
            Self::Netns(error) => error.meaning(),
        }
    }
}

/// Replaces our table in a namespace in one transaction.
pub(super) async fn replace(netns: Arc<Netns>, table: &Table) -> Result<(), NftError> {
    let script = table.script();
    bounded(async {
        // Not on a thread of the runtime: starting a program waits for the disk.
        let run = Handle::current();
        let started = spawn_blocking(move || netns.run(|| start(&run))).await;
        feed(started.map_err(|error| NftError::Run(io::Error::other(error)))???, &script).await
    })
    .await
}

/// Is the program `nft` here, and does it start?
pub(super) async fn find_program() -> Result<(), NftError> {
    let mut nft = Command::new("nft");
    nft.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    bounded(async { nft.status().await.map(drop).map_err(not_started) }).await
}

/// Gives `work` up in the end, and with it a child that it has: that is killed when dropped.
async fn bounded(work: impl Future<Output = Result<(), NftError>>) -> Result<(), NftError> {
    timeout(PATIENCE, work).await.unwrap_or(Err(NftError::Slow))
}

/// Starts `nft` in the namespace of the calling thread, to be waited for on the runtime.
fn start(runtime: &Handle) -> Result<Child, NftError> {
    let _guard = runtime.enter();
    Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)
}

async fn feed(mut nft: Child, script: &str) -> Result<(), NftError> {
    let written = match nft.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()).await,
        None => Ok(()),
    };
    let output = nft.wait_with_output().await.map_err(NftError::Run)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(NftError::Refused { said });
    }
    written.map_err(NftError::Run)
}

fn not_started(error: io::Error) -> NftError {
    if error.kind() == io::ErrorKind::NotFound { NftError::Missing } else { NftError::Run(error) }
}

/// A netfilter-netlink socket inside a namespace, to look at our table there.
pub(super) struct Reader {
    socket: TokioSocket,
    sequence: u32,
}

impl Reader {
    /// Must be called on a tokio runtime.
    pub(super) fn open(netns: &Netns) -> Result<Self, NetnsError> {
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

    /// The marks of our table; `None` if it is not there.
    pub(super) async fn marks(&mut self) -> io::Result<Option<Marks>> {
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
        Ok(Some(marks.into_iter().collect()))
    }

    /// Asks about our table. The answers' types and attributes.
    async fn ask(&mut self, kind: u16, table: u16, ask: Ask) -> io::Result<Vec<(u16, Attributes)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = match ask {
            Ask::One => NLM_F_REQUEST,
            Ask::All => NLM_F_REQUEST | NLM_F_DUMP,
        };
        let request = request(kind, flags, self.sequence, table);
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
enum Ask {
    One,
    All,
}

type Attributes = BTreeMap<u16, Vec<u8>>;

/// A request about our table: `nlmsghdr`, `nfgenmsg`, and the table's name as the attribute `table`.
fn request(kind: u16, flags: u16, sequence: u32, table: u16) -> Vec<u8> {
    let mut attribute = Vec::new();
    let length = u16::try_from(4 + TABLE.len() + 1).unwrap_or(u16::MAX);
    attribute.extend(length.to_ne_bytes());
    attribute.extend(table.to_ne_bytes());
    attribute.extend(TABLE.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend(u32::try_from(16 + GENMSG + attribute.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([NFPROTO_INET, 0, 0, 0]);
    message.extend(attribute);
    message
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(-code)
}

fn attributes(payload: &[u8]) -> io::Result<Attributes> {
    let body = payload.get(GENMSG..).unwrap_or_default();
    NlasIterator::new(body)
        .map(|attribute| attribute.map(|a| (a.kind(), a.value().to_vec())).map_err(io::Error::other))
        .collect()
}

fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The comment among a rule's user data.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text_of(value));
        }
        data = next;
    }
    None
}
