//! Announces this host's own record through gossip.

use std::sync::Arc;
use std::time::Duration;

use overlay::model::record::Record;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::encode_record;
use overlay_gossip::Announcement;

/// How long a record waits if only its revision is new.
///
/// When a host announces a lease, the revision of every ledger that hears of it rises. If each host announced its new revision
/// number at once, a single lease among 500 hosts would cost a quarter of a million datagrams. No host waits for it: a ledger needs
/// the revisions of others only with their leases. Leases are announced at once, with the revision of that moment.
const REVISION_DELAY: Duration = Duration::from_secs(30);

/// Keeps announcing what the `record` says, from now on.
pub fn spawn(record: watch::Receiver<Arc<Record>>, announce: watch::Sender<Announcement>) -> JoinHandle<()> {
    tokio::spawn(say(record, announce))
}

async fn say(mut record: watch::Receiver<Arc<Record>>, announce: watch::Sender<Announcement>) {
    let mut announced = Arc::new(Record::default());
    loop {
        let now = Arc::clone(&record.borrow_and_update());
        if now != announced {
            if announce.send(encode_record(&now.for_others())).is_err() {
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
