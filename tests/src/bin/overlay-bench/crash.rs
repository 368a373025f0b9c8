//! How long a dead host is believed in: from the pull of its plug until its names and its rows are withdrawn.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Lab};

use crate::figure::{Figure, Unit};
use crate::netns::NetnsPath;
use crate::rows::{Change, Rows};

const NETWORK: &str = "crash";
const TIMES: u32 = 3;
const LIMIT: Duration = Duration::from_secs(20);

/// h3 dies; h1 looks on.
pub fn measure(lab: &mut Lab) -> anyhow::Result<Vec<Figure>> {
    let mut names = Figure::new("host crash to name withdrawn on another host", Unit::Milliseconds);
    let mut entries = Figure::new("host crash to FDB row withdrawn on another host", Unit::Milliseconds);
    lab.network(NETWORK, "10.43.0.0/16")?;
    let witness = lab.reachable("h1", NETWORK, "witness", "")?;
    let rows = Rows::watch(&NetnsPath::of(lab.host("h1")?, &lab.segment("h1", NETWORK)?)?)?;
    for number in 1..=TIMES {
        let start = Instant::now();
        let far = eventually(LIMIT, "a container on h3", || far(lab))?;
        let mac = mac(lab, &far)?;
        rows.when(Change::Came, &mac, start, LIMIT)?;
        eventually(LIMIT, "the name to be known", || answered(&witness, true))?;

        let plug = Instant::now();
        lab.crash("h3")?;
        eventually(LIMIT, "the name to be withdrawn", || answered(&witness, false))?;
        let name = plug.elapsed();
        let row = rows.when(Change::Went, &mac, plug, LIMIT)?.saturating_duration_since(plug);
        eprintln!("  crash {number} of {TIMES}: name {} ms, row {} ms", name.as_millis(), row.as_millis());
        names.values.push(1000.0 * name.as_secs_f64());
        entries.values.push(1000.0 * row.as_secs_f64());

        lab.reboot("h3")?;
        lab.start("h3")?;
        lab.wait_until_all_see_all()?;
    }
    Ok(vec![names, entries])
}

/// The container on h3, of the same name and address after every crash.
fn far(lab: &Lab) -> anyhow::Result<Container> {
    _ = lab.host("h3")?.place().try_sh("ip netns delete far")?;
    lab.connect("h3", NETWORK, "far", "")
}

fn mac(lab: &Lab, container: &Container) -> anyhow::Result<String> {
    let endpoints = lab.rows(container.host(), &format!("endpoint ls {NETWORK}"))?;
    let endpoint = endpoints.iter().find(|row| row["name"] == container.name());
    endpoint.and_then(|row| row["mac"].as_str().map(str::to_owned)).context("the container has no MAC")
}

fn answered(witness: &Container, expected: bool) -> anyhow::Result<()> {
    let reply = witness.dig("far")?;
    ensure!(reply.status != "NONE" && reply.addresses().is_empty() != expected, "{reply:?}");
    Ok(())
}
