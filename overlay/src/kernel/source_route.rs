//! Answers of a container leave by the network that the question came in by (ip-rule(8)).
//!
//! A container in several networks has several default routes, and the kernel takes the one with the lowest metric whatever the source
//! address is. So each of its networks with a way out has a table with its own default route, and a rule that leads there whatever is sent
//! from an address of that network. Routes of the main table that are more special come first: networks reach each other's endpoints
//! as without the rules. A packet whose source address is not chosen yet follows the main table alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::addr;
use super::error::Unless;
use crate::datapath::desired::Port;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::IpVersion;

/// Rules are tried in the order of their priorities; that of the main table has 32,766 (ip-rule(8)).
const MAIN_BUT_DEFAULT: u32 = 32_000;
const BY_SOURCE: u32 = 32_001;

/// The table of an interface is this and its index: none that people use (0 to 255, and what they write in rt_tables).
const TABLES: u32 = 0x6f76_0000;

/// Marks our rules (`FRA_PROTOCOL`): a number that iproute2 gives no name.
const OURS: u8 = 111;

const MAIN: u8 = 254;

/// Makes answers from the addresses of a container's interface leave by it, if its network has a way out.
pub(super) async fn add(route: &Handle, link: u32, port: &Port) -> Result<(), Error> {
    for gateway in &port.gateways {
        let version = IpVersion::of(*gateway);
        remove_stale(route, version, (port, TABLES + link)).await?;
        let default = match gateway {
            IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(*via)
                .output_interface(link)
                .table_id(TABLES + link)
                .build(),
            IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(*via)
                .output_interface(link)
                .table_id(TABLES + link)
                .build(),
        };
        route.route().add(default).execute().await.unless(Cause::AlreadyExists)?;
        add_rule(route, main_but_default(version)).await?;
        for address in port.addresses.iter().filter(|a| IpVersion::of(a.address) == version) {
            add_rule(route, by_source(address.address, TABLES + link)).await?;
        }
    }
    Ok(())
}

fn rule(version: IpVersion, priority: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Protocol(RouteProtocol::from(OURS))];
    rule
}

/// All routes of the main table but those that lead everywhere.
fn main_but_default(version: IpVersion) -> RuleMessage {
    let mut rule = rule(version, MAIN_BUT_DEFAULT);
    rule.header.table = MAIN;
    rule.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    rule
}

fn by_source(address: IpAddr, table: u32) -> RuleMessage {
    let mut rule = rule(IpVersion::of(address), BY_SOURCE);
    rule.header.src_len = if address.is_ipv4() { 32 } else { 128 };
    rule.attributes.extend([RuleAttribute::Source(address), RuleAttribute::Table(table)]);
    rule
}

async fn add_rule(route: &Handle, rule: RuleMessage) -> Result<(), Error> {
    let mut request = route.rule().add();
    *request.message_mut() = rule;
    request.execute().await.unless(Cause::AlreadyExists)
}

/// Removes what is left of interfaces that are gone: their tables went with them, and their rules lead nowhere. An address may be back
/// at another interface: this port's are at `table`.
async fn remove_stale(route: &Handle, version: IpVersion, (port, table): (&Port, u32)) -> Result<(), Error> {
    let there: BTreeSet<IpAddr> = addr::all(route).await?.into_values().flatten().map(|a| a.address).collect();
    let is_stale = |rule: &RuleMessage| {
        let is_moved = |source| port.addresses.iter().any(|own| own.address == source) && !leads_to(rule, table);
        source_of_ours(rule).is_some_and(|source| !there.contains(&source) || is_moved(source))
    };
    let asked = match version {
        IpVersion::V4 => rtnetlink::IpVersion::V4,
        IpVersion::V6 => rtnetlink::IpVersion::V6,
    };
    let rules: Vec<RuleMessage> = route.rule().get(asked).execute().try_collect().await?;
    for rule in rules.into_iter().filter(is_stale) {
        route.rule().del(rule).execute().await.unless(Cause::Gone)?;
    }
    Ok(())
}

fn leads_to(rule: &RuleMessage, table: u32) -> bool {
    rule.attributes.contains(&RuleAttribute::Table(table))
}

/// The address that a rule of ours is about.
fn source_of_ours(rule: &RuleMessage) -> Option<IpAddr> {
    let is_ours = rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::from(OURS)));
    let source = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Source(address) => Some(*address),
        _ => None,
    });
    source.filter(|_| is_ours)
}
