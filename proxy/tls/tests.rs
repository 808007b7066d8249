use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConnection};

use super::*;

/// A self-signed certificate and its key, as PEM.
struct Made {
    cert: String,
    key: String,
}

impl Made {
    fn with_names(names: &[&str]) -> Self {
        Self::with(names, |_| ())
    }

    fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn cert(&self) -> File<'_> {
        file("tls.crt", &self.cert)
    }

    fn key(&self) -> File<'_> {
        file("tls.key", &self.key)
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

fn file<'a>(path: &'a str, text: &'a str) -> File<'a> {
    File { path: Path::new(path), bytes: text.as_bytes() }
}

fn certificates<'a>(made: impl IntoIterator<Item = &'a Made>) -> Certificates {
    Certificates::from_files(made.into_iter().map(|one| (one.cert(), one.key()))).unwrap()
}

fn picked(certificates: &Certificates, name: &str) -> CertificateDer<'static> {
    certificates.pick(Some(name)).cert[0].clone()
}

/// Shakes hands in memory; the client's end, afterwards.
fn handshake(resolver: &Arc<Resolver>, name: &'static str, trusted: &Made) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config(Arc::clone(resolver)).unwrap())).unwrap();

    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &*bytes).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &*bytes).unwrap();
        client.process_new_packets().unwrap();
    }
    client
}

#[test]
fn shows_the_certificate_of_the_name_asked_for() {
    let (one, other) = (Made::with_names(&["one.example"]), Made::with_names(&["other.example", "third.example"]));
    let certificates = certificates([&one, &other]);

    assert_eq!(picked(&certificates, "one.example"), one.der());
    assert_eq!(picked(&certificates, "other.example"), other.der());
    assert_eq!(picked(&certificates, "Third.Example"), other.der());
}

#[test]
fn shows_the_first_certificate_to_clients_with_no_or_an_unknown_name() {
    let (one, other) = (Made::with_names(&["one.example"]), Made::with_names(&["other.example"]));
    let certificates = certificates([&one, &other]);

    assert_eq!(picked(&certificates, "unknown.example"), one.der());
    assert_eq!(picked(&certificates, "localhost"), one.der());
    assert_eq!(certificates.pick(None).cert[0], one.der());
}

#[test]
fn shows_a_wildcard_for_one_label_unless_the_name_has_a_certificate_of_its_own() {
    let first = Made::with_names(&["first.example"]);
    let (wild, exact) = (Made::with_names(&["*.mcp.example"]), Made::with_names(&["a.mcp.example"]));
    let certificates = certificates([&first, &wild, &exact]);

    assert_eq!(picked(&certificates, "a.mcp.example"), exact.der());
    assert_eq!(picked(&certificates, "b.mcp.example"), wild.der());
    assert_eq!(picked(&certificates, "a.b.mcp.example"), first.der());
    assert_eq!(picked(&certificates, "mcp.example"), first.der());
}

#[test]
fn gives_a_name_of_two_certificates_to_the_first() {
    let (one, other) = (Made::with_names(&["a.example"]), Made::with_names(&["b.example", "a.example"]));

    assert_eq!(picked(&certificates([&other, &one]), "a.example"), other.der());
    assert_eq!(picked(&certificates([&one, &other]), "a.example"), one.der());
}

