//! A network: one L2 segment with its own address space. Its definition never changes; whoever is in it
//! publishes it again, so it lives as long as somebody needs it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::addr::Subnet;
use crate::id::{HostId, NetworkId};

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

/// One subnet of a network and how it is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The subnet.
    pub subnet: Subnet,
    /// The anycast gateway: every host answers for it, so it is no endpoint's address.
    pub gateway: IpAddr,
}

/// The unit of allocation: an aligned range of addresses of one of a network's subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Which of the network's ranges, from 0.
    pub range: u8,
    /// Which block of that range, from 0; less than [`Range::blocks`].
    pub index: u16,
}

/// Why an endpoint can't have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is in none of the network's subnets.
    #[error("it is outside of the subnet")]
    Outside,
    /// It is the first of its subnet: the subnet's own (RFC 1122, section 3.2.1.3).
    #[error("it is the address of the subnet itself")]
    OfSubnet,
    /// It is the last of its subnet (RFC 1122, section 3.2.1.3).
    #[error("it is the broadcast address of the subnet")]
    Broadcast,
    /// Every host answers for it.
    #[error("it is the gateway's")]
    Gateway,
}

/// Why a subnet and a gateway do not make a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// IPv6 is not there yet.
    #[error("subnet {0} is IPv6, but only IPv4 is supported so far: choose one like 172.38.0.0/16")]
    NotIpv4(Subnet),
    /// The prefix is too short or too long.
    #[error("subnet {0} has the wrong size: choose one with a prefix of /9 to /30")]
    Size(Subnet),
    /// Addresses that no network may have.
    #[error("subnet {subnet} overlaps {reserved}, which is reserved for {what}: choose another subnet")]
    Reserved {
        /// The subnet asked for.
        subnet: Subnet,
        /// The range it touches.
        reserved: Subnet,
        /// What that is for.
        what: &'static str,
    },
    /// The gateway is not one of the subnet's host addresses.
    #[error("gateway {gateway} can't be used in subnet {subnet}: {why}; choose one of its host addresses")]
    Gateway {
        /// The gateway asked for.
        gateway: IpAddr,
        /// The subnet.
        subnet: Subnet,
        /// What it is.
        why: Unfit,
    },
}

/// IPv4 ranges that can't be a container network's (RFC 6890).
const RESERVED: [(&str, &str); 4] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast and future use"),
];

impl Range {
    /// At most this many blocks in a range: what a host says of its leases stays small.
    pub const MAX_BLOCKS: u32 = 1024;

    /// A range with this subnet; the gateway is its first host address unless given.
    ///
    /// # Errors
    /// When the subnet can't be a network's, or the gateway is not one of its host addresses.
    pub fn new(subnet: Subnet, gateway: Option<IpAddr>) -> Result<Self, RangeError> {
        if subnet.network().is_ipv6() {
            return Err(RangeError::NotIpv4(subnet));
        }
        if !(9..=30).contains(&subnet.prefix_len()) {
            return Err(RangeError::Size(subnet));
        }
        for (reserved, what) in RESERVED {
            let reserved = reserved.parse().expect("the table holds subnets");
            if subnet.overlaps(&reserved) {
                return Err(RangeError::Reserved { subnet, reserved, what });
            }
        }
        let gateway = gateway.or_else(|| subnet.nth(1)).expect("a /30 or shorter has a second address");
        host_address(&subnet, gateway).map_err(|why| RangeError::Gateway { gateway, subnet, why })?;
        Ok(Self { subnet, gateway })
    }

    /// Addresses in a block as a power of two: at most [`Self::MAX_BLOCKS`] blocks, at least four addresses each.
    fn block_bits(&self) -> u8 {
        self.subnet.host_bits().saturating_sub(10).max(2)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u16 {
        1 << (self.subnet.host_bits() - self.block_bits())
    }

    /// Number of addresses in each block, whether an endpoint may have them or not.
    pub fn block_size(&self) -> u128 {
        1 << self.block_bits()
    }

    /// Can an endpoint have this address?
    ///
    /// # Errors
    /// With what it is instead.
    pub fn admit(&self, address: IpAddr) -> Result<(), Unfit> {
        host_address(&self.subnet, address)?;
        if address == self.gateway { Err(Unfit::Gateway) } else { Ok(()) }
    }

    fn block_index(&self, address: IpAddr) -> Option<u16> {
        let index = self.subnet.offset(address)? >> self.block_bits();
        u16::try_from(index).ok()
    }

    fn block_subnet(&self, index: u16) -> Option<Subnet> {
        let first = self.subnet.nth(u128::from(index) << self.block_bits())?;
        let len = self.subnet.prefix_len() + (self.subnet.host_bits() - self.block_bits());
        Subnet::of(first, len)
    }
}

/// Is it an address that a host of the subnet can have?
fn host_address(subnet: &Subnet, address: IpAddr) -> Result<(), Unfit> {
    match address {
        _ if !subnet.contains(address) => Err(Unfit::Outside),
        _ if address == subnet.network() => Err(Unfit::OfSubnet),
        _ if address == subnet.last() => Err(Unfit::Broadcast),
        _ => Ok(()),
    }
}

/// The definition of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Drawn at random by the creator.
    pub id: NetworkId,
    /// What people call it. Two partitions may have given one name to two networks.
    pub name: Name,
    /// Its subnets, at least one.
    pub ranges: Vec<Range>,
    /// When it was created; with the id it decides whom a doubled name means.
    pub created: Lamport,
    /// The host that created it.
    pub creator: HostId,
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
        self.range_of(address).ok_or(Unfit::Outside).and_then(|(_, range)| range.admit(address))
    }

    /// All blocks, in order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        (0_u8..).zip(&self.ranges).flat_map(|(range, r)| (0..r.blocks()).map(move |index| BlockId { range, index }))
    }

    /// The addresses of a block as a subnet; `None` if the network has no such block.
    pub fn block_subnet(&self, block: BlockId) -> Option<Subnet> {
        self.ranges.get(usize::from(block.range))?.block_subnet(block.index)
    }

    /// The addresses of a block that an endpoint can have, in order.
    pub fn assignable_in(&self, block: BlockId) -> impl Iterator<Item = IpAddr> + '_ {
        let range = self.ranges.get(usize::from(block.range));
        let subnet = self.block_subnet(block);
        range.zip(subnet).into_iter().flat_map(|(range, subnet)| {
            (0..range.block_size()).filter_map(move |n| subnet.nth(n)).filter(|a| range.admit(*a).is_ok())
        })
    }
}

#[cfg(test)]
mod tests;
