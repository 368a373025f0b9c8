//! `overlayctl cluster`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use overlay_proto::v1::TrustDiskRequest;

use crate::client::Client;
use crate::output::{Failure, Format, json, line};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print a new secret for a cluster: put it in a file that only root can read, the same on all hosts
    Keygen,
    /// Answer for the disk of this host after a boot, when the other members can't be asked. Only if you know that it is
    /// not an old copy: what this host has given away since would be used twice
    TrustDisk,
}

pub async fn run(verb: &Verb, client: &Client, format: Format) -> Result<(), Failure> {
    match verb {
        Verb::TrustDisk => {
            let reply = client.connect().await?.trust_disk(TrustDiskRequest {}).await?.into_inner();
            match (format, reply.was_unchecked) {
                (Format::Json, _) => json(&reply),
                (Format::Table, true) => line("the disk of this host is trusted: it acts on its leases"),
                (Format::Table, false) => line("there was nothing to trust: no boot check was under way"),
            }
        }
        Verb::Keygen => {
            let key: Result<[u8; 32], _> = ring::rand::generate(&ring::rand::SystemRandom::new()).map(|r| r.expose());
            let key = key.map_err(|_| Failure::failed("the system gives no random numbers"))?;
            let key = STANDARD.encode(key);
            match format {
                Format::Json => json(&serde_json::json!({ "key": key })),
                Format::Table => line(&key),
            }
        }
    }
}
