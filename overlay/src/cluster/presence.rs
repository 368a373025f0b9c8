//! Which hosts are there, by what is heard of their agents and by whether their machines answer.

use crate::model::host::Liveness;

/// What is believed of a host whose agent is heard like this. A silent agent is not a dead host: that takes a machine that was asked and
/// is `absent`, because it did not even refuse a connection.
pub fn liveness(agent: Liveness, absent: bool) -> Liveness {
    match agent {
        Liveness::Live => Liveness::Live,
        Liveness::Dead if absent => Liveness::Dead,
        Liveness::Suspect | Liveness::Dead => Liveness::Suspect,
    }
}

#[cfg(test)]
mod tests;
