//! What is decided of links, kept by every host that keeps their network alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay::model::id::NetworkId;
use overlay::model::links::{Decision, Link, Links};

use super::Local;
use crate::state::store::{StoreError, Write};

impl Local {
    /// Hears what others say of links, in networks that it knows.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub fn hear_links(&mut self, heard: &BTreeMap<NetworkId, Links>) -> Result<(), StoreError> {
        for (network, heard) in heard {
            let mut links = self.intents.links.get(network).cloned().unwrap_or_default();
            links.join(heard);
            self.put_links(*network, links)?;
        }
        Ok(())
    }

    /// Decides about a link in a network that it knows.
    ///
    /// # Errors
    /// When it can't be made durable; then nothing has happened.
    pub fn decide(&mut self, network: NetworkId, link: Link, decision: Decision) -> Result<(), StoreError> {
        let mut links = self.intents.links.get(&network).cloned().unwrap_or_default();
        links.decide(link, decision);
        self.put_links(network, links)
    }

    fn put_links(&mut self, network: NetworkId, links: Links) -> Result<(), StoreError> {
        let before = self.intents.links.get(&network);
        if !self.ledger.accounts().contains_key(&network) || before.map_or(links.is_empty(), |known| *known == links) {
            return Ok(());
        }
        let before = Arc::clone(&self.intents);
        Arc::make_mut(&mut self.intents).links.insert(network, links.clone());
        let written = self.commit(&[], vec![Write::Links(network, links)]);
        if written.is_err() {
            self.intents = before;
        }
        written.map(drop)
    }
}
