//! Ports of this host that lead to an endpoint, while it is attached.

use std::sync::Arc;

use overlay::model::id::EndpointId;
use overlay::model::intent::Attachment;
use overlay::model::network::{Name, Network};
use overlay::model::publish::{HostPort, Protocol};

use super::{AttachError, Attacher};
use crate::operations::ports::{self, PortError};
use crate::state::Local;

impl Attacher {
    /// Lets these ports of this host lead to an endpoint too, and those no more. When this returns they do.
    ///
    /// # Errors
    /// When one can't; then all is as it was. Or when the kernel does not take them: then they are kept, and tried again.
    pub async fn publish(
        &self,
        network: &str,
        name: &Name,
        wanted: Vec<ports::Wanted>,
        unwanted: Vec<HostPort>,
    ) -> Result<Attachment, AttachError> {
        let before = self.named(network, name)?;
        let (id, network) = (before.endpoint.id, before.endpoint.network);
        let definition = self.local.kept.borrow().intents.networks.get(&network).cloned();
        let definition = definition.ok_or_else(|| AttachError::UnknownNetwork(network.short()))?;
        let mut left = before.published.clone();
        for port in &unwanted {
            let gone = |port| PortError::NotPublished { port, name: name.clone() };
            ports::withdraw(&mut left, *port).map_err(gone)?;
        }
        self.check_ports(&definition, Some(id), &wanted)?;
        let change = move |local: &mut Local| {
            let mut published = ports::publish(local.intents(), &definition, id, &wanted)?;
            for port in unwanted {
                // What is gone meanwhile leads nowhere, as was asked.
                let _ = ports::withdraw(&mut published, port);
            }
            Ok(local.publish_ports(id, published)?)
        };
        let changed: Result<_, AttachError> = self.local.call(change).await;
        let page = changed?;
        let settled = self.settle(page, network, id).await;
        settled.map_err(|why| AttachError::Ports { name: name.clone(), why })?;
        self.local.kept.borrow().intents.attachments.get(&id).cloned().ok_or_else(|| AttachError::UnknownEndpoint {
            name: name.to_string(),
            network: network.short(),
            elsewhere: None,
        })
    }

    /// What can be said against ports before anything is asked of others.
    pub(super) fn check_ports(
        &self,
        network: &Network,
        endpoint: Option<EndpointId>,
        wanted: &[ports::Wanted],
    ) -> Result<(), AttachError> {
        let intents = Arc::clone(&self.local.kept.borrow().intents);
        // One that is not there yet has an id that no other has.
        let id = endpoint.unwrap_or_else(|| EndpointId::from_bytes(crate::random()));
        ports::publish(&intents, network, id, wanted)?;
        let own = intents.attachments.get(&id).map(|a| &a.published);
        let fresh = wanted.iter().map(|w| w.host).filter(|host| !own.is_some_and(|own| own.contains_key(host)));
        let tunnels = self.seen.borrow().cluster.hosts.get(&self.me).map(|host| host.info.vxlan_port);
        for host in fresh {
            // Also where there is no tunnel yet.
            if host.protocol == Protocol::Udp && tunnels == Some(host.port) {
                return Err(PortError::Tunnel(host).into());
            }
            ports::check_unused(host)?;
        }
        Ok(())
    }
}
