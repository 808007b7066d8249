//! Connections to one server: name resolution, TCP, TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls;

/// Where to connect to, and what to insist on there.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    /// When the certificate that the server showed last stops being valid, in seconds since 1970; 0 when that is not known.
    pub(super) not_after: Arc<AtomicU64>,
}

/// What a server has to show, and what it is shown.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

/// Certificates that are shown to a server that asks for them, with their key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Why there can be no TLS to a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsProblem {
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
    #[error(transparent)]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// Trusts `ca`, or else what the system trusts.
    ///
    /// # Errors
    /// When the certificates or the name are of no use.
    pub(super) fn new(
        ca: Option<Vec<CertificateDer<'static>>>,
        identity: Option<Identity>,
        server_name: &str,
    ) -> Result<Self, TlsProblem> {
        let server_name = ServerName::try_from(server_name.to_owned())?;
        let roots = match ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for certificate in ca {
                    roots.add(certificate)?;
                }
                Arc::new(roots)
            }
            None => system_roots(),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), server_name })
    }
}

/// What the system trusts, or Mozilla where it has no opinion; read once: it takes some milliseconds, which only those wait who need it.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for problem in found.errors {
            tracing::warn!(%problem, "some of the system's certificates cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        if ignored > 0 {
            tracing::debug!(ignored, "some of the system's certificates are of no use");
        }
        // As in an image that holds nothing but this.
        if roots.is_empty() {
            tracing::info!(
                "the system has no certificates that it trusts; Mozilla's of the day this was built are trusted"
            );
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

impl Dial {
    /// The addresses of the server.
    ///
    /// # Errors
    /// When its name cannot be resolved.
    pub(super) async fn addresses(&self) -> io::Result<impl Iterator<Item = SocketAddr>> {
        tokio::net::lookup_host((&*self.host, self.port)).await
    }

    /// A connection to one of them.
    ///
    /// # Errors
    /// When it is refused, or the server is not who it should be.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some(Tls { config, server_name }) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(server_name.clone(), stream).await?;
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let not_after = shown.and_then(tls::not_after_of).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                self.not_after.store(not_after.map_or(0, |at| at.as_secs()), Ordering::Relaxed);
                Stream::Tls(Box::new(stream))
            }
        })
    }
}

/// A connection to a server.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits until there may be something to read. Of TLS that cannot be told without reading.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
