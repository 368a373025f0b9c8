//! The wire of the overlay network, generated from the files in `overlay/v1`, which say what each message means.
//!
//! - `control`: overlayctl and the runtimes' plugins to overlayd;
//! - `peer`: overlayd to overlayd;
//! - `record`: what hosts gossip and keep on disk.

#![forbid(unsafe_code)]

/// Version 1 of all of it.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the .proto files are the documentation")]
pub mod v1 {
    tonic::include_proto!("overlay.v1");
}
