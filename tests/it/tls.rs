//! TLS on both ports, with the clients that users have.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::certificates::Certificates;
use crate::support::client::{Client, encode};
use crate::support::peers::skip;
use crate::support::process::{Process, signal};
use crate::support::server::TestServer;
use crate::support::until;

fn server(certificates: &Certificates, more: &[&str]) -> TestServer {
    let flags = certificates.flags(more);
    TestServer::real(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Tls {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    let tcp = TcpStream::connect(address).expect("a connection");
    tcp.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a socket option");
    StreamOwned::new(session, tcp)
}

/// Sends a request and returns the first bytes of the reply.
fn ask(client: &mut Tls, words: &[&str]) -> std::io::Result<String> {
    client.write_all(&encode(words))?;
    let mut buffer = [0; 4096];
    match client.read(&mut buffer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        read => Ok(String::from_utf8_lossy(&buffer[..read]).into_owned()),
    }
}

fn redis_client(address: SocketAddr, certificates: &Certificates, own: Option<&str>) -> redis::Client {
    let client_tls = own.map(|name| redis::ClientTlsConfig {
        client_cert: certificates.read(&format!("{name}.pem")),
        client_key: certificates.read(&format!("{name}.key")),
    });
    let root_cert = Some(certificates.read("ca.pem"));
    let url = format!("rediss://127.0.0.1:{}", address.port());
    redis::Client::build_with_tls(url, redis::TlsCertificates { client_tls, root_cert }).expect("a client")
}

#[test]
fn the_redis_crate_works_over_tls() {
    let certificates = Certificates::new();
    let server = server(&certificates, &[]);
    let client = redis_client(server.tls.expect("an address"), &certificates, None);
    let mut connection = client.get_connection().expect("a connection");
    let token: i64 = redis::cmd("LOCK").arg("k").arg("me").query(&mut connection).expect("a lock");
    assert!(token > 0);
    // Replies and requests larger than a record and the buffers.
    let value = "x".repeat(900 << 10);
    let mut pipeline = redis::pipe();
    for n in 0..8 {
        pipeline.cmd("HSET").arg(format!("h{n}")).arg("f").arg(&value).ignore();
        pipeline.cmd("HGET").arg(format!("h{n}")).arg("f");
    }
    let found: Vec<String> = pipeline.query(&mut connection).expect("values");
    assert!(found.len() == 8 && found.iter().all(|found| *found == value));
    // The plain port has the same locks.
    assert_eq!(server.connect().call(&["FENCE", "k"]), format!(":{token}"));
}

#[test]
fn clients_without_the_required_certificate_are_refused() {
    let certificates = Certificates::new();
    certificates.issue("worker-1");
    let server = server(&certificates, &["--tls-client-ca", &certificates.path("ca.pem")]);
    let address = server.tls.expect("an address");
    let ping =
        |client: redis::Client| redis::cmd("PING").query::<String>(&mut client.get_connection().ok()?).ok();
    assert_eq!(ping(redis_client(address, &certificates, Some("worker-1"))).as_deref(), Some("PONG"));
    assert_eq!(ping(redis_client(address, &certificates, None)), None);
    assert!(ask(&mut connect(&certificates.client(None), address), &["PING"]).is_err());
    let mut known = connect(&certificates.client(Some("worker-1")), address);
    assert_eq!(ask(&mut known, &["PING"]).expect("a reply"), "+PONG\r\n");
}

#[test]
fn the_log_says_why_a_handshake_was_refused() {
    let certificates = Certificates::new();
    let flags = certificates.flags(&["--tls-client-ca", &certificates.path("ca.pem")]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().expect("a folder");
    let server = Process::start(&dir.path().join("octostore.db"), &flags);
    let address = tls_address(&server, "redis");
    // A probe of the port is no concern.
    drop(TcpStream::connect(address).expect("a connection"));
    assert!(ask(&mut connect(&certificates.client(None), address), &["PING"]).is_err());
    let log = server.terminate().1;
    assert!(
        log.contains("WARN TLS handshake refused client=127.0.0.1:") && log.contains("certificate"),
        "{log}"
    );
    assert!(!log.contains("TLS handshake failed"), "{log}");
}

/// Runs a program. Returns its output; `None`, with a line that says why, if it is not installed.
fn run(words: &[&str]) -> Option<String> {
    match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("there is no {} on this machine", words[0]));
            None
        }
        Err(error) => panic!("{}: {error}", words[0]),
    }
}

