//! How this host knows of an incarnation: what the roster judges, and the transport goes by.

/// How this host knows of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This host has heard it alive, or started before it. Digests name it as it is.
    Witnessed,
    /// Only other hosts have heard it. Digests name it with a heartbeat of 0.
    Hearsay,
    /// It is silent for so long that the hosts that heard it no longer name it. Digests leave it out.
    Past,
}
