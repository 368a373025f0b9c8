//! A subnet of a network: its gateway, what is handed out of it, and how it is cut into blocks.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::model::addr::Subnet;

/// One subnet of a network and how it is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The subnet.
    pub subnet: Subnet,
    /// The anycast gateway: every host answers for it, so it is no endpoint's address.
    pub gateway: IpAddr,
    /// Where addresses are taken from for endpoints that ask for none by number; `None` for all of the subnet.
    pub pool: Option<Subnet>,
}

/// Why an endpoint can't have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is in none of the network's subnets.
    #[error("it is outside of the subnet")]
    Outside,
    /// It is the first of its subnet: the subnet's own (RFC 1122, section 3.2.1.3), in IPv6 that of its routers (RFC 4291,
    /// section 2.6.1).
    #[error("it is the address of the subnet itself")]
    OfSubnet,
    /// It is the last of its IPv4 subnet (RFC 1122, section 3.2.1.3).
    #[error("it is the broadcast address of the subnet")]
    Broadcast,
    /// Every host answers for it.
    #[error("it is the gateway's")]
    Gateway,
    /// It was set aside when the network was made.
    #[error("it is set aside as an auxiliary address")]
    Auxiliary,
}

/// Why a subnet and a gateway do not make a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The prefix is too short or too long.
    #[error("subnet {subnet} has the wrong size: choose one with a prefix of /{} to /{}", sizes.start(), sizes.end())]
    Size {
        /// The subnet asked for.
        subnet: Subnet,
        /// The lengths that its prefix may have.
        sizes: RangeInclusive<u8>,
    },
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
    /// Addresses can't be taken from there.
    #[error("range {pool} is no part of subnet {subnet}: choose a smaller one inside of it")]
    PoolOutside {
        /// Where they were to be taken from.
        pool: Subnet,
        /// The subnet.
        subnet: Subnet,
    },
    /// There are none.
    #[error("range {pool} of subnet {subnet} has no address for an endpoint: choose a larger one")]
    PoolEmpty {
        /// Where they were to be taken from.
        pool: Subnet,
        /// The subnet.
        subnet: Subnet,
    },
}

/// What can't be a container network's (RFC 6890, RFC 4291).
const RESERVED: [(&str, &str); 8] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast and future use"),
    ("::/8", "loopback, and IPv4 addresses written as IPv6"),
    ("fd6f:7665:726c::/48", "the links between segments and their host"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast"),
];

/// The lengths that a prefix may have: a shorter IPv4 one has more addresses than 1,024 blocks should, and a longer one none
/// for endpoints; IPv6 is handed out by /32 at most (RFC 6177, section 2).
const SIZES: [RangeInclusive<u8>; 2] = [9..=30, 32..=126];

impl Range {
    /// At most this many blocks in a range: what a host says of its leases stays small.
    pub const MAX_BLOCKS: u32 = 1024;

    /// A range with this subnet; the gateway is its first host address unless given.
    ///
    /// # Errors
    /// When the subnet can't be a network's, or the gateway is not one of its host addresses.
    pub fn new(subnet: Subnet, gateway: Option<IpAddr>) -> Result<Self, RangeError> {
        let [v4, v6] = SIZES;
        let sizes = if subnet.network().is_ipv4() { v4 } else { v6 };
        if !sizes.contains(&subnet.prefix_len()) {
            return Err(RangeError::Size { subnet, sizes });
        }
        for (reserved, what) in RESERVED {
            let reserved = reserved.parse().expect("the table holds subnets");
            if subnet.overlaps(&reserved) {
                return Err(RangeError::Reserved { subnet, reserved, what });
            }
        }
        let gateway = gateway.or_else(|| subnet.nth(1)).expect("a /30 or shorter has a second address");
        host_address(&subnet, gateway).map_err(|why| RangeError::Gateway { gateway, subnet, why })?;
        Ok(Self { subnet, gateway, pool: None })
    }

    /// The same, with addresses taken from this part of the subnet only, unless one is asked for by number.
    ///
    /// # Errors
    /// When it is no part of the subnet, or has no address for an endpoint.
    pub fn with_pool(self, pool: Subnet) -> Result<Self, RangeError> {
        let subnet = self.subnet;
        if !subnet.contains(pool.network()) || pool.prefix_len() < subnet.prefix_len() {
            return Err(RangeError::PoolOutside { pool, subnet });
        }
        // Three addresses at most are no endpoint's.
        if !(0..4).filter_map(|n| pool.nth(n)).any(|a| self.admit(a).is_ok()) {
            return Err(RangeError::PoolEmpty { pool, subnet });
        }
        Ok(Self { pool: Some(pool), ..self })
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

    pub(super) fn block_index(&self, address: IpAddr) -> Option<u16> {
        let index = self.subnet.offset(address)? >> self.block_bits();
        u16::try_from(index).ok()
    }

    pub(super) fn block_subnet(&self, index: u16) -> Option<Subnet> {
        let first = self.subnet.nth(u128::from(index) << self.block_bits())?;
        let len = self.subnet.prefix_len() + (self.subnet.host_bits() - self.block_bits());
        Subnet::of(first, len)
    }
}

/// Is it an address that a host of the subnet can have?
fn host_address(subnet: &Subnet, address: IpAddr) -> Result<(), Unfit> {
    if !subnet.contains(address) {
        Err(Unfit::Outside)
    } else if address == subnet.network() {
        Err(Unfit::OfSubnet)
    } else if address.is_ipv4() && address == subnet.last() {
        Err(Unfit::Broadcast)
    } else {
        Ok(())
    }
}
