//! What other programs have changed of the links of a segment, and setting it back.
//!
//! A plan says which values are right of the attributes that this program sets itself. Every other attribute of a link, and every setting
//! of it, should have the value that the agent saw first: for a link that this agent has made, the kernel's default.
//!
//! Owns the values that were seen first. Decides nothing: a plan says that they are set back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::WatchDescriptor;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::Handle;

use super::error::OrDoing;
use super::fixtures::Fixtures;
use super::link::Interface;
use super::mirror::Mirror;
use super::netns::Netns;
use super::netns_sockets::{NetnsSockets, Segment};
use super::settings::{self, Settings};
use super::settings_watch::Watched;
use super::strangers::Stranger;
use super::traits::{self, Traits};
use super::watch::Changes;
use crate::datapath::kernel_api::StepError;
use crate::datapath::names::{BRIDGE, PORT_PREFIX, TUNNEL, UPLINK, UPLINK_PREFIX};
use crate::datapath::observed::Altered;
use crate::model::id::NetworkId;

/// On which side of the uplink a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Host,
    Segment,
}

/// What the links of a segment, and the host's end of its uplink, were like when they were first seen.
#[derive(Debug, Default)]
pub(super) struct Baselines {
    links: BTreeMap<(Side, u32), Arc<Traits>>,
    /// What a link was like when it was last found to be unchanged: that need not be compared again.
    unchanged: BTreeMap<(Side, u32), Arc<Traits>>,
    settings: BTreeMap<(Side, u32), Settings>,
    /// The settings as they were last read; none if they may have changed since.
    read: Option<BTreeMap<(Side, u32), Settings>>,
    read_at: Option<Instant>,
}

/// Settings are many files, and inotify tells of almost every write: looks at everything read them again after this long only.
const FRESH: Duration = Duration::from_secs(600);

/// Settings of a segment's namespace that are no link's: those of all links, and of those to come.
const OF_ALL: [(&str, u32); 2] = [("all", 0), ("default", u32::MAX)];

/// What settings have to be, whatever they were when the link was first seen: without them no packet passes. Each after the directory
/// of its link.
const NEEDED: [(&str, &str, &str); 3] =
    [("ipv4/conf", "forwarding", "1"), ("ipv4/conf", "arp_ignore", "0"), ("ipv4/conf", "arp_filter", "0")];
/// The same of the host's end of an uplink.
const NEEDED_ON_HOST: [(&str, &str, &str); 3] =
    [("ipv4/conf", "route_localnet", "1"), ("ipv6/conf", "accept_ra", "0"), ("ipv6/conf", "addr_gen_mode", "1")];

/// A link whose settings are compared: where it is, its number and its name.
type Named = (Side, u32, String);

/// What somebody has changed. What is new is noted as it is now.
pub(super) async fn look(
    host: &NetnsSockets,
    segment: &mut Segment,
    (fixtures, watch): (&Fixtures, &Watched),
    network: NetworkId,
    changes: &Changes,
) -> BTreeSet<Altered> {
    if changes.take_unsettled(network) {
        segment.baselines.read = None;
    }
    let with_settings = with_settings(&segment.objects.get(), fixtures);
    let keys: BTreeSet<(Side, u32)> = with_settings.iter().map(|(side, index, _)| (*side, *index)).collect();
    let read = match segment.baselines.read.take().filter(|read| read.keys().eq(&keys)) {
        Some(read) => read,
        // What can't be read is not known to be altered; everything else is looked at all the same.
        None => read_settings(host, segment, &with_settings, (watch, network)).await.unwrap_or_default(),
    };
    let Segment { objects, baselines, .. } = segment;
    let mut altered: BTreeSet<Altered> = fixtures.strangers.iter().map(Stranger::altered).collect();
    altered.extend(baselines.altered_links(&objects.get(), fixtures.outer.as_ref()));
    altered.extend(baselines.altered_settings(&with_settings, &read));
    baselines.read = Some(read);
    altered
}

/// The bridge, the ends of the uplink, and all links of the segment together.
fn with_settings(mirror: &Mirror, fixtures: &Fixtures) -> Vec<Named> {
    let inside = [BRIDGE, UPLINK].into_iter().filter_map(|name| mirror.named(name));
    let inside = inside.map(|link| (Side::Segment, link.index, link.name.clone()));
    let outside = fixtures.outer.iter().map(|link| (Side::Host, link.index, link.name.clone()));
    inside.chain(outside).chain(OF_ALL.map(|(name, index)| (Side::Segment, index, name.to_owned()))).collect()
}

