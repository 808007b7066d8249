//! A bare pingora: everything is passed on to one address, and nothing is looked at. What a gateway costs beside this is its
//! own; what this costs beside nginx is pingora's.

use std::path::PathBuf;

use anyhow::Result;
use async_trait::async_trait;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Where it listens and where to it passes on.
#[derive(clap::Args)]
pub(crate) struct Bare {
    #[arg(long)]
    listen: String,
    #[arg(long)]
    upstream: String,
    /// A second address, with TLS and HTTP/2
    #[arg(long, requires = "certificate", requires = "key")]
    tls: Option<String>,
    #[arg(long)]
    certificate: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

struct PassOn {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for PassOn {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&*self.upstream, false, String::new())))
    }
}

/// Serves with one thread until killed.
pub(crate) fn run(bare: &Bare) -> Result<()> {
    let configuration = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, PassOn { upstream: bare.upstream.clone() });
    service.add_tcp(&bare.listen);
    if let (Some(address), Some(certificate), Some(key)) = (&bare.tls, &bare.certificate, &bare.key) {
        let mut tls = TlsSettings::intermediate(&certificate.to_string_lossy(), &key.to_string_lossy())?;
        tls.enable_h2();
        service.add_tls_with_settings(address, None, tls);
    }
    server.add_service(service);
    server.run_forever()
}
