//! What this host says of itself, from its record to gossip.

use std::sync::Arc;
use std::time::Duration;

use overlay::model::record::Record;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::wire::encode_record;
use overlay_gossip::Publication;

/// How long a new page number alone may wait.
///
/// Whatever one host says of leases turns a page in the ledgers of all that hear it. If each told all others at once, a
/// single lease among 500 hosts would cost a quarter of a million datagrams. And nobody waits for it: of others' pages a
/// ledger notes only those that come with leases, and those are said at once, with the page of that moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps `publish` saying what the `record` says, from now on.
pub fn spawn(record: watch::Receiver<Arc<Record>>, publish: watch::Sender<Publication>) -> JoinHandle<()> {
    tokio::spawn(say(record, publish))
}

async fn say(mut record: watch::Receiver<Arc<Record>>, publish: watch::Sender<Publication>) {
    let mut said = Arc::new(Record::default());
    let mut late: Option<Instant> = None;
    loop {
        let now = Arc::clone(&record.borrow_and_update());
        let is_due = late.is_some_and(|late| late <= Instant::now());
        if is_due || !differ_by_page(&said, &now) {
            if publish.send(encode_record(&now.for_others())).is_err() {
                return;
            }
            (said, late) = (now, None);
        } else if now != said {
            late.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
        tokio::select! {
            changed = record.changed() => if changed.is_err() { return },
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {}
        }
    }
}

/// Are they the same but for the page?
fn differ_by_page(said: &Record, now: &Record) -> bool {
    let (Some(before), Some(host)) = (&said.host, &now.host) else { return said == now };
    let mut host = host.clone();
    host.stamp.page = before.stamp.page;
    Some(&host) == said.host.as_ref() && *said == Record { host: said.host.clone(), ..now.clone() }
}

#[cfg(test)]
mod tests;
