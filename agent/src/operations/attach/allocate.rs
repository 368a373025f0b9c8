//! The addresses of an endpoint: what the ledger grants, and what it wants others to be asked for first.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay::cluster::NetworkView;
use overlay::cluster::bootstrap::reachable;
use overlay::ledger::{Ask, Denial, Input, Outcome, Request};
use overlay::model::endpoint::Assigned;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;

use super::explain::{denied, not_given};
use super::{AttachError, Attacher, Wanted};
use crate::cluster::ClusterView;
use crate::peer::CallError;

impl Attacher {
    /// An address of each of the network's ranges. What was granted before one is refused stays the endpoint's: it has to be let go.
    pub(super) async fn allocate(
        &self,
        seen: &ClusterView,
        view: &NetworkView,
        wanted: &Wanted,
        endpoint: EndpointId,
    ) -> Result<Vec<Assigned>, AttachError> {
        let (network, founder) = (view.network.id, seen.cluster.founder_of(self.me));
        let definition = view.network.clone();
        self.local.call(move |local| local.learn([definition], founder)).await?;
        let reachable = reachable(&seen.cluster);
        let mut granted = Vec::new();
        for (range, of) in (0_u8..).zip(&view.network.ranges) {
            let request = Request {
                network,
                endpoint,
                name: wanted.name.clone(),
                range,
                address: wanted.addresses.iter().copied().find(|address| of.subnet.contains(*address)),
                reachable: reachable.clone(),
                asked: BTreeSet::new(),
            };
            granted.push(self.allocate_one(view, request).await?);
        }
        Ok(granted)
    }

    /// Asks the ledger, and for the ledger the others, until there is an answer.
    async fn allocate_one(&self, view: &NetworkView, mut request: Request) -> Result<Assigned, AttachError> {
        loop {
            let input = Input::Allocate(request.clone());
            match self.local.call(move |local| local.step(&input)).await? {
                Outcome::Granted { address, lease } => return Ok(Assigned { address, lease }),
                Outcome::Denied(denial) => return Err(self.refused(view, &request, denial).await),
                // Nothing is asked twice, so this ends.
                Outcome::Ask(ask) => {
                    request.asked.insert(ask);
                    if let Err(denial) = self.ask(view, ask).await? {
                        return Err(self.refused(view, &request, denial).await);
                    }
                }
                _ => unreachable!("an allocation is granted, denied or asked for"),
            }
        }
    }

    /// A denial, with the name of the endpoint that has the address: who was given it a moment ago is in no view yet.
    async fn refused(&self, view: &NetworkView, request: &Request, denial: Denial) -> AttachError {
        let network = view.network.id;
        if let Denial::Bound { address, .. } | Denial::Delegated { address, .. } = denial {
            self.until(|seen| seen.cluster.networks.get(&network).is_none_or(|v| v.at(address).is_some())).await;
        }
        let seen = self.seen.borrow().clone();
        let now = seen.cluster.networks.get(&network);
        denied(&seen, now.unwrap_or(view), request, denial)
    }

    /// Asks another host. That it has no space to give is no reason to give up; that it refuses the address is.
    async fn ask(&self, view: &NetworkView, ask: Ask) -> Result<Result<(), Denial>, AttachError> {
        let network = view.network.id;
        let (of, address): (HostId, Option<IpAddr>) = match ask {
            Ask::Space { of, .. } => (of, None),
            Ask::Address { of, address } => (of, Some(address)),
        };
        match (self.peers.ask(network, ask).await, address) {
            (Ok((statements, stamp)), _) => Ok(Ok(self.hear(network, (of, stamp), statements).await?)),
            (Err(error), None) => {
                tracing::info!(host = %of.short(), %error, "no space from this host");
                Ok(Ok(()))
            }
            (Err(error), Some(address)) => {
                let refused = not_given(&self.seen.borrow(), view, (address, of), &error);
                match (refused, error) {
                    (Some(refused), _) => Err(refused),
                    (None, CallError::Denied(denial)) => Ok(Err(denial.about(Some(address)))),
                    (None, error) => {
                        tracing::warn!(host = %of.short(), %error, "the holder of an address did not answer");
                        Ok(Err(Denial::Unreachable { address, holder: of }))
                    }
                }
            }
        }
    }

    async fn hear(
        &self,
        network: NetworkId,
        (from, stamp): (HostId, Stamp),
        statements: Vec<Statement>,
    ) -> Result<(), AttachError> {
        let stated = |statement| Input::Stated { network, from, stamp, statement };
        let inputs: Vec<Input> = statements.into_iter().map(stated).collect();
        Ok(self.local.call(move |local| local.step_all(&inputs)).await?)
    }
}