/// Is the link where it belongs? One that is only half made is compared when it is whole.
fn is_whole(link: &Interface, bridge: Option<u32>) -> bool {
    link.up && (!is_port(link) || link.master == bridge)
}

/// Is it to be a port of the bridge?
fn is_port(link: &Interface) -> bool {
    link.name == TUNNEL || link.name.starts_with(PORT_PREFIX)
}

async fn read_settings(
    host: &NetnsSockets,
    segment: &mut Segment,
    of: &[Named],
    (watch, network): (&Watched, NetworkId),
) -> Result<BTreeMap<(Side, u32), Settings>, StepError> {
    let (mut read, mut followed) = (BTreeMap::new(), Vec::new());
    segment.baselines.read_at = Some(Instant::now());
    for (side, netns) in [(Side::Host, &host.netns), (Side::Segment, &segment.sockets.netns)] {
        let here = of.iter().filter(|(at, ..)| *at == side);
        let links: Vec<(u32, String)> = here.map(|(_, index, name)| (*index, name.clone())).collect();
        let (settings, watches) = read_in(netns, links, (watch, network)).await?;
        read.extend(settings.into_iter().map(|(index, settings)| ((side, index), settings)));
        followed.extend(watches);
    }
    watch.keep_only(network, &followed);
    Ok(read)
}

/// Reads in a namespace, and watches what is read from before it is read.
async fn read_in(
    netns: &Arc<Netns>,
    links: Vec<(u32, String)>,
    (watch, network): (&Watched, NetworkId),
) -> Result<(Vec<(u32, Settings)>, Vec<WatchDescriptor>), StepError> {
    if links.is_empty() {
        return Ok(Default::default());
    }
    let doing = || format!("read the settings of the links in {}", netns.path().display());
    let watch = watch.clone();
    let work = move || -> io::Result<_> {
        let watches = watch.follow(network, links.iter().flat_map(|(_, name)| settings::directories(name)));
        let read: io::Result<Vec<_>> = links.iter().map(|(index, name)| Ok((*index, settings::read(name)?))).collect();
        Ok((read?, watches))
    };
    netns.run_off(work).await.or_doing(doing)?.or_doing(doing)
}

impl Baselines {
    /// The settings are read by the next look, whatever was told of them, if that is long ago.
    pub(super) fn read_again(&mut self) {
        if self.read_at.is_none_or(|at| at.elapsed() > FRESH) {
            self.read = None;
        }
    }

    fn altered_links(&mut self, mirror: &Mirror, outer: Option<&Interface>) -> Vec<Altered> {
        let bridge = mirror.named(BRIDGE).map(|link| link.index);
        let is_ours = |link: &&Interface| [BRIDGE, UPLINK].contains(&link.name.as_str()) || is_port(link);
        let links = || {
            let inside = mirror.links().filter(is_ours).map(|link| (Side::Segment, link));
            inside.chain(outer.map(|link| (Side::Host, link)))
        };
        // Also of a link that is down or no port now it is remembered what it was like.
        let there: BTreeSet<(Side, u32)> = links().map(|(side, link)| (side, link.index)).collect();
        self.links.retain(|key, _| there.contains(key));
        self.unchanged.retain(|key, _| there.contains(key));
        let whole = links().filter(|(_, link)| is_whole(link, bridge));
        whole.flat_map(|(side, link)| self.altered_traits(side, link)).collect()
    }

    fn altered_settings(&mut self, links: &[Named], read: &BTreeMap<(Side, u32), Settings>) -> Vec<Altered> {
        let there: BTreeSet<(Side, u32)> = links.iter().map(|(side, index, _)| (*side, *index)).collect();
        self.settings.retain(|key, _| there.contains(key));
        let default = read.get(&(Side::Segment, u32::MAX));
        let disabled = default.and_then(|default| default.get(Path::new("ipv6/conf/default/disable_ipv6")));
        let with_ipv6 = disabled.is_some_and(|value| value == "0");
        let mut altered = Vec::new();
        for (side, index, name) in links {
            let Some(now) = read.get(&(*side, *index)) else { continue };
            let before =
                self.settings.entry((*side, *index)).or_insert_with(|| with_needed(now.clone(), name, with_ipv6));
            altered.extend(settings::changed(before, now).map(|(path, _)| of_setting(name, path)));
        }
        altered
    }

