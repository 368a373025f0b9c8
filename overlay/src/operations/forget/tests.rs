use std::sync::Arc;

use super::super::fixture::{ME, founder, info};
use super::*;
use crate::cluster::derive;
use crate::ledger::Change;
use crate::model::host::HostInfo;
use crate::model::member::Stamp;
use crate::model::record::{Incarnation, Record, Records};

const OTHER: HostId = HostId::from_bytes([2; 16]);
const BOOT: Boot = Boot { generation: 3, nonce: 7 };

/// The cluster of a host that hears the other one.
fn hears(liveness: Liveness) -> Cluster {
    let host = HostInfo { stamp: Stamp { boot: BOOT, revision: 0 }, founder: Some(ME), ..info() };
    let record = Arc::new(Record { host: Some(host), ..Record::default() });
    let lives = vec![Incarnation { generation: 1, complete: true, liveness, record }];
    derive(&Records::from([(OTHER, lives)]), Some(ME))
}

#[test]
fn only_a_host_that_is_gone_may_be_forgotten() {
    let ledger = founder().ledger;
    for liveness in [Liveness::Live, Liveness::Suspect] {
        assert_eq!(named(&ledger, &hears(liveness), OTHER), Named::There(liveness));
    }
    assert_eq!(named(&ledger, &hears(Liveness::Dead), OTHER), Named::Gone(BOOT));
    assert_eq!(named(&ledger, &Cluster::default(), OTHER), Named::Unheard(Boot::default()));
    assert_eq!(named(&ledger, &hears(Liveness::Dead), ME), Named::Itself);
}

#[test]
fn a_host_of_another_cluster_may_be_forgotten_while_it_is_there() {
    let mut ledger = founder().ledger;
    ledger.apply(&[Change::Member(OTHER), Change::Foreign(OTHER)]);
    assert_eq!(named(&ledger, &hears(Liveness::Live), OTHER), Named::Gone(BOOT));
}
