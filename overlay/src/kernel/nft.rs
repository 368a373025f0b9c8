//! Our tables `overlay` in one namespace, and our rules in chains of others: written by the program `nft`, read back over netlink.
//!
//! `nft` compiles rules better than any library, and replaces a table in one transaction. What is read back is no rule's meaning,
//! only what shows that all is as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::Meaning;
use super::netns::{Netns, NetnsError};
use crate::datapath::firewall::{Family, Set, Table};
use crate::datapath::foreign_chains::{AcceptRule, ChainName};
use crate::datapath::kernel_api::Cause;

mod dump;
mod foreign;
mod foreign_rule;
mod read;

pub(in crate::kernel) use dump::Reader;

/// How long `nft` may take; it takes some ten milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the rules could not be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum NftError {
    #[error("the program `nft` is not here: install the package nftables")]
    Missing,
    #[error("can't run the program `nft`: see what `nft --version` says")]
    Run(#[source] io::Error),
    #[error("the program `nft` did not end within {} s and was killed", TIMEOUT.as_secs())]
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

/// Replaces our table of one family in a namespace in one transaction.
pub(super) async fn replace(netns: Arc<Netns>, table: &Table) -> Result<(), NftError> {
    load(netns, table.script()).await
}

/// Gives these sets of it just their elements, in one transaction.
pub(super) async fn update(netns: Arc<Netns>, family: Family, sets: &[Set]) -> Result<(), NftError> {
    load(netns, sets.iter().map(|set| set.script(family)).collect()).await
}

/// Removes it.
pub(super) async fn remove(netns: Arc<Netns>, family: Family) -> Result<(), NftError> {
    load(netns, family.removal()).await
}

/// Gives a chain of somebody else's just these rules of ours, before all others, in one transaction. `there` are those that it has:
/// handles and comments. What stays is not touched, wherever in the chain it is by now.
pub(super) async fn set_accept_rules(
    netns: Arc<Netns>,
    chain: &ChainName,
    there: &[(u64, String)],
    wanted: &BTreeSet<AcceptRule>,
) -> Result<(), NftError> {
    let mut missing: BTreeMap<String, &AcceptRule> = wanted.iter().map(|rule| (rule.comment(), rule)).collect();
    let surplus = there
        .iter()
        .filter(|(_, comment)| missing.remove(comment).is_none())
        .map(|(handle, _)| handle)
        .collect::<Vec<_>>();
    let deleted = surplus.iter().map(|handle| format!("delete rule {chain} handle {handle}\n"));
    let script: String = deleted.chain(missing.values().map(|rule| format!("insert rule {chain} {rule}\n"))).collect();
    if script.is_empty() { Ok(()) } else { load(netns, script).await }
}

/// All rules of a namespace, with what they have counted.
pub(super) async fn list(netns: Arc<Netns>) -> Result<String, NftError> {
    run(netns, "list ruleset\n".to_owned()).await
}

async fn load(netns: Arc<Netns>, script: String) -> Result<(), NftError> {
    run(netns, script).await.map(drop)
}

/// What `nft` says to a script.
async fn run(netns: Arc<Netns>, script: String) -> Result<String, NftError> {
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
async fn bounded<T>(work: impl Future<Output = Result<T, NftError>>) -> Result<T, NftError> {
    timeout(TIMEOUT, work).await.unwrap_or(Err(NftError::Slow))
}

/// Starts `nft` in the namespace of the calling thread, to be waited for on the runtime.
fn start(runtime: &Handle) -> Result<Child, NftError> {
    let _guard = runtime.enter();
    Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)
}

async fn feed(mut nft: Child, script: &str) -> Result<String, NftError> {
    let written = match nft.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()).await,
        None => Ok(()),
    };
    let output = nft.wait_with_output().await.map_err(NftError::Run)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(NftError::Refused { said });
    }
    written.map_err(NftError::Run)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn not_started(error: io::Error) -> NftError {
    if error.kind() == io::ErrorKind::NotFound { NftError::Missing } else { NftError::Run(error) }
}
