//! Which hosts an operator may have forgotten, as far as this host knows. The ledger decides about the rest
//! ([`Input::Forget`](crate::ledger::Input::Forget)).

use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::model::host::Liveness;
use crate::model::id::HostId;
use crate::model::member::Boot;

/// What this host knows of a host that is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It is this host, which can't forget itself.
    Itself,
    /// It is there, or may be.
    There(Liveness),
    /// No host tells of it any more. It may be forgotten if nothing answers where it was.
    Unheard(Boot),
    /// It is gone, or uses nothing here. It may be forgotten. This is the newest boot of it that is known.
    Gone(Boot),
}

/// What a host with this ledger and this view knows of a host that is to be forgotten.
pub fn named(ledger: &Ledger, cluster: &Cluster, host: HostId) -> Named {
    let (membership, known) = (ledger.membership(), cluster.hosts.get(&host));
    let boot = membership.newest_boot(host, known.map(|host| host.info.stamp.boot));
    match known {
        _ if host == ledger.me() => Named::Itself,
        // One of another cluster uses nothing here, wherever it is: it was taken for a member once.
        _ if membership.foreign.contains(&host) => Named::Gone(boot),
        None => Named::Unheard(boot),
        Some(known) if known.liveness != Liveness::Dead => Named::There(known.liveness),
        Some(_) => Named::Gone(boot),
    }
}

impl Named {
    /// The boot that is to be forgotten, if the host may be.
    pub fn boot(self) -> Option<Boot> {
        match self {
            Self::Itself | Self::There(_) => None,
            Self::Unheard(boot) | Self::Gone(boot) => Some(boot),
        }
    }
}

#[cfg(test)]
mod tests;
