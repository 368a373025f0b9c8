//! What others have added to the routing of a segment, or taken from it. The namespace is this program's alone: so it is taken away
//! again, or put back.

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle};

use super::addr;
use super::error::Unless;
use crate::datapath::desired::is_transit;
use crate::datapath::kernel_api::Cause;
use crate::datapath::observed::Altered;

/// One thing that is there and should not be, or the other way round.
#[derive(Debug, Clone)]
pub(super) enum Stranger {
    Route(RouteMessage),
    Rule(RuleMessage),
    /// One of the kernel's own rules is gone.
    Missing(RuleMessage),
}

/// The rules that a namespace begins with (ip-rule(8)): version of IP, priority and table.
const OF_KERNEL: [(AddressFamily, u32, u8); 5] = [
    (AddressFamily::Inet, 0, 255),
    (AddressFamily::Inet, 32_766, 254),
    (AddressFamily::Inet, 32_767, 253),
    (AddressFamily::Inet6, 0, 255),
    (AddressFamily::Inet6, 32_766, 254),
];

/// What there is in a segment that has these `routes`.
pub(super) async fn read(route: &Handle, routes: Vec<RouteMessage>) -> Result<Vec<Stranger>, Error> {
    let mut strangers: Vec<Stranger> = routes.into_iter().filter(is_strange).map(Stranger::Route).collect();
    for version in [rtnetlink::IpVersion::V4, rtnetlink::IpVersion::V6] {
        let family = if version == rtnetlink::IpVersion::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let rules: Vec<RuleMessage> = route.rule().get(version).execute().try_collect().await?;
        // A kernel without this version of IP answers with the rules of the others, or with none.
        let rules: Vec<RuleMessage> = rules.into_iter().filter(|rule| rule.header.family == family).collect();
        let expected: Vec<RuleMessage> =
            OF_KERNEL.iter().filter(|(of, ..)| *of == family && !rules.is_empty()).map(of_kernel).collect();
        let is_expected = |rule: &RuleMessage| expected.iter().any(|expected| is_same(expected, rule));
        let missing = expected.iter().filter(|expected| !rules.iter().any(|rule| is_same(expected, rule)));
        strangers.extend(missing.cloned().map(Stranger::Missing));
        strangers.extend(rules.iter().filter(|rule| !is_expected(rule)).cloned().map(Stranger::Rule));
    }
    Ok(strangers)
}

/// The kernel makes the routes of addresses, and this program the one that leads everywhere.
fn is_strange(route: &RouteMessage) -> bool {
    let leads_out = addr::is_default(route) && addr::gateway(route).is_some_and(is_transit);
    route.header.protocol != RouteProtocol::Kernel && !leads_out
}

fn of_kernel((family, priority, table): &(AddressFamily, u32, u8)) -> RuleMessage {
    let mut rule = RuleMessage::default();
    (rule.header.family, rule.header.action, rule.header.table) = (*family, RuleAction::ToTable, *table);
    rule.attributes.extend([RuleAttribute::Priority(*priority), RuleAttribute::Protocol(RouteProtocol::Kernel)]);
    rule
}

fn is_same(a: &RuleMessage, b: &RuleMessage) -> bool {
    let is_plain = |rule: &RuleMessage| rule.header.src_len == 0 && rule.header.dst_len == 0;
    (priority(a), a.header.table, a.header.action) == (priority(b), b.header.table, b.header.action)
        && is_plain(a)
        && is_plain(b)
}

fn priority(rule: &RuleMessage) -> u32 {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    priority.unwrap_or_default()
}

impl Stranger {
    /// What people are told of it.
    pub(super) fn altered(&self) -> Altered {
        let attribute = match self {
            Self::Route(route) => match addr::destination(route) {
                Some(subnet) => format!("route to {subnet}"),
                None => "default route".to_owned(),
            },
            Self::Rule(rule) | Self::Missing(rule) => format!("routing rule {}", priority(rule)),
        };
        Altered { of: "segment".to_owned(), attribute, can_be_restored: true }
    }

    /// Takes it away, or puts it back.
    pub(super) async fn undo(self, route: &Handle) -> Result<(), Error> {
        match self {
            Self::Route(message) => route.route().del(message).execute().await.unless(Cause::Gone),
            Self::Rule(rule) => route.rule().del(rule).execute().await.unless(Cause::Gone),
            Self::Missing(rule) => {
                let mut request = route.rule().add();
                *request.message_mut() = rule;
                request.execute().await.unless(Cause::AlreadyExists)
            }
        }
    }
}
