//! Certificates made for one test, and TLS connections that trust them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{FakeBackend, within};

/// A certificate that signs itself.
pub(crate) struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

impl Certificate {
    pub(crate) fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Self { der: made.cert.der().clone(), cert_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
    }

    /// The certificate and its key, in one.
    pub(crate) fn pem(&self) -> String {
        format!("{}{}", self.cert_pem, self.key_pem)
    }

    /// Writes it into a folder, and says so in the configuration's words.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> String {
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert_pem).expect("a folder to write to");
        std::fs::write(&key, &self.key_pem).expect("a folder to write to");
        format!("{{ cert: \"{}\", key: \"{}\" }}", cert.display(), key.display())
    }
}

/// TLS in front of a backend that has none.
pub(crate) struct TlsDoor {
    address: SocketAddr,
    door: AbortHandle,
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl TlsDoor {
    /// Shows this certificate and, if there is one to be known by, lets in only who shows that one.
    pub(crate) async fn in_front_of(backend: &FakeBackend, shows: &Certificate, knows: Option<&Certificate>) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match knows {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate.der.clone()).expect("a certificate");
                let provider = Arc::new(ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(shows.key_pem.as_bytes()).expect("a key");
        let config = builder.with_single_cert(vec![shows.der.clone()], key).expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        backend.goes_by(&address.to_string());
        let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), backend.address());
        let door = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who is not let in, or leaves, is of no interest here.
                    let mut stream = acceptor.accept(stream).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut TcpStream::connect(behind).await?).await
                });
            }
        });
        Self { address, door: door.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/mcp", self.address)
    }
}

/// What a client wants of a TLS connection.
pub(crate) struct Handshake<'a> {
    pub(crate) trusts: &'a [&'a Certificate],
    pub(crate) name: &'static str,
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
    pub(crate) alpn: &'a [&'a str],
}

impl Handshake<'_> {
    /// Connects; an error when the gateway's certificate is not trusted for the name, or nothing can be agreed on.
    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in self.trusts {
            roots.add(certificate.der.clone()).expect("a certificate");
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = within(TcpStream::connect(address)).await?;
        let name = ServerName::try_from(self.name).expect("a server name");
        within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}
