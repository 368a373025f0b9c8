//! Links: which container may reach which, in a network where containers reach each other by links only (`--icc=false`).
//!
//! A link names endpoints, not addresses: it holds for whoever has the names, now and later. Hosts tell each other what was
//! decided of each link and when, and the newest decision counts, so all that have heard the same agree.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::model::network::{Lamport, Name, NameError};
use crate::model::publish::{self, Protocol};

/// A link: whoever is called `from` may open connections to whoever is called `to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Name or alias of who may.
    pub from: Name,
    /// Name or alias of who is reached.
    pub to: Name,
    /// The one port that is reached; all of them, and pings, if there is none.
    pub service: Option<Service>,
}

/// A port of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Of what.
    pub protocol: Protocol,
    /// The port, from 1.
    pub port: u16,
}

/// What was decided of a link. The order is that in which decisions count: the later one, and of two at once the one that
/// closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkDecision {
    /// When.
    pub at: Lamport,
    /// Is it closed?
    pub removed: bool,
}

/// All that was decided of the links of a network. What was removed is kept, or a host that was away would bring it back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(BTreeMap<Link, LinkDecision>);

impl Links {
    /// Decisions of one network at most, also those to remove: all hosts are told of all of them.
    pub const MAX: usize = 1024;

    /// The links that are open.
    pub fn open(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(|(_, decision)| !decision.removed).map(|(link, _)| link)
    }

    /// All decisions.
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = (&Link, &LinkDecision)> {
        self.0.iter()
    }

    /// Is there no decision?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was decided of a link last.
    pub fn of(&self, link: &Link) -> Option<LinkDecision> {
        self.0.get(link).copied()
    }

    /// When the newest one was made.
    pub fn newest(&self) -> Option<Lamport> {
        self.0.values().map(|decision| decision.at).max()
    }

    /// Is there room for a decision about this link?
    pub fn takes(&self, link: &Link) -> bool {
        self.0.len() < Self::MAX || self.0.contains_key(link)
    }

    /// Hears a decision.
    pub fn decide(&mut self, link: Link, decision: LinkDecision) {
        let known = self.0.entry(link).or_insert(decision);
        *known = decision.max(*known);
    }

    /// Hears what another host says.
    pub fn join(&mut self, other: &Self) {
        for (link, decision) in &other.0 {
            self.decide(link.clone(), *decision);
        }
    }
}

impl FromIterator<(Link, LinkDecision)> for Links {
    fn from_iter<I: IntoIterator<Item = (Link, LinkDecision)>>(decisions: I) -> Self {
        let mut links = Self::default();
        decisions.into_iter().for_each(|(link, decision)| links.decide(link, decision));
        links
    }
}

/// Who is reached, as people write it: `NAME[:PORT[/PROTOCOL]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Name or alias.
    pub to: Name,
    /// The port.
    pub service: Option<Service>,
}

/// A text that says nobody who could be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReachedError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a port.
    #[error("`{port}` in `{text}` is no port: give 1 to 65535, like db:6379")]
    Port {
        /// All of it.
        text: String,
        /// What should be a port.
        port: String,
    },
    /// Not a protocol.
    #[error("there is no protocol `{protocol}` in `{text}`: choose tcp, udp or sctp")]
    Protocol {
        /// All of it.
        text: String,
        /// What should be a protocol.
        protocol: String,
    },
}

impl FromStr for Reached {
    type Err = ReachedError;

    fn from_str(text: &str) -> Result<Self, ReachedError> {
        let Some((name, service)) = text.split_once(':') else { return Ok(Self { to: text.parse()?, service: None }) };
        let (port, protocol) = service.split_once('/').unwrap_or((service, "tcp"));
        let unknown = || ReachedError::Protocol { text: text.to_owned(), protocol: protocol.to_owned() };
        let wrong = || ReachedError::Port { text: text.to_owned(), port: port.to_owned() };
        let number = publish::port(port).ok_or_else(wrong)?;
        let service = Service { protocol: Protocol::named(protocol).ok_or_else(unknown)?, port: number };
        Ok(Self { to: name.parse()?, service: Some(service) })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to `{}`", self.from, self.to)?;
        self.service.map_or(Ok(()), |service| write!(f, " at {service}"))
    }
}

#[cfg(test)]
mod tests;
