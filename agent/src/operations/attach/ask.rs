//! What other hosts are asked for, for a new endpoint: an address that is theirs, or a part of their space.

use std::net::IpAddr;

use overlay::ledger::{Answer, Ask, Denial, Question};
use overlay::model::id::{HostId, NetworkId};
use overlay::operations::attach::{Attach, AttachRefusal};
use overlay::operations::hear::Inputs;

use super::explain::not_given;
use super::{AttachError, Attacher};
use crate::peer::CallError;

impl Attacher {
    /// Asks another host, and tells the ledger what it has given. That it has no space to give is no reason to give up; that it
    /// refuses the address is.
    pub(super) async fn ask(&self, request: &Attach, network: NetworkId, ask: Ask) -> Result<(), AttachError> {
        let (of, address): (HostId, Option<IpAddr>) = match ask {
            Ask::Space { of, .. } => (of, None),
            Ask::Address { of, address } => (of, Some(address)),
        };
        let error = match self.peers.ask(network, ask).await {
            Ok((statements, stamp)) => {
                let heard = Question::from((network, ask)).answered((of, stamp), Answer::Given(statements));
                self.state.tell(Inputs(heard)).await?;
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(address) = address else {
            tracing::info!(host = %of.short(), %error, "no space from this host");
            return Ok(());
        };
        let view = request.cluster.networks.get(&network);
        let refused = view.and_then(|view| not_given(&self.seen.borrow(), view, (address, of), &error));
        let denial = match (refused, error) {
            (Some(refused), _) => return Err(refused),
            (None, CallError::Denied(denial)) => denial.about(Some(address)),
            (None, error) => {
                tracing::warn!(host = %of.short(), %error, "the holder of an address did not answer");
                Denial::Unreachable { address, holder: of }
            }
        };
        let asked = request.request_for(network, address);
        let asked = asked.ok_or(AttachError::UnknownNetwork(request.spec.network.clone()))?;
        Err(self.refused(request, AttachRefusal::Denied(Box::new(asked), denial)).await)
    }
}
