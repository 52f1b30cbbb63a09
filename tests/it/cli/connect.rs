//! The servers that a URL can name.

use super::call;
use crate::support::certificates::Certificates;
use crate::support::server::TestServer;

/// `octostore locks --json` with this URL and these flags.
fn locks(url: &str, flags: &[&str]) -> (i32, String, String) {
    let unused = "127.0.0.1:1".parse().expect("an address");
    call(unused, &[&["locks", "--json", "--url", url], flags].concat())
}

#[test]
fn a_server_is_reached_over_tls_with_and_without_a_certificate() {
    let certificates = Certificates::new();
    certificates.issue("client");
    let (ca, cert, key) =
        (certificates.path("ca.pem"), certificates.path("client.pem"), certificates.path("client.key"));
    for (server_flags, client_flags) in
        [(vec![], vec![]), (vec!["--tls-client-ca", ca.as_str()], vec!["--cert", &cert, "--key", &key])]
    {
        let server_flags = certificates.flags(&server_flags);
        let server = TestServer::real(&server_flags.iter().map(String::as_str).collect::<Vec<_>>());
        server.connect().line("LOCK k me EX 1000");
        let url = format!("rediss://{}", server.tls.expect("an address"));
        let (code, output, message) = locks(&url, &[&["--cacert", &ca], client_flags.as_slice()].concat());
        assert!(code == 0 && output.contains("\"key\":\"k\""), "{code} {output} {message}");
        // The root certificates of the system do not have the authority of this test.
        let (code, _, message) = locks(&url, &[]);
        assert!(code == 69 && message.contains("certificate"), "{code} {message}");
    }
}

#[test]
fn a_leader_is_found_through_the_servers_of_its_cluster() {
    let server = TestServer::real(&["--requirepass", "s3cret"]);
    server.connect().line("AUTH s3cret");
    let url = format!("redis-sentinel://:s3cret@127.0.0.1:1,{}", server.addr);
    assert_eq!(locks(&url, &[]).0, 0, "the first server is down");
    assert_eq!(locks(&format!("{url}/1#octostore"), &[]).0, 0);
    let (code, _, message) = locks(&format!("{url}#other"), &[]);
    assert!(code == 69 && message.contains("other at") && !message.contains("s3cret"), "{code} {message}");
}