#[test]
fn curl_works_over_tls() {
    let certificates = Certificates::new();
    certificates.issue("worker-1");
    let (ca, own, key) =
        (certificates.path("ca.pem"), certificates.path("worker-1.pem"), certificates.path("worker-1.key"));
    let server = server(&certificates, &["--tls-client-ca", &ca]);
    let https = server.https.expect("an address");
    let url = format!("https://localhost:{}/health", https.port());
    let with_certificate = ["curl", "-sS", "--cacert", &ca, "--cert", &own, "--key", &key, &url];
    let Some(answer) = run(&with_certificate) else { return };
    assert!(answer.contains("ok"), "{answer}");
    let refused = run(&["curl", "-sS", "--cacert", &ca, &url]).expect("curl");
    assert!(refused.contains("curl: ("), "{refused}");
}

#[test]
fn redis_cli_works_over_tls() {
    let certificates = Certificates::new();
    certificates.issue("worker-1");
    let (ca, own, key) =
        (certificates.path("ca.pem"), certificates.path("worker-1.pem"), certificates.path("worker-1.key"));
    let server = server(&certificates, &["--tls-client-ca", &ca]);
    let port = server.tls.expect("an address").port().to_string();
    let base = ["redis-cli", "--tls", "--cacert", &ca, "--cert", &own, "--key", &key, "-p", &port];
    let Some(answer) = run(&[&base[..], &["LOCK", "k", "me"]].concat()) else { return };
    if answer.contains("Unrecognized option") {
        return skip("the redis-cli on this machine has no TLS");
    }
    assert!(answer.trim().parse::<i64>().is_ok_and(|token| token > 0), "{answer}");
}

