//! Hosts as members of the cluster, in the eyes of a host.

use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{eventually, eventually_in};
use overlay_tests::lab::Lab;
use serde_json::Value;

use super::leases::AGREED;
use super::took;

/// A host that is off is known to be gone within this time, also on a machine that plays another scene. How fast it is on one
/// that does nothing else is measured in `agents`.
const GONE: Duration = Duration::from_secs(15);

/// The id of the one host of this name that is not forgotten.
pub fn id_of(lab: &Lab, seen_from: &str, name: &str) -> anyhow::Result<String> {
    let rows = lab.rows(seen_from, "host ls")?;
    let mut meant = rows.iter().filter(|row| row["name"] == name && row["state"] != "forgotten");
    let row = meant.next().with_context(|| format!("{seen_from} does not know {name}: {rows:?}"))?;
    ensure!(meant.next().is_none(), "{seen_from} knows several {name}: {rows:?}");
    Ok(row["id"].as_str().context("no id")?.to_owned())
}

/// A host in the eyes of another.
pub fn row_of(lab: &Lab, seen_from: &str, id: &str) -> anyhow::Result<Value> {
    let rows = lab.rows(seen_from, "host ls")?;
    rows.iter()
        .find(|row| row["id"] == id)
        .cloned()
        .with_context(|| format!("{seen_from} does not know {id}: {rows:?}"))
}

pub fn wait_for_state(lab: &Lab, seen_from: &str, id: &str, state: &str) -> anyhow::Result<()> {
    eventually(GONE, &format!("{seen_from} to see that {id} is {state}"), || {
        let row = row_of(lab, seen_from, id)?;
        ensure!(row["state"] == state, "{row}");
        Ok(())
    })
}

/// Waits until a host has another identity than the one that it had, and all others see it.
pub fn new_identity(lab: &Lab, name: &str, old: &str) -> anyhow::Result<String> {
    let (id, after) = eventually_in(2 * AGREED, "the host to come back as a new one", || {
        let status = lab.json(name, "status")?;
        let id = status["host_id"].as_str().context("no id")?.to_owned();
        ensure!(id != old && status["phase"] == "established", "{status}");
        Ok(id)
    })?;
    took(&format!("{name} fenced and a member under a new identity"), after);
    eventually(AGREED, "h1 to see the new identity", || row_of(lab, "h1", &id))?;
    Ok(id)
}
