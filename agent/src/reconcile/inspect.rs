//! What people are shown of the kernel. It is read beside the rounds, by sockets of its own.

use std::path::PathBuf;

use overlay::datapath::inspected::{Inspected, InterfaceInfo};
use overlay::datapath::kernel_api::StepError;
use overlay::kernel::inspect;
use overlay::model::id::NetworkId;
use overlay::model::intent::NetnsRef;

/// Looks into segments and containers of this host.
#[derive(Debug, Clone)]
pub struct Inspector {
    /// Where the segments' namespaces are.
    pub netns_dir: PathBuf,
}

impl Inspector {
    /// The segment of a network, and the path of its namespace; `None` if this host has none.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub async fn segment(&self, network: NetworkId) -> Result<Option<(PathBuf, Inspected)>, StepError> {
        let path = self.netns_dir.join(network.to_string());
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(None);
        }
        let inspected = inspect::segment(&path).await?;
        Ok(Some((path, inspected)))
    }

    /// The interfaces in a container.
    ///
    /// # Errors
    /// When its namespace is gone, or can't be looked at.
    pub async fn container(&self, netns: &NetnsRef) -> Result<Vec<InterfaceInfo>, StepError> {
        inspect::container(netns).await
    }
}
