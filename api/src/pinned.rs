//! gRPC over TLS between our own processes on different nodes.
//!
//! Who serves makes a certificate for as long as it lives and says in the Kubernetes API which; who connects takes that one
//! and no other, whoever signed it. Who connects is told apart by a token inside the call.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// The name in certificates. Nobody looks it up.
const NAME: &str = "margay";
/// Connections at a time, from everywhere.
const CONNECTIONS: usize = 16_384;
/// Connections at a time from one address.
const FROM_ONE: usize = 8;
/// For the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For connection and handshake together, on the other side.
const CONNECT: Duration = Duration::from_secs(5);
/// How often an idle connection is tried, and how long its answer may take.
const ALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(10)];

/// Why TLS is not possible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls refuses the certificate.
    #[error("cannot use the certificate: {0}")]
    Use(#[from] rustls::Error),
    /// What was published is no certificate.
    #[error("cannot read the certificate: {0}")]
    Read(#[from] rustls::pki_types::pem::Error),
    /// The key is none.
    #[error("cannot use the key: {0}")]
    Key(&'static str),
}

/// A certificate and its key, for the life of one process.
#[derive(Debug)]
pub struct Identity {
    /// The certificate as it is published, PEM.
    pub certificate: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    ///
    /// When the kernel has no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(Error::Key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            certificate: made.cert.pem(),
            config: Arc::new(config),
        })
    }

    /// Accepts connections, for tonic's `serve_with_incoming`, until the receiver is dropped.
    #[must_use]
    pub fn accept(&self, listener: TcpListener) -> mpsc::Receiver<io::Result<Connection>> {
        let (accepted, connections) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        tokio::spawn(accept(listener, acceptor, accepted));
        connections
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let guests = Arc::new(Guests::default());
    loop {
        let (stream, peer) = tokio::select! {
            () = accepted.closed() => return,
            stream = listener.accept() => match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, say: connections that end free some.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(permit) = Arc::clone(&all).try_acquire_owned() else {
            tracing::warn!(%peer, "too many connections: one more is refused");
            continue;
        };
        let Some(guest) = Guest::enter(&guests, peer.ip()) else {
            tracing::warn!(%peer, "too many connections from one address: one more is refused");
            continue;
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => {
                    let connection = Connection {
                        stream,
                        peer,
                        _guest: guest,
                        _permit: permit,
                    };
                    // The server stops.
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%peer, "a handshake was not completed"),
            }
        });
    }
}

/// Connections by the address they come from.
#[derive(Debug, Default)]
struct Guests(Mutex<BTreeMap<IpAddr, usize>>);

#[derive(Debug)]
struct Guest {
    all: Arc<Guests>,
    address: IpAddr,
}

impl Guest {
    fn enter(all: &Arc<Guests>, address: IpAddr) -> Option<Self> {
        let mut counts = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= FROM_ONE {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self {
            all: Arc::clone(all),
            address,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Connection {
    stream: server::TlsStream<TcpStream>,
    peer: SocketAddr,
    _guest: Guest,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The certificate of whom we want to talk to.
#[derive(Debug, Clone)]
pub struct Peer(Arc<ClientConfig>);

impl Peer {
    /// Reads what was published, PEM.
    ///
    /// # Errors
    ///
    /// When it is no certificate.
    pub fn new(certificate: &str) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let provider = Arc::new(ring::default_provider());
        let only = Only {
            certificate,
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(only))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Connects to it there. A connection that falls silent ends within half a minute.
    ///
    /// # Errors
    ///
    /// When nobody answers there, or somebody with another certificate.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Channel> {
        let stream = tokio::time::timeout(CONNECT, self.open(address));
        let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
        let mut first = Some(stream.await.map_err(timeout)??);
        let [every, answer] = ALIVE;
        Endpoint::from_static("http://margay")
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(answer)
            .keep_alive_while_idle(true)
            .connect_with_connector(tower::service_fn(move |_| {
                // One connection; when it is over the caller looks anew where to go.
                let stream = first.take();
                async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
            }))
            .await
            .map_err(io::Error::other)
    }

    async fn open(
        &self,
        address: SocketAddr,
    ) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        Ok(TokioIo::new(connector.connect(name, stream).await?))
    }
}

/// Takes one certificate only. Its holder still has to prove that it has the key.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_certificate_is_taken_and_no_other() {
        let (served, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = served.accept(listener);
        let peer = Peer::new(&served.certificate).unwrap();
        let stream = peer.open(address).await.unwrap();
        let connection = connections.recv().await.unwrap().unwrap();
        assert!(connection.connect_info().ip().is_loopback());
        drop(stream);
        let stranger = Peer::new(&other.certificate).unwrap();
        let refused = stranger.open(address).await.unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        assert!(Peer::new("nothing").is_err());
    }

    #[tokio::test]
    async fn one_address_has_few_connections() {
        let served = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = served.accept(listener);
        let peer = Peer::new(&served.certificate).unwrap();
        let mut held = Vec::new();
        for _ in 0..FROM_ONE {
            let stream = peer.open(address).await.unwrap();
            held.push((stream, connections.recv().await.unwrap().unwrap()));
        }
        assert!(peer.open(address).await.is_err());
        held.pop();
        assert!(peer.open(address).await.is_ok());
    }
}
