//! The redis crate with Sentinel, with users and TLS.

use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncCommands, ClientTlsConfig, IntoConnectionInfo, TlsCertificates, TlsMode};
use tokio::time::{sleep, timeout};

use crate::support::{key, sentinel_urls};

const TIME_MAX: Duration = Duration::from_secs(10);
/// The user that may run ROLE, which the crate asks sentinels and leaders for.
const USER: &str = "admin";
const PASSWORD: &str = "admin-password";

fn certificates() -> TlsCertificates {
    let folder = std::env::var("CERTIFICATES").expect("the folder of certificates");
    let file = |name: &str| std::fs::read(format!("{folder}/{name}")).unwrap();
    let client_tls = ClientTlsConfig { client_cert: file("client.pem"), client_key: file("client.key") };
    TlsCertificates { client_tls: Some(client_tls), root_cert: Some(file("roots.pem")) }
}

/// A client of the leader, with this password for the sentinels.
fn client(password: &str) -> SentinelClient {
    let address = |url: &String| url.as_str().into_connection_info().unwrap().addr().clone();
    let sentinels: Vec<_> = sentinel_urls().iter().map(address).collect();
    SentinelClientBuilder::new(sentinels, "octostore", SentinelServerType::Master)
        .unwrap()
        .set_client_to_sentinel_certificates(certificates())
        .set_client_to_sentinel_username(USER)
        .set_client_to_sentinel_password(password)
        .set_client_to_redis_tls_mode(TlsMode::Secure)
        .set_client_to_redis_certificates(certificates())
        .set_client_to_redis_username(USER)
        .set_client_to_redis_password(PASSWORD)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_leader_is_found_over_tls() {
    let mut client = client(PASSWORD);
    let connecting = async {
        loop {
            match client.get_async_connection().await {
                Ok(connection) => break connection,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut connection = timeout(TIME_MAX, connecting).await.expect("a leader");
    let key = key();
    assert!(connection.set_nx::<_, _, bool>(&key, "me").await.unwrap());
    assert_eq!(redis::cmd("ACL").arg("WHOAMI").query_async::<String>(&mut connection).await.unwrap(), USER);
}

#[tokio::test]
async fn sentinels_demand_a_password() {
    let refused = client("wrong").get_async_connection().await.err().expect("a refusal");
    let text = refused.to_string().to_lowercase();
    assert!(text.contains("auth") || text.contains("wrongpass"), "{refused}");
}
