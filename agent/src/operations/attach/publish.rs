//! Ports of this host that lead to an endpoint, while it is attached.

use std::sync::Arc;

use overlay::model::intent::Attachment;
use overlay::model::network::Name;
use overlay::model::publish::HostPort;
use overlay::operations::publish_port::{PublishPorts, PublishRefusal, WantedPort};

use super::{AttachError, Attacher};
use crate::operations::port_check::obstacles;
use crate::state::DecideError;

impl Attacher {
    /// Lets these ports of this host lead to an endpoint too, and those no more. When this returns they do.
    ///
    /// # Errors
    /// When one can't; then all is as it was. Or when the kernel does not take them: then they are kept, and tried again.
    pub async fn publish(
        &self,
        network: &str,
        name: &Name,
        publish: Vec<WantedPort>,
        withdraw: Vec<HostPort>,
    ) -> Result<Arc<Attachment>, AttachError> {
        let before = self.named(network, name)?;
        let (endpoint, network) = (before.endpoint.id, before.endpoint.network);
        let new = publish.iter().map(|wanted| wanted.host).filter(|host| !before.published.contains_key(host));
        let obstacles = obstacles(new.collect()).await;
        let gone =
            || AttachError::UnknownEndpoint { name: name.to_string(), network: network.short(), elsewhere: None };
        let decided = self.state.decide(PublishPorts { endpoint, publish, withdraw, obstacles }).await;
        let done = decided.map_err(|error| match error {
            DecideError::Refused(PublishRefusal::Gone) => gone(),
            DecideError::Refused(PublishRefusal::Port(error)) => AttachError::Port(error),
            DecideError::Store(error) => AttachError::Store(error),
        })?;
        let settled = self.settle(done.commit, network, endpoint).await;
        settled.map_err(|why| AttachError::Ports { name: name.clone(), why })?;
        Ok(done.answer)
    }
}
