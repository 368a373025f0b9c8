//! The names of our interfaces, in one place: devices, rules and looks all refer to them.

/// The bridge in every segment.
pub const BRIDGE: &str = "br0";
/// The VXLAN device in every segment.
pub const TUNNEL: &str = "vx0";
/// The segment's end of its uplink.
pub const UPLINK: &str = "up0";
/// How the host's end of an uplink begins; the tag of the network follows.
pub const UPLINK_PREFIX: &str = "ovu";
/// How the segment's end of an endpoint's veth pair begins; the tag of the endpoint follows.
pub const PORT_PREFIX: &str = "ovp";
/// Every host's end of an uplink, as `nft` takes it.
pub const ANY_UPLINK: &str = "ovu*";
/// Every segment's end of an endpoint's veth pair, as `nft` takes it.
pub const ANY_PORT: &str = "ovp*";
