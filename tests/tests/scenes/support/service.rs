//! Servers in containers, and clients that ask them.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use overlay_tests::lab::{Container, Lab, Place, Proc};

use super::SECOND;

/// A server on a TCP and UDP port of a container. It answers with the name of the container and the address of the client.
pub fn doorman(container: &Container, port: u16) -> anyhow::Result<Proc> {
    let mut doorman =
        container.tool(&format!("doorman-{port}.log"), &format!("doorman {} {port}", container.name()))?;
    doorman.wait_for("ready", 5 * SECOND)?;
    Ok(doorman)
}

/// Asks the server at `to`, and returns its name and the address that it sees for the client.
pub fn visit(
    lab: &Lab,
    place: &Place,
    protocol: &str,
    to: impl std::fmt::Display,
    more: &str,
) -> anyhow::Result<(String, IpAddr)> {
    let tool = lab.programs().labtool().display();
    let said = place.sh(&format!("{tool} visit {protocol} {to} {more}"))?;
    let (name, address) = said.trim().split_once(' ').with_context(|| format!("who is `{said}`?"))?;
    Ok((name.to_owned(), address.parse()?))
}

/// Fails if a server answers at `to`.
pub fn is_refused(lab: &Lab, place: &Place, protocol: &str, to: &str) -> anyhow::Result<()> {
    let answer = visit(lab, place, protocol, to, "--patience 300");
    ensure!(answer.is_err(), "{protocol} {to} is answered: {answer:?}");
    Ok(())
}

/// [`doorman`] on an SCTP port.
pub fn sctp_doorman(container: &Container, port: u16) -> anyhow::Result<Proc> {
    let line = format!("sctp-doorman {} {port}", container.name());
    let mut doorman = container.tool(&format!("sctp-doorman-{port}.log"), &line)?;
    doorman.wait_for("ready", 5 * SECOND)?;
    Ok(doorman)
}
