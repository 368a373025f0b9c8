//! What the reply of another host means for the endpoint that waits for it.

use std::net::IpAddr;

use super::{Attach, AttachRefusal};
use crate::ledger::{Answer, Ask, Denial, Input, Question};
use crate::model::id::NetworkId;
use crate::model::member::Stamp;
use crate::model::record::Statement;

/// What became of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The host gave these leases, when its ledger had come so far.
    Given(Vec<Statement>, Stamp),
    /// The host refused.
    Denied(Denial),
    /// The host did not answer, or its answer can't be used.
    NoAnswer,
}

impl Attach {
    /// What the ledger is told of a reply before the endpoint is decided again. A host that gives no space does not end the attach:
    /// another host may hold some. A host that gives no address ends it, since only that host can give the address.
    ///
    /// # Errors
    /// When the address can't be had.
    pub fn answered(&self, network: NetworkId, ask: Ask, reply: Reply) -> Result<Vec<Input>, AttachRefusal> {
        let (Ask::Space { of, .. } | Ask::Address { of, .. }) = ask;
        match (ask, reply) {
            (_, Reply::Given(statements, stamp)) => {
                Ok(Question::from((network, ask)).answered((of, stamp), Answer::Given(statements)))
            }
            (Ask::Space { .. }, Reply::Denied(_) | Reply::NoAnswer) => Ok(Vec::new()),
            (Ask::Address { address, .. }, Reply::Denied(denial)) => {
                Err(self.not_given(network, address, denial.about(Some(address))))
            }
            (Ask::Address { address, of }, Reply::NoAnswer) => {
                Err(self.not_given(network, address, Denial::Unreachable { address, holder: of }))
            }
        }
    }

    fn not_given(&self, network: NetworkId, address: IpAddr, denial: Denial) -> AttachRefusal {
        let request = self.request_for(network, address);
        request.map_or(AttachRefusal::UnknownNetwork, |request| AttachRefusal::Denied(Box::new(request), denial))
    }
}
