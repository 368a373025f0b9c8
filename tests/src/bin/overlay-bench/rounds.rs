//! Measurements that take turns, so that what slows the machine for a while slows all of them.

use anyhow::Context;
use overlay_tests::lab::{Lab, Place};
use std::net::Ipv4Addr;

use crate::dice::Dice;
use crate::figure::{Figure, Unit};

/// A measurement that can be taken any number of times.
pub struct Lane {
    pub figure: Figure,
    measure: Box<dyn FnMut() -> anyhow::Result<f64>>,
}

impl Lane {
    /// What `measure` returns is in the unit of the figure.
    pub fn new(figure: Figure, measure: impl FnMut() -> anyhow::Result<f64> + 'static) -> Self {
        Self { figure, measure: Box::new(measure) }
    }
}

/// Takes every measurement once a round, in another order each time.
pub fn run(lanes: &mut [Lane], rounds: u32, dice: &mut Dice) -> anyhow::Result<()> {
    for round in 1..=rounds {
        let mut order: Vec<&mut Lane> = lanes.iter_mut().collect();
        dice.shuffle(&mut order);
        for lane in order {
            let value = (lane.measure)().with_context(|| lane.figure.title.clone())?;
            eprintln!("  round {round} of {rounds}: {}: {}", lane.figure.title, lane.figure.unit.show(value));
            lane.figure.values.push(value);
        }
    }
    Ok(())
}

/// A way from a client on h2 to a server on h1: the bare underlay, or the overlay.
#[derive(Clone, Debug)]
pub struct Path {
    pub name: &'static str,
    pub server: Place,
    pub client: Place,
    /// The server's, as the client reaches it.
    pub address: Ipv4Addr,
}

impl Path {
    /// The underlay between the hosts themselves, and the overlay between a container on each.
    pub fn both(lab: &Lab) -> anyhow::Result<[Self; 2]> {
        lab.network("paths", "10.41.0.0/16")?;
        let server = lab.reachable("h1", "paths", "server", "")?;
        let client = lab.reachable("h2", "paths", "client", "")?;
        lab.wait_until_reachable("paths", &server)?;
        let (bare_server, bare_client) = (lab.host("h1")?.place(), lab.host("h2")?.place());
        let address = overlay_tests::lab::underlay("h1")?;
        Ok([
            Self { name: "underlay", server: bare_server, client: bare_client, address },
            Self {
                name: "overlay",
                server: server.place().clone(),
                client: client.place().clone(),
                address: server.address()?,
            },
        ])
    }

    /// A figure of this path, compared to that of the underlay.
    pub fn figure(&self, what: &str, unit: Unit) -> Figure {
        let figure = Figure::new(format!("{what}, {}", self.name), unit);
        if self.name == "underlay" { figure } else { figure.compared_to(format!("{what}, underlay")) }
    }
}
