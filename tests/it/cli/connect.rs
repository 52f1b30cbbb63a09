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
        assert!(
            code == 69 && message.contains("UnknownIssuer: give the certificate of its authority"),
            "{message}"
        );
    }
}

#[test]
fn a_server_that_cannot_be_used_is_named_with_what_to_do() {
    let certificates = Certificates::new();
    let ca = certificates.path("ca.pem");
    let flags = certificates.flags(&["--tls-client-ca", &ca]);
    let server = TestServer::real(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let tls = format!("rediss://{}", server.tls.expect("an address"));
    let http = server.http.expect("an address");
    for (url, code, part) in [
        (tls, 69, "CertificateRequired: the server wants a certificate, see --cert"),
        (format!("rediss://{}", server.addr), 69, "InvalidContentType: the port may be one without TLS"),
        (format!("redis://{http}"), 69, "does not answer as a Redis server; is it the port for HTTP?"),
        (
            format!("http://{http}"),
            2,
            "the URL cannot be used: invalid client config; redis://HOST:PORT is one",
        ),
        ("host:7379".to_owned(), 2, "redis://HOST:PORT is one"),
    ] {
        let (found, _, message) = locks(&url, &["--cacert", &ca]);
        assert!(found == code && message.contains(part), "{url}: {found} {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
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
