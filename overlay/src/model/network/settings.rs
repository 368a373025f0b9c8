//! How a network behaves: chosen when it is made, the same on every host, never changed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Name;

/// How the parts of a network on different hosts are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// By VXLAN tunnels: one L2 segment over all hosts.
    #[default]
    Vxlan,
    /// Not at all: the network is on the host that made it and nowhere else, as Docker's `bridge` is.
    Bridge,
}

/// A text that names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no driver `{0}`: choose `vxlan`, over all hosts, or `bridge`, on this host only")]
pub struct DriverError(String);

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vxlan => "vxlan",
            Self::Bridge => "bridge",
        })
    }
}

impl FromStr for Driver {
    type Err = DriverError;

    fn from_str(text: &str) -> Result<Self, DriverError> {
        [Self::Vxlan, Self::Bridge]
            .into_iter()
            .find(|driver| driver.to_string() == text)
            .ok_or_else(|| DriverError(text.to_owned()))
    }
}

/// What can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings {
    /// How its parts are connected.
    pub driver: Driver,
    /// No way out: nothing is forwarded between it and the world, and names of the world are not asked for.
    pub internal: bool,
    /// Do packets to the world leave with the host's address? If not, the host routes the subnets, and who is outside has to
    /// have a route to it.
    pub masquerade: bool,
    /// Do its containers reach each other? If not, only those that are linked do.
    pub icc: bool,
    /// The MTU in bytes that is not to be exceeded, however much the underlay carries.
    pub mtu: Option<u16>,
    /// Addresses that are something else's, which is in the same subnet but none of ours, and what that is.
    pub auxiliary: BTreeMap<IpAddr, Name>,
    /// What people note about it.
    pub labels: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            driver: Driver::default(),
            internal: false,
            masquerade: true,
            icc: true,
            mtu: None,
            auxiliary: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// Why something can't be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not a label.
    #[error("label `{0}` has no key, or control characters: give it as KEY=VALUE")]
    Label(String),
    /// All hosts are told of them, in one datagram.
    #[error("its labels have {0} bytes: at most {max} fit", max = Settings::MAX_LABELS)]
    Labels(usize),
    /// The same.
    #[error("{0} auxiliary addresses are too many: at most {max} fit", max = Settings::MAX_AUXILIARY)]
    Auxiliary(usize),
    /// Not an MTU.
    #[error(
        "MTU {0} is out of range: choose {min} to 65535 bytes",
        min = Settings::MIN_MTU
    )]
    Mtu(u32),
}

impl Settings {
    /// Bytes of all labels together.
    pub const MAX_LABELS: usize = 4096;
    /// Addresses that are set aside.
    pub const MAX_AUXILIARY: usize = 32;
    /// What every host has to take (RFC 791, section 3.1).
    pub const MIN_MTU: u16 = 576;

    /// The same, if it can be chosen.
    ///
    /// # Errors
    /// With what can't be.
    pub fn checked(self) -> Result<Self, SettingsError> {
        let wrong = |(key, value): &(&String, &String)| {
            key.is_empty() || key.contains('=') || key.chars().chain(value.chars()).any(char::is_control)
        };
        if let Some((key, value)) = self.labels.iter().find(wrong) {
            return Err(SettingsError::Label(format!("{}={}", key.escape_debug(), value.escape_debug())));
        }
        let bytes = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > Self::MAX_LABELS {
            return Err(SettingsError::Labels(bytes));
        }
        if self.auxiliary.len() > Self::MAX_AUXILIARY {
            return Err(SettingsError::Auxiliary(self.auxiliary.len()));
        }
        match self.mtu {
            Some(mtu) if mtu < Self::MIN_MTU => Err(SettingsError::Mtu(mtu.into())),
            _ => Ok(self),
        }
    }
}
