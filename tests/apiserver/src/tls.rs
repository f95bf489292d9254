//! The server's certificates: a CA made once and kept, and a server certificate made at every start.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a server needs to speak TLS and a client to trust it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The configuration of the TLS listeners; offers HTTP/2 and HTTP/1.1.
    pub config: Arc<ServerConfig>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file in the directory cannot be read or written.
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    /// A certificate cannot be made from what is there.
    #[error("cannot make the server's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls does not take the certificate.
    #[error("cannot use the server's certificate: {0}")]
    Config(#[from] rustls::Error),
    /// A PEM file holds something else.
    #[error("cannot read PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

/// Loads the CA of `dir` (`ca.crt`, `ca.key`), or makes it, and signs a certificate for the names every API
/// server has, loopback and `addresses`.
pub fn identity(dir: &Path, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
    let (ca_file, key_file) = (dir.join("ca.crt"), dir.join("ca.key"));
    let params = ca_params();
    let (ca, key) = if ca_file.exists() && key_file.exists() {
        (read(&ca_file)?, KeyPair::from_pem(&read(&key_file)?)?)
    } else {
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?.pem();
        write_private(&key_file, &key.serialize_pem())?;
        write_private(&ca_file, &ca)?;
        (ca, key)
    };
    // The issuer's name and key are all that counts, and both are those of the CA that was made.
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate()?;
    let certificate = server_params(addresses)?.signed_by(&own, &issuer)?;
    let chain = vec![
        certificate.der().clone(),
        CertificateDer::from_pem_slice(ca.as_bytes())?,
    ];
    let private = PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Identity {
        ca,
        config: Arc::new(config),
    })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "margay embedded API server CA");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_params(addresses: &[IpAddr]) -> Result<CertificateParams, TlsError> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned))?;
    params
        .distinguished_name
        .push(DnType::CommonName, "margay embedded API server");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let mut addresses = addresses.to_vec();
    addresses.extend([
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ]);
    addresses.sort_unstable();
    addresses.dedup();
    params.subject_alt_names.extend(
        addresses
            .into_iter()
            .filter(|a| !a.is_unspecified())
            .map(SanType::IpAddress),
    );
    Ok(params)
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|error| TlsError::File(path.display().to_string(), error))
}

/// Writes a file only its owner can read, replacing it as a whole.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| TlsError::File(path.display().to_string(), error))
}
