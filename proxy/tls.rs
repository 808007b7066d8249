//! Certificates: those listeners show, picked by server name and replaced on reload, and those towards backends.
//! Files are read by the configuration; here their contents become keys and chains, or an error that names the file.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use toolgate_config::{Pem, Tls};
use webpki::{EndEntityCert, KeyUsage};

/// What is wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("`{}` holds a certificate that cannot be used: {problem}", path.display())]
    BadCertificate { path: PathBuf, problem: webpki::Error },
    #[error("`{}` holds a private key that cannot be used", path.display())]
    BadKey { path: PathBuf },
    #[error("`{}` is not valid PEM", path.display())]
    BadPem { path: PathBuf },
    #[error("private key `{}` does not belong to certificate `{}`", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("`{}` holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("a listener with TLS has no certificate")]
    NoCertificates,
    #[error("`{}` holds no private key", path.display())]
    NoKey { path: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The TLS of a listener: 1.3 and 1.2, HTTP/2 before HTTP/1.1, and whatever certificates the resolver has by then.
///
/// # Errors
/// When the operating system has no randomness for session tickets.
pub(crate) fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

/// Picks a listener's certificate for each handshake. A reload replaces the certificates, not the listener.
#[derive(Debug)]
pub(crate) struct Resolver {
    certificates: ArcSwap<Certificates>,
}

impl Resolver {
    pub(crate) fn new(certificates: Certificates) -> Self {
        Self { certificates: ArcSwap::from_pointee(certificates) }
    }

    /// Shows other certificates from the next handshake on.
    pub(crate) fn replace(&self, certificates: Certificates) {
        self.certificates.store(Arc::new(certificates));
    }

    /// The certificates shown now.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        self.certificates.load_full()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.certificates.load().pick(hello.server_name())))
    }
}

/// The certificates of one listener, at least one, by the names in them.
#[derive(Debug)]
pub(crate) struct Certificates {
    first: Certificate,
    others: Vec<Certificate>,
    /// Names in lower case, wildcards as `*.example.com`. Where two certificates have one name, the first has it.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// The certificates of a listener's `tls`.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(crate) fn new(tls: &Tls) -> Result<Self, TlsError> {
        let files = tls.certificates.iter().map(|one| (File::from(&one.cert), File::from(&one.key)));
        Self::from_files(files)
    }

    fn from_files<'a>(files: impl Iterator<Item = (File<'a>, File<'a>)>) -> Result<Self, TlsError> {
        let mut certificates = files.map(|(cert, key)| Certificate::new(cert, key));
        let first = certificates.next().ok_or(TlsError::NoCertificates)??;
        let others = certificates.collect::<Result<Vec<_>, _>>()?;
        let mut by_name = HashMap::new();
        for certificate in std::iter::once(&first).chain(&others) {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Ok(Self { first, others, by_name })
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The certificate of exactly this name, else the one of a wildcard over it, else the first.
    fn pick(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = server_name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard()?))
        });
        named.unwrap_or(&self.first.key)
    }
}

/// A chain with its key, ready to be shown.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The file of the chain.
    pub(crate) path: PathBuf,
    /// The DNS names in it, lower case.
    pub(crate) names: Vec<String>,
    /// When it stops being valid.
    pub(crate) not_after: Option<SystemTime>,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    fn new(cert: File<'_>, key: File<'_>) -> Result<Self, TlsError> {
        let identity = identity(cert, key)?;
        let leaf = identity.cert.first().ok_or_else(|| TlsError::NoCertificate { path: cert.path() })?;
        let leaf = parse(cert, leaf)?;
        let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let not_after = not_after(&leaf);
        Ok(Self { path: cert.path(), names, not_after, key: Arc::new(identity) })
    }
}

/// The certificates that are trusted towards a backend, each fit to be a root.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn ca_certificates(ca: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    roots(ca.into())
}

fn roots(file: File<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = certificates(file)?;
    for certificate in &certificates {
        webpki::anchor_from_trusted_cert(certificate)
            .map_err(|problem| TlsError::BadCertificate { path: file.path(), problem })?;
    }
    Ok(certificates)
}

/// The chain, leaf first, and the key shown to a backend that asks who calls; the key belongs to the certificate.
///
/// # Errors
/// What is wrong with either file.
pub(crate) fn client_identity(cert: &Pem, key: &Pem) -> Result<ClientIdentity, TlsError> {
    chain_and_key(cert.into(), key.into())
}

type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn chain_and_key(cert: File<'_>, key: File<'_>) -> Result<ClientIdentity, TlsError> {
    Ok((identity(cert, key)?.cert, private_key(key)?))
}

/// A PEM file that was read.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl File<'_> {
    fn path(self) -> PathBuf {
        self.path.to_owned()
    }
}

impl<'a> From<&'a Pem> for File<'a> {
    fn from(pem: &'a Pem) -> Self {
        Self { path: &pem.path, bytes: &pem.bytes }
    }
}

fn identity(cert: File<'_>, key: File<'_>) -> Result<CertifiedKey, TlsError> {
    let provider: CryptoProvider = ring::default_provider();
    let chain = certificates(cert)?;
    for certificate in &chain {
        parse(cert, certificate)?;
    }
    let bad_key = |_| TlsError::BadKey { path: key.path() };
    let signer = provider.key_provider.load_private_key(private_key(key)?).map_err(bad_key)?;
    let identity = CertifiedKey::new(chain, signer);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch { cert: cert.path(), key: key.path() }),
        Err(other) => Err(TlsError::Setup(other)),
    }
}

/// The certificates in a file, at least one.
fn certificates(file: File<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.bytes).collect();
    let chain = chain.map_err(|_| TlsError::BadPem { path: file.path() })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: file.path() });
    }
    Ok(chain)
}

fn private_key(file: File<'_>) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(file.bytes).map_err(|error| {
        let missing = matches!(error, pem::Error::NoItemsFound);
        if missing { TlsError::NoKey { path: file.path() } } else { TlsError::BadPem { path: file.path() } }
    })
}

fn parse<'a>(file: File<'_>, certificate: &'a CertificateDer<'_>) -> Result<EndEntityCert<'a>, TlsError> {
    EndEntityCert::try_from(certificate).map_err(|problem| TlsError::BadCertificate { path: file.path(), problem })
}

/// When a certificate that a server has shown stops being valid.
pub(crate) fn not_after_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    not_after(&EndEntityCert::try_from(certificate).ok()?)
}

/// When a certificate stops being valid. webpki tells only those who come too late, so this asks from the end of time.
fn not_after(certificate: &EndEntityCert<'_>) -> Option<SystemTime> {
    let end = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match certificate.verify_for_usage(&[], &[], &[], end, KeyUsage::server_auth(), None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        Ok(_) | Err(_) => None,
    }
}
