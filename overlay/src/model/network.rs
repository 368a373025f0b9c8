//! A network: one L2 segment with its own address space. Its definition never changes; whoever is in it
//! publishes it again, so it lives as long as somebody needs it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::addr::{IpVersion, Subnet};
use crate::model::id::{HostId, NetworkId};

mod range;
mod settings;

pub use range::{Range, RangeError, Unfit};
pub use settings::{Driver, DriverError, Settings, SettingsError};

/// What people call a network or an endpoint: one DNS label (RFC 1035, section 2.3.1) of 1 to 63 letters, digits,
/// hyphens and, because container names have them, underscores. DNS has no case, so it is kept in lower case. Shared,
/// since every look at the cluster copies those of all endpoints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: 1 to 63 letters, digits, `-` or `_`, with a letter or digit first and last")]
pub struct NameError(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let valid = text.len() <= 63
            && text.chars().all(inner)
            && outer(text.chars().next())
            && outer(text.chars().next_back());
        if valid { Ok(Self(text.to_ascii_lowercase().into())) } else { Err(NameError(text.to_owned())) }
    }
}

/// When something was created, in the order of cause and effect: one more than the highest that its creator had seen.
pub type Lamport = u64;

/// The unit of allocation: an aligned range of addresses of one of a network's subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Which of the network's ranges, from 0.
    pub range: u8,
    /// Which block of that range, from 0; less than [`Range::blocks`].
    pub index: u16,
}

/// The definition of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Drawn at random by the creator.
    pub id: NetworkId,
    /// What people call it. Two partitions may have given one name to two networks.
    pub name: Name,
    /// Its subnets: one, or one of IPv4 and one of IPv6.
    pub ranges: Vec<Range>,
    /// When it was created; with the id it decides whom a doubled name means.
    pub created: Lamport,
    /// The host that created it.
    pub creator: HostId,
    /// When that was by the creator's clock, in seconds since 1970: for people, nothing depends on it.
    pub since: u64,
    /// How it behaves.
    pub settings: Settings,
}

/// Fewer digits of an id than this mean no network.
const MIN_ID_PREFIX: usize = 4;

impl Network {
    /// Can people mean this network by the text: by its name, `name~id`, its id, or the start of that? Which of several they
    /// mean is for the cluster to say, and may change.
    pub fn may_be_called(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let (name, id) = text.split_once('~').map_or((None, text.as_str()), |(name, id)| (Some(name), id));
        let named = name.is_none_or(|n| n == self.name.as_str());
        text == self.name.as_str() || named && id.len() >= MIN_ID_PREFIX && self.id.to_string().starts_with(id)
    }

    /// The versions of IP that its endpoints have, IPv4 first.
    pub fn versions(&self) -> impl Iterator<Item = IpVersion> + use<> {
        let versions: BTreeSet<IpVersion> = self.ranges.iter().map(|range| range.subnet.version()).collect();
        versions.into_iter()
    }

    /// The range that `address` is in, with its number.
    pub fn range_of(&self, address: IpAddr) -> Option<(u8, &Range)> {
        (0_u8..).zip(&self.ranges).find(|(_, range)| range.subnet.contains(address))
    }

    /// The block that `address` is in.
    pub fn block_of(&self, address: IpAddr) -> Option<BlockId> {
        let (number, range) = self.range_of(address)?;
        Some(BlockId { range: number, index: range.block_index(address)? })
    }

    /// Can an endpoint have this address?
    pub fn assignable(&self, address: IpAddr) -> bool {
        self.admit(address).is_ok()
    }

    /// The same.
    ///
    /// # Errors
    /// With what the address is instead.
    pub fn admit(&self, address: IpAddr) -> Result<(), Unfit> {
        let (_, range) = self.range_of(address).ok_or(Unfit::Outside)?;
        range.admit(address)?;
        if self.settings.auxiliary.contains_key(&address) { Err(Unfit::Auxiliary) } else { Ok(()) }
    }

    /// All blocks, in order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        (0_u8..).zip(&self.ranges).flat_map(|(range, r)| (0..r.blocks()).map(move |index| BlockId { range, index }))
    }

    /// The addresses of a block as a subnet; `None` if the network has no such block.
    pub fn block_subnet(&self, block: BlockId) -> Option<Subnet> {
        self.ranges.get(usize::from(block.range))?.block_subnet(block.index)
    }

    /// The addresses of a block that an endpoint can have, in order. A block of an IPv6 subnet may have more of them than can be
    /// gone through.
    pub fn assignable_in(&self, block: BlockId) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.block_subnet(block).into_iter().flat_map(|subnet| subnet.addresses());
        all.filter(|a| self.assignable(*a))
    }

    /// The part of a block that an endpoint gets an address of that asks for none by number; `None` if that is nothing.
    pub fn offered_subnet(&self, block: BlockId) -> Option<Subnet> {
        let subnet = self.block_subnet(block)?;
        match self.ranges.get(usize::from(block.range))?.pool {
            // Of two prefixes that overlap one is inside of the other.
            Some(pool) if pool.overlaps(&subnet) => Some(std::cmp::max_by_key(pool, subnet, Subnet::prefix_len)),
            Some(_) => None,
            None => Some(subnet),
        }
    }

    /// Those addresses, in order. A block of an IPv6 subnet may have more of them than can be gone through.
    pub fn offered_in(&self, block: BlockId) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.offered_subnet(block).into_iter().flat_map(|subnet| subnet.addresses());
        all.filter(|a| self.assignable(*a))
    }

    /// Is it one of them?
    pub fn is_offered(&self, address: IpAddr) -> bool {
        let pool = self.range_of(address).and_then(|(_, range)| range.pool);
        self.assignable(address) && pool.is_none_or(|pool| pool.contains(address))
    }

    /// Can an endpoint that asks for none by number have an address of the block?
    pub fn offers(&self, block: BlockId) -> bool {
        self.offered_subnet(block).is_some()
    }

    /// How many addresses of a part of one of its subnets endpoints can have.
    pub fn count_assignable_in(&self, part: &Subnet) -> u128 {
        let all = 1_u128.checked_shl(part.host_bits().into()).unwrap_or(u128::MAX);
        let ranges = self.ranges.iter().filter(|range| range.subnet.overlaps(part));
        let special = ranges.flat_map(|range| [range.subnet.network(), range.subnet.last(), range.gateway]);
        let special: BTreeSet<IpAddr> = special.chain(self.settings.auxiliary.keys().copied()).collect();
        let unfit = special.into_iter().filter(|a| part.contains(*a) && !self.assignable(*a)).count();
        all.saturating_sub(u128::try_from(unfit).unwrap_or(u128::MAX))
    }
}

#[cfg(test)]
mod tests;
