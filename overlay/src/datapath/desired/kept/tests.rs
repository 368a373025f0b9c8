use proptest::prelude::*;

use super::super::tests::{Scene, host, host_id, ip, network, scene};
use super::*;
use crate::cluster::Derivation;
use crate::datapath::desired::desire;
use crate::model::host::Liveness;
use crate::model::links::{Link, LinkDecision, Links};
use crate::model::network::{Network, Settings};
use crate::model::record::Records;

/// What changes between two looks.
#[derive(Debug, Clone)]
enum Change {
    /// The hosts say something else.
    Said(Scene),
    /// This host is asked for something else.
    Asked(Scene),
    /// The intents are written again, with the same in them.
    Rewritten,
    /// Another host says something else of itself.
    Mtu(u8, u32),
    Vtep(u8, u8),
    /// Another host is judged otherwise.
    Judged(u8, Liveness),
    /// The underlay of this host carries less or more.
    OwnMtu(u32),
    /// A network gets another definition here.
    Defined(u8, Settings),
    /// This host knows of a link.
    Linked(u8, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let liveness = prop_oneof![Just(Liveness::Live), Just(Liveness::Suspect), Just(Liveness::Dead)];
    let settings = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(internal, icc, masquerade)| Settings {
        internal,
        icc,
        masquerade,
        ..Settings::default()
    });
    prop_oneof![
        2 => scene().prop_map(Change::Said),
        2 => scene().prop_map(Change::Asked),
        1 => Just(Change::Rewritten),
        2 => (2_u8..4, 1200_u32..9000).prop_map(|(host, mtu)| Change::Mtu(host, mtu)),
        1 => (2_u8..4, 2_u8..9).prop_map(|(host, last)| Change::Vtep(host, last)),
        2 => (2_u8..4, liveness).prop_map(|(host, liveness)| Change::Judged(host, liveness)),
        1 => (1300_u32..1500).prop_map(Change::OwnMtu),
        1 => (0_u8..2, settings).prop_map(|(network, settings)| Change::Defined(network, settings)),
        1 => (0_u8..2, 1_u64..9).prop_map(|(network, at)| Change::Linked(network, at)),
    ]
}

/// What this host knows.
struct World {
    records: Records,
    intents: Arc<Intents>,
    host: HostConfig,
}

impl World {
    fn apply(&mut self, change: Change) {
        let info = |records: &mut Records, host: u8, edit: &dyn Fn(&mut crate::model::host::HostInfo)| {
            let lives = records.get_mut(&host_id(host)).into_iter().flatten();
            lives.filter_map(|life| Arc::make_mut(&mut life.record).host.as_mut()).for_each(edit);
        };
        match change {
            Change::Said((said, _)) => self.records = said.into_iter().collect(),
            Change::Asked((_, intents)) => self.intents = Arc::new(intents),
            Change::Rewritten => self.intents = Arc::new(Intents::clone(&self.intents)),
            Change::Mtu(host, mtu) => info(&mut self.records, host, &|info| info.underlay_mtu = mtu),
            Change::Vtep(host, last) => info(&mut self.records, host, &|info| info.vtep = ip(last)),
            Change::Judged(host, liveness) => {
                let lives = self.records.get_mut(&host_id(host)).into_iter().flatten();
                lives.for_each(|life| life.liveness = liveness);
            }
            Change::OwnMtu(mtu) => self.host.underlay_mtu = mtu,
            Change::Defined(number, settings) => {
                let known = Arc::make_mut(&mut self.intents).networks.get_mut(&network(number).id);
                known.into_iter().for_each(|network: &mut Network| network.settings = settings.clone());
            }
            Change::Linked(number, at) => {
                let label = |text: &str| text.parse().expect("a label");
                let link = Link { from: label("web16"), to: label("web17"), service: None };
                let links: Links = [(link, LinkDecision { at, removed: false })].into_iter().collect();
                Arc::make_mut(&mut self.intents).links.insert(network(number).id, links);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_made_step_by_step_is_what_is_made_from_nothing_and_shares_what_has_not_changed(
        start in scene(), changes in prop::collection::vec(change(), 1..16),
    ) {
        let (said, intents) = start;
        let mut world = World { records: said.into_iter().collect(), intents: intents.into(), host: host() };
        let (mut derivation, mut kept) = (Derivation::default(), KeptDesired::default());
        let mut before: Option<Arc<Desired>> = None;
        for change in changes {
            world.apply(change);
            let cluster = Arc::clone(derivation.derive(&world.records, None));
            let desired = Arc::clone(kept.desire(&cluster, &world.intents, &world.host));
            prop_assert_eq!(&*desired, &desire(&cluster, &world.intents, &world.host));
            if let Some(before) = before {
                prop_assert_eq!(Arc::ptr_eq(&before, &desired), before == desired);
                for (id, segment) in &desired.segments {
                    let known = before.segments.get(id);
                    prop_assert!(known.is_none_or(|known| Arc::ptr_eq(known, segment) == (known == segment)));
                }
            }
            before = Some(desired);
        }
    }
}
