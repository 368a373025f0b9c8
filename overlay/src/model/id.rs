//! Identities: who is meant, never where or what. All are opaque and compare as bytes.

use std::fmt;
use std::str::FromStr;

/// A text that is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: expected {ID_HEX} lower-case hexadecimal digits")]
pub struct IdError {
    text: String,
}

/// Length of an identity in bytes: 128 bits, so that random ids never meet and a hash can't be forged to order.
pub const ID_BYTES: usize = 16;
const ID_HEX: usize = 2 * ID_BYTES;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// The identity with these bytes.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The identity's bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                hex(&self.0, 4)
            }

            /// The first twelve hexadecimal digits: what fits behind a three-letter prefix in an interface name.
            pub fn tag(&self) -> String {
                hex(&self.0, 6)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0, ID_BYTES))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self).ok_or_else(|| IdError { text: text.to_owned() })
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError { text: hex(bytes, bytes.len()) })
            }
        }
    };
}

identity! {
    /// One machine that runs `overlayd`: the hash of its agent's public key.
    HostId
}
identity! {
    /// One network: drawn at random by its creator, never used again after the network is deleted.
    NetworkId
}
identity! {
    /// One interface of one container in one network.
    EndpointId
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|b| format!("{b:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<[u8; ID_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != ID_HEX {
        return None;
    }
    let mut bytes = [0; ID_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A VXLAN network identifier: 1 to 16,777,215 (RFC 7348, section 5: 24 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    const MAX: u32 = 0x00ff_ffff;

    /// The identifier with this number; `None` outside 1 to 16,777,215.
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// What every host proposes for a network before it looks at clashes: the low 24 bits of its random id.
    pub fn proposal(network: NetworkId) -> Self {
        let id = network.as_bytes();
        let number = u32::from_be_bytes([0, id[0], id[1], id[2]]);
        Self(number.max(1))
    }

    /// The next identifier, wrapping to 1.
    pub fn next(self) -> Self {
        if self.0 == Self::MAX { Self(1) } else { Self(self.0 + 1) }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
