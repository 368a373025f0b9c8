//! Announces this host's own record through gossip.

use std::sync::Arc;
use std::time::Duration;

use overlay::model::record::Record;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::{RecordPart, WireError, encode_record};
use overlay_gossip::Announcement;

/// How long a record waits if only its revision is new.
///
/// When a host announces a lease, the revision of every ledger that hears of it rises. If each host announced its new revision
/// number at once, a single lease among 500 hosts would cost a quarter of a million datagrams. No host waits for it: a ledger needs
/// the revisions of others only with their leases. Leases are announced at once, with the revision of that moment.
const REVISION_DELAY: Duration = Duration::from_secs(30);

/// The parts of this host's record that other hosts can read, and the other parts, each with its key and the reason. Another host leaves
/// out a part that it can't read, and only its own log says why: so this host reads each part first. Texts that `before` has were
/// checked before.
pub fn readable(record: &Record, before: &Announcement) -> (Announcement, Vec<(String, WireError)>) {
    let mut texts = encode_record(&record.for_others());
    let mut refused = Vec::new();
    texts.retain(|key, text| {
        let error = match before.get(key) == Some(text) {
            true => None,
            false => RecordPart::read(key, text).into_error(),
        };
        let is_readable = error.is_none();
        refused.extend(error.map(|error| (key.clone(), error)));
        is_readable
    });
    (texts, refused)
}

/// What is left out of what this host says: each part with its key and the reason.
pub fn refused(record: &Record) -> Vec<(String, String)> {
    let (_, refused) = readable(record, &Announcement::new());
    refused.into_iter().map(|(key, error)| (key, error.to_string())).collect()
}

/// Keeps announcing what the `record` says, from now on.
pub fn spawn(record: watch::Receiver<Arc<Record>>, announce: watch::Sender<Announcement>) -> JoinHandle<()> {
    tokio::spawn(say(record, announce))
}

async fn say(mut record: watch::Receiver<Arc<Record>>, announce: watch::Sender<Announcement>) {
    let mut announced = Arc::new(Record::default());
    let mut left_out = Vec::new();
    loop {
        let now = Arc::clone(&record.borrow_and_update());
        if now != announced {
            let (texts, refused) = readable(&now, &announce.borrow());
            for (key, error) in refused.iter().filter(|refusal| !left_out.contains(*refusal)) {
                tracing::error!(key, %error, "other hosts would not believe this of this host, so it is not announced");
            }
            left_out = refused;
            if announce.send(texts).is_err() {
                return;
            }
            announced = now;
        }
        // A new revision alone is in the record, but wakes no task.
        if let Ok(Err(_)) = timeout(REVISION_DELAY, record.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
