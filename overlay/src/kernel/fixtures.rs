//! What a segment has once, however many endpoints are in it: its rules, the addresses of its bridge, and its uplink.

use std::collections::BTreeMap;

use super::error::OrDoing;
use super::link::{self, Interface};
use super::netns_sockets::{NetnsSockets, Segment};
use super::strangers::{self, Stranger};
use super::watch::Changes;
use super::{addr, uplink};
use crate::datapath::desired::{Prefixed, uplink_ifname};
use crate::datapath::firewall::{Family, ObservedTable};
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::{BRIDGE, UPLINK};
use crate::datapath::observed::ObservedUplink;
use crate::model::addr::IfName;
use crate::model::id::NetworkId;

/// As they were read. They are read again when the kernel has told of anything in the segment but rows and neighbours.
#[derive(Debug)]
pub(super) struct Fixtures {
    /// Our table.
    pub firewall: Option<ObservedTable>,
    /// Our table of what passes the bridge.
    pub filter: Option<ObservedTable>,
    pub uplink: Option<ObservedUplink>,
    /// The host's end of the uplink.
    pub outer: Option<Interface>,
    /// What others have added to the routing, or taken from it.
    pub strangers: Vec<Stranger>,
    /// The addresses of each link. An address of the bridge or of the uplink that lacks its connected route is left out, so that the plan
    /// sets it again.
    addresses: BTreeMap<u32, Vec<Prefixed>>,
}

impl Fixtures {
    /// Reads them. The links of the segment are those of its copy.
    pub(super) async fn read(
        host: &NetnsSockets,
        Segment { sockets, objects, .. }: &mut Segment,
        network: NetworkId,
        changes: &Changes,
    ) -> Result<Self, StepError> {
        let path = sockets.netns.path().to_owned();
        let doing = || format!("look into {}", path.display());
        let firewall = sockets.rules.table(Family::Inet).await.or_doing(doing)?;
        let filter = sockets.rules.table(Family::Bridge).await.or_doing(doing)?;
        let route = &sockets.route;
        let [bridge, inner] = {
            let mirror = objects.get();
            [BRIDGE, UPLINK].map(|name| mirror.named(name).cloned())
        };
        let mut addresses = addr::all(route).await.or_doing(doing)?;
        for link in bridge.iter().chain(&inner) {
            if let Some(own) = addresses.get_mut(&link.index) {
                *own = addr::rooted(route, link.index, own).await.or_doing(doing)?;
            }
        }
        let routes = addr::routes(route, None).await.or_doing(doing)?;
        let host_ifname = uplink_ifname(network);
        let outer = outer(host, changes, network, &host_ifname).await.or_doing(doing)?;
        let uplink = match (&outer, &inner) {
            (Some(outer), Some(inner)) => {
                let observed = uplink::observe((host, outer), (inner, &routes), &host_ifname, &addresses);
                observed.await.or_doing(doing)?
            }
            _ => None,
        };
        let strangers = strangers::read(route, routes).await.or_doing(doing)?;
        Ok(Self { firewall, filter, uplink, outer, strangers, addresses })
    }

    /// The addresses of a link, sorted.
    pub(super) fn addresses_of(&self, link: u32) -> &[Prefixed] {
        self.addresses.get(&link).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The host's end of the uplink.
async fn outer(
    host: &NetnsSockets,
    changes: &Changes,
    network: NetworkId,
    host_ifname: &IfName,
) -> Result<Option<Interface>, rtnetlink::Error> {
    // By its name: a dump of all the host's links may miss one while others come and go.
    let Some(outer) = link::named(&host.route, host_ifname.as_str()).await? else { return Ok(None) };
    // Changes of a link that is new were not noted until now.
    if changes.set_uplink(network, outer.index) {
        return link::numbered(&host.route, outer.index).await;
    }
    Ok(Some(outer))
}
