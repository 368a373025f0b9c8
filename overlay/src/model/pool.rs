//! Where the subnets of networks come from that are made without one.

use std::net::Ipv4Addr;

use crate::model::addr::Subnet;

/// Private addresses (RFC 1918) that are cut into subnets of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// All of them.
    pub all: Subnet,
    /// The prefix length of a network's subnet.
    pub len: u8,
}

/// The pools in the order in which they are used.
pub fn pools() -> [Pool; 3] {
    let pool = |first: [u8; 4], all, len| Pool {
        all: Subnet::of(Ipv4Addr::from(first).into(), all).expect("a length of IPv4"),
        len,
    };
    [pool([10, 128, 0, 0], 9, 16), pool([172, 16, 0, 0], 12, 16), pool([192, 168, 0, 0], 16, 20)]
}

impl Pool {
    /// Its subnets, in order.
    pub fn subnets(self) -> impl Iterator<Item = Subnet> {
        let Self { all, len } = self;
        let count = 1_u128 << (len - all.prefix_len());
        let starts = (0..count).filter_map(move |n| all.nth(n << (32 - len)));
        starts.filter_map(move |start| Subnet::of(start, len))
    }
}

/// What a route of a host takes of the pools, in as few subnets as can be: a host may have a million routes.
pub fn taken_by(route: Subnet) -> impl Iterator<Item = Subnet> {
    pools().into_iter().filter(move |pool| pool.all.overlaps(&route)).filter_map(move |Pool { all, len }| {
        match route.prefix_len() {
            wider if wider <= all.prefix_len() => Some(all),
            narrower if narrower > len => Subnet::of(route.network(), len),
            _ => Some(route),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(route: &str) -> Vec<String> {
        taken_by(route.parse().expect("a subnet")).map(|subnet| subnet.to_string()).collect()
    }

    #[test]
    fn a_route_takes_the_subnets_that_it_overlaps() {
        assert_eq!(taken("10.0.0.0/8"), ["10.128.0.0/9"]);
        assert_eq!(taken("10.130.0.0/15"), ["10.130.0.0/15"]);
        assert_eq!(taken("10.130.7.0/24"), ["10.130.0.0/16"]);
        assert_eq!(taken("192.168.17.0/24"), ["192.168.16.0/20"]);
        assert_eq!(taken("0.0.0.0/1"), ["10.128.0.0/9"]);
        assert_eq!(taken("128.0.0.0/1"), ["172.16.0.0/12", "192.168.0.0/16"]);
        assert!(taken("203.0.113.0/24").is_empty() && taken("fd00::/8").is_empty());
    }

    #[test]
    fn the_subnets_of_a_pool_fill_it() {
        let counts = pools().map(|pool| pool.subnets().filter(|subnet| pool.all.contains(subnet.last())).count());
        assert_eq!(counts, [128, 16, 16]);
    }
}