#[test]
fn http_requests_larger_than_a_record_work_over_tls() {
    let certificates = Certificates::new();
    let server = server(&certificates, &[]);
    let mut client = connect(&certificates.client(None), server.https.expect("an address"));
    for _ in 0..3 {
        let accept = "accept: application/openmetrics-text";
        let request = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{accept}\r\n\r\n");
        client.write_all(request.as_bytes()).expect("a request");
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while !seen.ends_with(b"# EOF\n") && !seen.ends_with(b"# EOF\n\r\n0\r\n\r\n") {
            match client.read(&mut buffer).expect("a response") {
                0 => panic!("{}", String::from_utf8_lossy(&seen)),
                read => seen.extend_from_slice(&buffer[..read]),
            }
        }
        let text = String::from_utf8_lossy(&seen);
        assert!(
            text.starts_with("HTTP/1.1 200")
                && text.contains("octostore_tls_certificate_expiry_timestamp_seconds ")
        );
    }
    client
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("a request");
    // Fails if the end is not marked.
    client.read_to_end(&mut Vec::new()).expect("the end of the connection");
    let mut broken = connect(&certificates.client(None), server.https.expect("an address"));
    broken.write_all(b"no request\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    broken.read_to_end(&mut answer).expect("a refusal and the end");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

/// The TLS addresses that the banner shows.
fn tls_address(server: &Process, side: &str) -> SocketAddr {
    let line = server.banner.iter().find(|line| line.trim().starts_with(side)).expect("a line");
    let (_, address) = line.split_once("TLS ").expect("an address");
    address.split(',').next().expect("an address").trim().parse().expect("an address")
}

#[test]
fn certificates_are_replaced_without_dropping_connections() {
    let certificates = Certificates::new();
    let dir = tempfile::tempdir().expect("a folder");
    let flags = certificates.flags(&[]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Process::start(&dir.path().join("octostore.db"), &flags);
    let (address, config) = (tls_address(&server, "redis"), certificates.client(None));
    let shown = |client: &mut Tls| {
        ask(client, &["PING"]).expect("a reply");
        client.conn.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let mut old = connect(&config, address);
    let first = shown(&mut old);
    let now = || shown(&mut connect(&config, address));
    // On a signal, at once.
    certificates.issue("server");
    signal(&server, "-HUP");
    until(|| now() != first);
    let second = now();
    // A broken pair changes nothing, and a good one is found without a signal.
    certificates.write("server.key", "broken");
    signal(&server, "-HUP");
    assert_eq!(now(), second);
    certificates.issue("server");
    until(|| now() != second);
    assert_eq!(
        ask(&mut old, &["PING"]).expect("a reply"),
        "+PONG\r\n",
        "the first connection is still there"
    );
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(log.contains("certificate loaded"), "{log}");
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[test]
fn clients_that_never_complete_a_handshake_keep_no_others_out() {
    let certificates = Certificates::new();
    let server = server(&certificates, &["--connections-max", "100"]);
    let (address, config) = (server.tls.expect("an address"), certificates.client(None));
    let mut early = connect(&config, address);
    assert_eq!(ask(&mut early, &["PING"]).expect("a reply"), "+PONG\r\n");
    let half_open: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut tcp = TcpStream::connect(address).expect("a connection");
            // Some send a part of a handshake, and some send no TLS.
            let part: &[u8] = [&b""[..], &[22, 3, 1, 2, 0, 1, 0], b"*1\r\n$4\r\nPING\r\n"][n % 3];
            let _ = tcp.write_all(part);
            tcp
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(ask(&mut connect(&config, address), &["PING"]).expect("a reply"), "+PONG\r\n");
        assert_eq!(ask(&mut early, &["PING"]).expect("a reply"), "+PONG\r\n");
        assert_eq!(server.connect().call(&["PING"]), "+PONG");
    }
    drop(half_open);
    let client = RefCell::new(Client::connect(server.addr));
    until(|| client.borrow_mut().line("INFO clients").contains("connected_clients:2"));
    assert!(TcpStream::connect(server.http.expect("an address")).is_ok());
}

/// What a client sends first.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut hello = Vec::new();
    let mut session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    session.write_tls(&mut hello).expect("a handshake");
    hello
}

#[test]
fn a_connection_that_sends_no_tls_ends_alone() {
    let certificates = Certificates::new();
    let server = server(&certificates, &[]);
    let (address, config) = (server.tls.expect("an address"), certificates.client(None));
    let mut other = connect(&config, address);
    let hello = client_hello(&config);
    for input in [
        vec![0x55; 64 << 10],
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        // Records that are longer than allowed, of no known kind, of no known version, and empty.
        [&[22, 3, 3, 255, 255][..], &[0; 65_535]].concat(),
        [&[99, 3, 3, 0, 4][..], &[0; 4]].concat(),
        [&[22, 9, 9, 0, 4][..], &[0; 4]].concat(),
        [22, 3, 3, 0, 0].repeat(1000),
        // A message that claims to be 16 MB long.
        [&[22, 3, 3, 64, 0, 1, 255, 255, 255][..], &[0; 16_380]].concat(),
        // Half a handshake, then noise; a handshake twice; alerts in front of it.
        [&hello[..hello.len() / 2], &[0xaa; 4096]].concat(),
        [&hello[..], &[23, 3, 3, 0, 100], &[0xaa; 100]].concat(),
        hello.repeat(2),
        [&[21, 3, 3, 0, 2, 1, 0].repeat(1000)[..], &hello].concat(),
    ] {
        let mut tcp = TcpStream::connect(address).expect("a connection");
        tcp.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a socket option");
        // The server may close it before it has read everything.
        let _ = tcp.write_all(&input).and_then(|()| tcp.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        if let Err(error) = tcp.read_to_end(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{:?}", &input[..9]);
        }
        assert_eq!(ask(&mut other, &["PING"]).expect("a reply"), "+PONG\r\n");
    }
    // One that is only slow is served.
    let mut slow = connect(&config, address);
    let mut hello = Vec::new();
    slow.conn.write_tls(&mut hello).expect("a handshake");
    for byte in hello {
        slow.sock.write_all(&[byte]).expect("a server that reads");
        std::thread::yield_now();
    }
    assert_eq!(ask(&mut slow, &["PING"]).expect("a reply"), "+PONG\r\n");
}

#[test]
fn sessions_may_change_their_keys_but_not_begin_again() {
    let certificates = Certificates::new();
    let server = server(&certificates, &[]);
    let (address, config) = (server.tls.expect("an address"), certificates.client(None));
    let mut other = connect(&config, address);
    let mut changing = connect(&config, address);
    assert_eq!(ask(&mut changing, &["PING"]).expect("a reply"), "+PONG\r\n");
    for _ in 0..10_000 {
        changing.conn.refresh_traffic_keys().expect("TLS 1.3");
        if changing.conn.write_tls(&mut changing.sock).is_err() {
            break;
        }
    }
    assert_eq!(ask(&mut other, &["PING"]).expect("a reply"), "+PONG\r\n");
    // It goes on, unless the server found this too much.
    if let Ok(reply) = ask(&mut changing, &["PING"]) {
        assert_eq!(reply, "+PONG\r\n");
    }
    // TLS 1.2 can ask for a new handshake in the same session, which costs the server most.
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-connect", &address.to_string()]);
    command.args(["-CAfile", &certificates.path("ca.pem")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return skip("there is no openssl"),
        spawned => spawned.expect("the program"),
    };
    // To s_client, this line is an order.
    client.stdin.take().expect("its input").write_all(b"R\n").expect("a program that reads");
    let output = client.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("Verify return code: 0") && text.contains("RENEGOTIATING"), "{text}");
    assert!(text.contains("no renegotiation"), "{text}");
    assert_eq!(ask(&mut other, &["PING"]).expect("a reply"), "+PONG\r\n");
}

#[test]
fn a_server_may_have_no_port_in_plain_text() {
    let certificates = Certificates::new();
    let flags = certificates.flags(&["--listen", "off", "--http", "off"]);
    let server = TestServer::real(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((server.http, server.tls), (server.https, Some(server.addr)));
    let mut client = connect(&certificates.client(None), server.addr);
    let info = ask(&mut client, &["INFO", "server"]).expect("a reply");
    assert!(info.contains(&format!("tcp_port:{}\r\n", server.addr.port())), "{info}");
    assert!(info.contains("tls_certificate_expiry_days:"), "{info}");
}

#[test]
fn the_common_name_of_a_certificate_is_its_user() {
    let certificates = Certificates::new();
    ["worker-1", "stranger"].iter().for_each(|name| certificates.issue(name));
    certificates.write(
        "users",
        "user default off\nuser worker-1 on >secret ~jobs.* +@lock +@connection +acl|whoami\nuser other on >else ~* +@all\n",
    );
    let (ca, users) = (certificates.path("ca.pem"), certificates.path("users"));
    let more =
        ["--tls-client-ca", &ca, "--tls-client-auth", "optional", "--tls-user-from", "cn", "--users", &users];
    let server = server(&certificates, &more);
    let (tls, https) = (server.tls.expect("an address"), server.https.expect("an address"));
    let ask = |own: Option<&str>, words: &[&str]| {
        ask(&mut connect(&certificates.client(own), tls), words).expect("a reply")
    };
    assert_eq!(ask(Some("worker-1"), &["ACL", "WHOAMI"]), "$8\r\nworker-1\r\n");
    assert!(ask(Some("worker-1"), &["LOCK", "jobs.1", "me"]).starts_with(':'));
    assert!(ask(Some("worker-1"), &["LOCK", "other", "me"]).starts_with("-NOPERM"));
    let mut worker = connect(&certificates.client(Some("worker-1")), tls);
    for (request, reply) in [
        (&["AUTH", "other", "else"][..], "+OK\r\n"),
        (&["ACL", "WHOAMI"], "$5\r\nother\r\n"),
        (&["RESET"], "+RESET\r\n"),
        (&["ACL", "WHOAMI"], "$8\r\nworker-1\r\n"),
    ] {
        assert_eq!(self::ask(&mut worker, request).expect("a reply"), reply, "{request:?}");
    }
    // The names of others are proved by their passwords, as without TLS.
    assert!(ask(Some("stranger"), &["ACL", "WHOAMI"]).starts_with("-NOAUTH"));
    assert!(ask(None, &["ACL", "WHOAMI"]).starts_with("-NOAUTH"));
    assert_eq!(ask(Some("stranger"), &["AUTH", "other", "else"]), "+OK\r\n");
    let get = |own: Option<&str>, credentials: &str| {
        let mut client = connect(&certificates.client(own), https);
        let head = format!("GET /locks/jobs.1 HTTP/1.1\r\nhost: localhost\r\n{credentials}\r\n");
        client.write_all(head.as_bytes()).expect("a request");
        let mut status = [0; 12];
        client.read_exact(&mut status).expect("a response");
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    assert_eq!(get(Some("worker-1"), ""), "200");
    assert_eq!(get(Some("stranger"), ""), "401");
    assert_eq!(get(None, ""), "401");
    assert_eq!(get(Some("stranger"), "authorization: Bearer else\r\n"), "200");
    assert_eq!(get(Some("worker-1"), "authorization: Bearer wrong\r\n"), "401", "credentials come first");
}
