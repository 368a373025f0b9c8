//! What other hosts are asked for, for a new endpoint: an address that is theirs, or a part of their space.

use overlay::ledger::Ask;
use overlay::model::id::NetworkId;
use overlay::operations::attach::{Attach, AttachRefusal, Reply};
use overlay::operations::hear::Inputs;

use super::explain::not_given;
use super::{AttachError, Attacher};
use crate::peer::CallError;

impl Attacher {
    /// Asks another host, and tells the ledger what the reply means ([`Attach::answered`]).
    pub(super) async fn ask(&self, request: &Attach, network: NetworkId, ask: Ask) -> Result<(), AttachError> {
        let (reply, error) = match self.peers.ask(network, ask).await {
            Ok((statements, stamp)) => (Reply::Given(statements, stamp), None),
            Err(CallError::Denied(denial)) => (Reply::Denied(denial.clone()), Some(CallError::Denied(denial))),
            Err(error) => (Reply::NoAnswer, Some(error)),
        };
        match (request.answered(network, ask, reply), error) {
            (Ok(inputs), None) => Ok(self.state.tell(Inputs(inputs)).await.map(drop)?),
            (Ok(_), Some(error)) => {
                let (Ask::Space { of, .. } | Ask::Address { of, .. }) = ask;
                tracing::info!(host = %of.short(), %error, "no space from this host");
                Ok(())
            }
            (Err(refusal), error) => Err(self.not_given(request, (network, ask), refusal, error).await),
        }
    }

    /// Why an address is not given, in the words of an operator.
    async fn not_given(
        &self,
        request: &Attach,
        (network, ask): (NetworkId, Ask),
        refusal: AttachRefusal,
        error: Option<CallError>,
    ) -> AttachError {
        if let (Ask::Address { of, address }, Some(error)) = (ask, error) {
            let view = request.cluster.networks.get(&network);
            if let Some(refused) = view.and_then(|view| not_given(&self.seen.borrow(), view, (address, of), &error)) {
                return refused;
            }
            if !matches!(error, CallError::Denied(_)) {
                tracing::warn!(host = %of.short(), %error, "the holder of an address did not answer");
            }
        }
        self.refused(request, refusal).await
    }
}
