//! TLS between agents: both sides show a self-signed certificate, and only its key counts.

use std::sync::Arc;

use overlay::model::id::HostId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::state::identity::{Identity, host_id};

/// The public key of a certificate as a `SubjectPublicKeyInfo` in DER.
pub(super) fn public_key_info(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info().to_vec())
}

/// Accepts the members of the cluster. A host that gossip brings a moment later has to try again.
pub(super) fn acceptor(identity: &Identity, seen: watch::Receiver<ClusterView>) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(server_config(identity, seen)))
}

/// The certificate and key of this host for the connections that it makes; made once, since making one takes a signature.
#[derive(Debug)]
pub(super) struct Credentials {
    provider: Arc<CryptoProvider>,
    certificate: Arc<SingleCertAndKey>,
}

impl Credentials {
    pub fn new(identity: &Identity) -> Self {
        let provider = provider();
        let (certificate, key) = certificate(identity);
        let certified = CertifiedKey::from_der(vec![certificate], key.into(), &provider);
        let certificate = certified.expect("our own key and certificate fit");
        Self { provider, certificate: Arc::new(SingleCertAndKey::from(certificate)) }
    }

    /// Connects to the host `peer` and to no other.
    pub fn connector(&self, peer: HostId) -> TlsConnector {
        let provider = Arc::clone(&self.provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { who: Who::Host(peer), provider }))
            .with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(&self.certificate));
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn server_config(identity: &Identity, seen: watch::Receiver<ClusterView>) -> ServerConfig {
    let provider = provider();
    let (certificate, key) = certificate(identity);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(Arc::new(Pinned { who: Who::Members(seen), provider }))
        .with_single_cert(vec![certificate], key.into())
        .expect("our own key and certificate fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(identity: &Identity) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
    let names = vec![identity.id().to_string()];
    let params = rcgen::CertificateParams::new(names).expect("an id is a DNS name");
    let certificate = params.self_signed(identity.key()).expect("an ed25519 key signs");
    (certificate.der().clone(), PrivatePkcs8KeyDer::from(identity.to_der()))
}

/// Accepts the hosts that it is told to; the handshake's signature proves that they have their keys.
#[derive(Debug)]
struct Pinned {
    who: Who,
    provider: Arc<CryptoProvider>,
}

/// Whose key is good.
#[derive(Debug)]
enum Who {
    /// This host's.
    Host(HostId),
    /// That of all hosts in the gossip; a stranger must not even hold a connection.
    Members(watch::Receiver<ClusterView>),
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let id = host_id(&public_key_info(certificate)?);
        let good = match &self.who {
            Who::Host(host) => *host == id,
            Who::Members(seen) => seen.borrow().cluster.hosts.contains_key(&id),
        };
        if good { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }
}

/// The signature of a handshake is verified alike on both sides, but rustls asks for it in two traits.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    verify_signatures!();
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    verify_signatures!();
}

#[cfg(test)]
pub(super) mod tests;
