use super::*;

/// Takes this server only.
pub(in crate::peer) fn only(host: HostId) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned { who: Who::Host(host), provider: provider() })
}

#[test]
fn a_certificate_shows_the_id_of_the_key_that_made_it() {
    let identity = Identity::generate();
    let (certificate, _) = certificate(&identity);
    let key = public_key_info(&certificate).expect("our own certificate");
    assert_eq!(host_id(&key), identity.id());
    let again = Identity::from_der(&identity.to_der()).expect("our own key");
    assert_eq!(again.id(), identity.id());
}

#[test]
fn another_key_than_the_one_that_is_meant_is_refused() {
    let (meant, other) = (Identity::generate(), Identity::generate());
    let pinned = Pinned { who: Who::Host(meant.id()), provider: provider() };
    assert!(pinned.check(&certificate(&meant).0).is_ok());
    assert!(pinned.check(&certificate(&other).0).is_err());
    assert!(pinned.check(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])).is_err(), "no certificate at all");
}
