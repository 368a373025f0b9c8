//! Who this host is: an ed25519 key, and as its id the hash of the public half. Other agents know it by nothing else.

use std::fmt;
use std::sync::Arc;

use overlay::model::id::{HostId, ID_BYTES};
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};

/// The bytes are no ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the host key can't be read: {0}")]
pub struct KeyError(rcgen::Error);

/// The key pair of a host.
#[derive(Clone)]
pub struct Identity {
    key: Arc<KeyPair>,
}

impl Identity {
    /// A new one.
    pub fn generate() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("the system's random numbers are there");
        Self { key: Arc::new(key) }
    }

    /// The one in these bytes (PKCS #8, DER).
    ///
    /// # Errors
    /// When they are no ed25519 key.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
            .map(|key| Self { key: Arc::new(key) })
            .map_err(KeyError)
    }

    /// Its bytes (PKCS #8, DER): a secret.
    pub fn to_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// The id that goes with it.
    pub fn id(&self) -> HostId {
        host_id(&self.key.subject_public_key_info())
    }

    /// The key pair, to sign with.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id().short())
    }
}

/// The id of the host with this public key, given as a `SubjectPublicKeyInfo` (RFC 5280) in DER.
pub fn host_id(public_key_info: &[u8]) -> HostId {
    let hash = digest(&SHA256, public_key_info);
    let (id, _) = hash.as_ref().split_first_chunk::<ID_BYTES>().expect("SHA-256 has 32 bytes");
    HostId::from_bytes(*id)
}
