//! The redis crate with users and TLS, in RESP2 and RESP3.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands, Client, ClientTlsConfig, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisResult,
    ServerErrorKind, TlsCertificates,
};

use crate::support::{eventually, key, urls};

const PROTOCOLS: [ProtocolVersion; 2] = [ProtocolVersion::RESP2, ProtocolVersion::RESP3];
const WORKER: Option<(&str, &str)> = Some(("worker", "worker-password"));

fn file(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn path(name: &str) -> String {
    format!("{}/{name}", std::env::var("CERTIFICATES").expect("the folder of certificates"))
}

/// Connects with a user and a password, the certificate of this name, and the roots to trust.
async fn connect_trusting(
    roots: &str,
    user: Option<(&str, &str)>,
    certificate: Option<&str>,
    protocol: ProtocolVersion,
) -> RedisResult<MultiplexedConnection> {
    let info = urls()[0].as_str().into_connection_info()?;
    let mut settings = info.redis_settings().clone().set_protocol(protocol);
    if let Some((user, password)) = user {
        settings = settings.set_username(user).set_password(password);
    }
    let client_tls = certificate.map(|name| ClientTlsConfig {
        client_cert: file(&format!("{name}.pem")),
        client_key: file(&format!("{name}.key")),
    });
    let certificates = TlsCertificates { client_tls, root_cert: Some(file(roots)) };
    let client = Client::build_with_tls(info.set_redis_settings(settings), certificates)?;
    client.get_multiplexed_async_connection().await
}

async fn connect(
    user: Option<(&str, &str)>,
    certificate: Option<&str>,
    protocol: ProtocolVersion,
) -> RedisResult<MultiplexedConnection> {
    connect_trusting("roots.pem", user, certificate, protocol).await
}

async fn whoami(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    redis::cmd("ACL").arg("WHOAMI").query_async(connection).await
}

#[tokio::test]
async fn locks_as_a_user() {
    for protocol in PROTOCOLS {
        let mut worker = connect(WORKER, Some("client"), protocol).await.unwrap();
        assert_eq!(whoami(&mut worker).await.unwrap(), "worker");
        let key = format!("jobs.{}", key());
        assert!(worker.set_nx::<_, _, bool>(&key, "me").await.unwrap());
        assert_eq!(worker.del::<_, u64>(&key).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn other_keys_channels_and_commands_are_refused() {
    for protocol in PROTOCOLS {
        let mut worker = connect(WORKER, Some("client"), protocol).await.unwrap();
        let is_refused = |result: RedisResult<()>| {
            result.unwrap_err().kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        };
        let key = key();
        assert!(is_refused(worker.set(&key, "me").await));
        assert!(is_refused(worker.publish(&key, "released").await));
        assert!(is_refused(redis::cmd("FLUSHALL").query_async(&mut worker).await));
        let allowed = format!("jobs.{key}");
        let mut both = redis::pipe();
        both.atomic().set(&allowed, "me").set(&key, "me");
        assert!(both.query_async::<()>(&mut worker).await.is_err());
        assert!(!worker.exists::<_, bool>(&allowed).await.unwrap());
    }
}

#[tokio::test]
async fn wrong_or_no_credentials_are_refused() {
    for protocol in PROTOCOLS {
        for user in [("worker", "wrong"), ("stranger", "worker-password")] {
            let refused = connect(Some(user), Some("client"), protocol).await.err().unwrap();
            // The crate has a kind of its own for AUTH, and none for HELLO.
            let is_authentication = refused.kind() == ErrorKind::AuthenticationFailed;
            assert!(is_authentication || refused.code() == Some("WRONGPASS"), "{refused}");
        }
        let ping = async {
            let mut connection = connect(None, Some("client"), protocol).await?;
            connection.ping::<String>().await
        };
        let refused = ping.await.unwrap_err().to_string();
        assert!(refused.to_lowercase().contains("auth"), "{refused}");
    }
}

#[tokio::test]
async fn the_certificate_names_the_user() {
    let mut worker = connect(None, Some("worker"), ProtocolVersion::RESP3).await.unwrap();
    assert_eq!(whoami(&mut worker).await.unwrap(), "worker");
    assert!(worker.get::<_, Option<String>>(key()).await.is_err());
}

#[tokio::test]
async fn other_certificates_are_refused() {
    for certificate in [None, Some("expired"), Some("foreign")] {
        for protocol in PROTOCOLS {
            assert!(connect(WORKER, certificate, protocol).await.is_err(), "{certificate:?}");
        }
    }
}

#[tokio::test]
async fn a_running_client_outlives_the_certificate_of_its_server() {
    let connect = async |roots| connect_trusting(roots, WORKER, Some("client"), ProtocolVersion::RESP3).await;
    let id = async |connection: &mut MultiplexedConnection| {
        redis::cmd("CLIENT").arg("ID").query_async::<u64>(connection).await.unwrap()
    };
    let mut running = connect("roots.pem").await.unwrap();
    let first = id(&mut running).await;
    assert!(connect("new-ca.pem").await.is_err());
    for suffix in ["pem", "key"] {
        std::fs::rename(path(&format!("renewed.{suffix}")), path(&format!("server.{suffix}"))).unwrap();
    }
    eventually(async || connect("new-ca.pem").await.is_ok()).await;
    assert_eq!(id(&mut running).await, first);
}
