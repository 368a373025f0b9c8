use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::gossip::{Hosts, View};

const ME: u8 = 0;

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

/// What gossip can show of a host: what its lives say, and whether it is heard.
fn lives() -> impl Strategy<Value = Vec<gossip::Incarnation>> {
    let said =
        btree_map("[hfx]", "[a-c]{1,2}", 0..3).prop_map(|said| said.into_iter().map(|(k, v)| (k, v.into())).collect());
    let liveness =
        prop_oneof![Just(gossip::Liveness::Live), Just(gossip::Liveness::Suspect), Just(gossip::Liveness::Dead)];
    let life =
        (0_u64..4, any::<bool>(), liveness, said, 1_u16..3).prop_map(|(generation, complete, liveness, said, port)| {
            gossip::Incarnation {
                generation,
                gossip_addr: ([127, 0, 0, 1], port).into(),
                complete,
                liveness,
                entries: Arc::new(said),
            }
        });
    vec(life, 1..3).prop_map(|mut lives| {
        lives.sort_by_key(|life| std::cmp::Reverse(life.generation));
        lives.dedup_by_key(|life| life.generation);
        lives
    })
}

/// What changes between two views: of some hosts what they say, or that they are gone.
type Change = BTreeMap<u8, Option<Vec<gossip::Incarnation>>>;

fn changes() -> impl Strategy<Value = Vec<(Change, BTreeSet<u8>)>> {
    vec((btree_map(ME..4, proptest::option::of(lives()), 0..3), btree_set(1_u8..4, 0..2)), 1..12)
}

proptest! {
    /// Whatever came before, what is heard is what the last view shows, and whatever differs is told.
    #[test]
    fn the_last_view_counts_and_nothing_of_those_before(changes in changes()) {
        let (mut heard, mut hosts) = (Heard::default(), Hosts::new());
        for (change, absent) in changes {
            for (number, lives) in change {
                let node: Arc<str> = host(number).to_string().into();
                match lives {
                    Some(lives) => _ = hosts.insert(node, lives.into()),
                    None => _ = hosts.remove(&node),
                }
            }
            let view = Arc::new(View { synced: true, hosts: hosts.clone() });
            let absent: BTreeSet<HostId> = absent.into_iter().map(host).collect();
            let before = heard.records.clone();
            let changed = heard.hear(host(ME), Arc::clone(&view), absent.clone());

            let mut afresh = Heard::default();
            afresh.hear(host(ME), view, absent);
            prop_assert_eq!(&heard.records, &afresh.records);
            prop_assert_eq!(&heard.addresses, &afresh.addresses);
            prop_assert!(!heard.records.contains_key(&host(ME)), "of itself a host hears nothing");
            for id in before.keys().chain(heard.records.keys()) {
                prop_assert!(before.get(id) == heard.records.get(id) || changed.contains(id), "{} has changed", id.short());
            }
        }
    }
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let life = |liveness| gossip::Incarnation {
        generation: 1,
        gossip_addr: ([127, 0, 0, 1], 1).into(),
        complete: true,
        liveness,
        entries: Arc::default(),
    };
    let (mut heard, node) = (Heard::default(), Arc::<str>::from(host(1).to_string()));
    let shown: Arc<[gossip::Incarnation]> = [life(gossip::Liveness::Live)].into();
    let view = |lives: &Arc<[gossip::Incarnation]>| {
        Arc::new(View { synced: true, hosts: Hosts::from([(Arc::clone(&node), Arc::clone(lives))]) })
    };
    assert_eq!(heard.hear(host(ME), view(&shown), BTreeSet::new()), [host(1)].into());
    let record = Arc::clone(&heard.records[&host(1)][0].record);
    assert_eq!(heard.hear(host(ME), view(&shown), BTreeSet::new()), BTreeSet::new());

    // It falls silent: that is news, but what it says is the same.
    let silent =
        [gossip::Incarnation { entries: Arc::clone(&shown[0].entries), ..life(gossip::Liveness::Dead) }].into();
    assert_eq!(heard.hear(host(ME), view(&silent), BTreeSet::new()), [host(1)].into());
    assert!(Arc::ptr_eq(&record, &heard.records[&host(1)][0].record));
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Suspect);

    assert_eq!(heard.hear(host(ME), view(&silent), [host(1)].into()), [host(1)].into());
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Dead);
    assert!(Arc::ptr_eq(&record, &heard.records[&host(1)][0].record));
}