    fn altered_traits(&mut self, side: Side, link: &Interface) -> Vec<Altered> {
        let first = || Arc::new(traits::expected(&link.traits));
        let key = (side, link.index);
        if self.unchanged.get(&key).is_some_and(|unchanged| Arc::ptr_eq(unchanged, &link.traits)) {
            return Vec::new();
        }
        let before = self.links.entry(key).or_insert_with(first);
        // What was not there when the link was first seen is noted as it came.
        if link.traits.keys().any(|name| !before.contains_key(name)) {
            let new = link.traits.iter().filter(|(name, _)| !before.contains_key(*name));
            let new: Traits = new.map(|(name, value)| (name.clone(), value.clone())).collect();
            Arc::make_mut(before).extend(traits::expected(&new));
        }
        // Whose port an uplink is, is set right with the uplink.
        let is_port = is_port(link);
        let changed =
            traits::changed(before, &link.traits).filter(|(name, _)| is_port || !name.starts_with(traits::OF_PORT));
        let altered: Vec<Altered> = changed
            .map(|(name, had)| Altered {
                of: link.name.clone(),
                attribute: name.to_owned(),
                can_be_restored: had.can_be_restored(),
            })
            .collect();
        // What is missing in the one may be compared later.
        if altered.is_empty() && before.len() == link.traits.len() {
            self.unchanged.insert(key, Arc::clone(&link.traits));
        }
        altered
    }
}

fn of_setting(link: &str, path: &Path) -> Altered {
    Altered { of: link.to_owned(), attribute: path.display().to_string(), can_be_restored: true }
}

/// Of the host's end of an uplink `with_ipv6` says whether it has IPv6: else this program, which sets that, would undo itself.
fn with_needed(mut settings: Settings, link: &str, with_ipv6: bool) -> Settings {
    let is_outer = link.starts_with(UPLINK_PREFIX);
    let on_host = NEEDED_ON_HOST.iter().filter(|_| is_outer);
    let ipv6 = ("ipv6/conf", "disable_ipv6", if with_ipv6 { "0" } else { "1" });
    for (directory, name, value) in NEEDED.iter().chain(on_host).chain(is_outer.then_some(&ipv6)) {
        if let Some(setting) = settings.get_mut(&Path::new(directory).join(link).join(name)) {
            (*value).clone_into(setting);
        }
    }
    settings
}

/// Sets everything back that can be. What the kernel refuses keeps nothing else from being set back.
pub(super) async fn restore(host: &NetnsSockets, segment: &mut Segment) -> Result<(), StepError> {
    let traits = restore_traits(host, segment).await;
    let mut routing = Ok(());
    for stranger in segment.fixtures.iter().flat_map(|fixtures| fixtures.strangers.clone()) {
        let doing = || format!("set the {} back", stranger.altered().attribute);
        routing = routing.and(stranger.clone().undo(&segment.sockets.route).await.or_doing(doing));
    }
    let settings = restore_settings(host, segment).await;
    traits.and(routing).and(settings)
}

async fn restore_traits(host: &NetnsSockets, segment: &Segment) -> Result<(), StepError> {
    let mut restored = Ok(());
    let outer = segment.fixtures.as_ref().and_then(|fixtures| fixtures.outer.clone());
    let inside: Vec<(Side, Interface)> =
        segment.objects.get().links().map(|link| (Side::Segment, link.clone())).collect();
    for (side, link) in inside.into_iter().chain(outer.map(|link| (Side::Host, link))) {
        let Some(before) = segment.baselines.links.get(&(side, link.index)) else { continue };
        let is_port = is_port(&link);
        let changed = traits::changed(before, &link.traits)
            .filter(|(name, had)| had.can_be_restored() && (is_port || !name.starts_with(traits::OF_PORT)));
        let route = if side == Side::Host { &host.route } else { &segment.sockets.route };
        for (name, had) in changed {
            let doing = || format!("set {name} of {} back", link.name);
            let set = set(route, traits::restoring(link.index, std::slice::from_ref(had))).await;
            restored = restored.and(set.or_doing(doing));
        }
    }
    restored
}

async fn restore_settings(host: &NetnsSockets, segment: &mut Segment) -> Result<(), StepError> {
    let Some(read) = segment.baselines.read.take() else { return Ok(()) };
    for (key, now) in read {
        let Some(before) = segment.baselines.settings.get(&key).cloned() else { continue };
        if settings::changed(&before, &now).next().is_none() {
            continue;
        }
        let netns = if key.0 == Side::Host { &host.netns } else { &segment.sockets.netns };
        let doing = || format!("set the settings of the links in {} back", netns.path().display());
        netns.run_off(move || settings::restore(&before, &now)).await.or_doing(doing)?.or_doing(doing)?;
    }
    Ok(())
}

async fn set(route: &Handle, message: LinkMessage) -> Result<(), rtnetlink::Error> {
    route.link().change(message).execute().await
}