#[test]
fn shakes_hands_over_tls_1_3_and_prefers_http_2() {
    let (first, named) = (Made::with_names(&["first.example"]), Made::with_names(&["mcp.example"]));
    let resolver = Arc::new(Resolver::new(certificates([&first, &named])));

    let client = handshake(&resolver, "mcp.example", &named);

    assert_eq!(client.peer_certificates().unwrap(), [named.der()]);
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn shows_the_new_certificate_after_a_swap() {
    let (old, new) = (Made::with_names(&["mcp.example"]), Made::with_names(&["mcp.example"]));
    let resolver = Arc::new(Resolver::new(certificates([&old])));
    assert_eq!(handshake(&resolver, "mcp.example", &old).peer_certificates().unwrap(), [old.der()]);

    resolver.replace(certificates([&new]));

    assert_eq!(handshake(&resolver, "mcp.example", &new).peer_certificates().unwrap(), [new.der()]);
    assert_eq!(resolver.certificates().iter().count(), 1);
}

#[test]
fn reads_names_and_expiry() {
    let near = Made::with(&["A.example", "*.b.example"], |params| params.not_after = date_time_ymd(2031, 5, 6));
    let far = Made::with(&[], |params| params.not_after = date_time_ymd(2100, 1, 1));
    let over = Made::with(&["over.example"], |params| params.not_after = date_time_ymd(2001, 2, 3));
    let certificates = certificates([&near, &far, &over]);

    let names: Vec<_> = certificates.iter().map(|one| one.names.clone()).collect();
    let expiry = certificates.iter().map(|one| one.not_after.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap());

    assert_eq!(names, [vec!["a.example", "*.b.example"], vec![], vec!["over.example"]]);
    assert_eq!(expiry.map(|expiry| expiry.as_secs()).collect::<Vec<_>>(), [1_935_792_000, 4_102_444_800, 981_158_400]);
}

#[test]
fn refuses_a_key_that_belongs_to_another_certificate() {
    let (one, other) = (Made::with_names(&["one.example"]), Made::with_names(&["one.example"]));

    let error = Certificates::from_files([(one.cert(), other.key())].into_iter()).unwrap_err();

    assert_eq!(error.to_string(), "private key `tls.key` does not belong to certificate `tls.crt`");
}

#[test]
fn names_the_file_that_cannot_be_used() {
    const NOT_DER: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const NOT_A_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    const NOT_BASE64: &str = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let made = Made::with_names(&["one.example"]);
    let error = |cert: &str, key: &str| {
        Certificates::from_files([(file("a.crt", cert), file("a.key", key))].into_iter()).unwrap_err().to_string()
    };

    assert_eq!(error("", &made.key), "`a.crt` holds no certificate");
    assert_eq!(error(&made.key, &made.key), "`a.crt` holds no certificate");
    assert_eq!(error(NOT_BASE64, &made.key), "`a.crt` is not valid PEM");
    assert!(error(NOT_DER, &made.key).starts_with("`a.crt` holds a certificate that cannot be used: "));
    assert_eq!(error(&made.cert, ""), "`a.key` holds no private key");
    assert_eq!(error(&made.cert, &made.cert), "`a.key` holds no private key");
    assert_eq!(error(&made.cert, NOT_A_KEY), "`a.key` holds a private key that cannot be used");
    assert_eq!(error(&made.cert, NOT_BASE64), "`a.key` is not valid PEM");
}

#[test]
fn refuses_a_listener_without_certificates() {
    assert!(matches!(Certificates::from_files(std::iter::empty()), Err(TlsError::NoCertificates)));
}

#[test]
fn reads_every_root_of_a_bundle() {
    let (one, other) = (Made::with_names(&[]), Made::with_names(&[]));
    let bundle = format!("# ours\n{}\n# theirs\n{}", one.cert, other.cert);

    assert_eq!(roots(file("ca.crt", &bundle)).unwrap(), [one.der(), other.der()]);
    assert!(matches!(roots(file("ca.crt", "")), Err(TlsError::NoCertificate { .. })));
}

#[test]
fn reads_a_client_identity_only_if_it_is_one() {
    let (one, other) = (Made::with_names(&[]), Made::with_names(&[]));

    let (chain, key) = chain_and_key(one.cert(), one.key()).unwrap();

    assert_eq!(chain, [one.der()]);
    assert_eq!(key, PrivateKeyDer::from_pem_slice(one.key.as_bytes()).unwrap());
    assert!(matches!(chain_and_key(one.cert(), other.key()), Err(TlsError::Mismatch { .. })));
}
