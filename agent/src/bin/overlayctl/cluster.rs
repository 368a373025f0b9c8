//! `overlayctl cluster`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;

use crate::output::{Failure, Format, json, line};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print a new secret for a cluster: put it in a file that only root can read, the same on all hosts
    Keygen,
}

pub fn run(verb: &Verb, format: Format) -> Result<(), Failure> {
    match verb {
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
