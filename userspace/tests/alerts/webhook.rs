//! A webhook's endpoint: HTTPS on the loopback of the gateway's namespace, by rustls, with the certificate of the test's CA.

use std::fs;
use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::pair::{LIMIT, Place, words};
use crate::rig::{Beam, Ns, Proc, binary, patiently};

/// Its thread ends with the test's process.
pub(crate) struct Server {
    pub(crate) port: u16,
    posted: Receiver<Value>,
}

impl Server {
    pub(crate) fn start(place: &Place) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(&place.pki.server_cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&place.pki.server_key).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = place.rig.within(Ns::Gateway, || TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let (post, posted) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(tls.clone()).unwrap();
                let mut reader = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
                let body = read_post(&mut reader);
                reader
                    .get_mut()
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                if post.send(body).is_err() {
                    return;
                }
            }
        });
        Self { port, posted }
    }

    /// The next object that is posted.
    pub(crate) fn next(&self) -> Value {
        self.posted.recv_timeout(patiently(LIMIT)).expect("a notice is posted")
    }
}

fn read_post(reader: &mut impl std::io::BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "POST /hook/secret HTTP/1.1\r\n");
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).expect("a webhook's body is JSON")
}

/// A gateway, ready, whose system trusts the test's CA, and which goes through no proxy of whoever runs the test.
pub(crate) fn trusting(place: &Place, args: &[String]) -> Beam {
    assert!(fs::exists(&place.pki.ca).unwrap());
    let control = place.rig.directory().join("gateway.sock");
    let mut command = place.rig.command(Ns::Gateway, binary());
    command.args(words(args)).arg("--control").arg(&control).env("SSL_CERT_FILE", &place.pki.ca);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    let gateway = Beam { process: Proc::spawn("gateway", &mut command), control };
    gateway.wait_until_ready();
    gateway
}
