//! The cluster: what hosts say of themselves, and what all of it means together.
//!
//! - [`own_record`] makes the record that a host announces, and the ledger inputs that follow from the record of another host.
//! - [`derive()`] makes the [`Cluster`] from all records. Hosts that have received the same records derive the same cluster.
//! - [`Derivation`] does the same, but makes anew only what changed records touch.
//! - [`presence`] decides which hosts are there.
//! - [`bootstrap`] decides which host founds a cluster, and which hosts a host asks to let it in.

pub mod bootstrap;
mod derivation;
mod derive;
mod endpoints;
pub mod own_record;
pub mod presence;
mod view;

pub use derivation::Derivation;
pub use derive::derive;
pub use endpoints::{Endpoints, Located};
pub use view::{Cluster, Host, NetworkView};
