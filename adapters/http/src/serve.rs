//! The listener: connections, TLS, and a shutdown that lets requests finish.

use std::{future::Future, io, path::Path, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{api::router, service::Service};

/// Open connections. Beyond it new ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 8192;
/// A request's head must come by then; what dawdles is cut off.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);
/// A TLS handshake must be through by then.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes: the longest query string and headers, with room.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file does not read as PEM.
    #[error("{path} does not read: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// They do not belong together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used")]
    Pair(#[source] rustls::Error),
}

/// TLS 1.2 and 1.3 from a certificate chain and its key, both PEM (RFC 7468).
pub fn tls_from_pem(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsFault> {
    let file =
        |path: &Path, reason: String| TlsFault::File { path: path.display().to_string(), reason };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|fault| file(certificates, fault.to_string()))?;
    if chain.is_empty() {
        return Err(file(certificates, "it has no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|fault| file(key, fault.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsFault::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsFault::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `shutdown` comes back: then it takes no new connection, ends event feeds and
/// waits, lets requests finish, and cuts off what is left after `grace`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: Arc<Service>,
    shutdown: impl Future<Output = ()> + Send,
    grace: Duration,
) -> io::Result<()> {
    let router = router(service.clone());
    let acceptor = tls.map(TlsAcceptor::from);
    let ending = watch::Sender::new(());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let follower = {
        let service = service.clone();
        tokio::spawn(async move { service.follow_tokens().await })
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Done ones are let go of as we come by.
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(fault) => {
                // Out of file descriptors, most likely: it passes when connections end.
                tracing::warn!(%fault, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (router, acceptor) = (router.clone(), acceptor.clone());
        let ends = ending.subscribe();
        connections.spawn(async move {
            let _place = place;
            match acceptor {
                None => speak(stream, router, ends).await,
                Some(acceptor) => {
                    let handshake = acceptor.accept(stream);
                    match tokio::time::timeout(HANDSHAKE_PATIENCE, handshake).await {
                        Ok(Ok(stream)) => speak(stream, router, ends).await,
                        Ok(Err(fault)) => tracing::debug!(%fault, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                }
            }
        });
    }
    drop(listener);
    service.close();
    follower.abort();
    let finished = async {
        ending.send_replace(());
        // When each connection is through.
        ending.closed().await;
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!(left = connections.len(), "connections are cut off after the grace");
    }
    connections.shutdown().await;
    // Their ends are written down before the log is closed.
    if tokio::time::timeout(grace, service.no_console()).await.is_err() {
        tracing::warn!("consoles are still open after the grace");
    }
    Ok(())
}

async fn speak<S>(stream: S, router: Router, mut ends: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = ends.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = ended {
        tracing::debug!(%fault, "a connection ended");
    }
}
