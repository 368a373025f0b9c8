//! What this host says of itself, from its record to gossip.

use std::sync::Arc;
use std::time::Duration;

use overlay::model::record::Record;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::encode_record;
use overlay_gossip::Announcement;

/// How long a new page number alone may wait.
///
/// Whatever one host says of leases turns a page in the ledgers of all that hear it. If each told all others at once, a
/// single lease among 500 hosts would cost a quarter of a million datagrams. And nobody waits for it: of others' pages a
/// ledger notes only those that come with leases, and those are said at once, with the page of that moment.
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
