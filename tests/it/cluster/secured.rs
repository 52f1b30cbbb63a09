//! Connections to etcd and between servers under TLS, and an etcd with users.

use std::process::{Command, Stdio};

use serde_json::json;

use super::call_etcd;
use super::nodes::{Seen, start_node};
use crate::support::certificates::Certificates;
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::http::{Answer, exchange};
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::until;

/// Lets only users in: one that may use the prefix `/locks`.
fn demand_passwords(port: u16) {
    // base64 of /locks/ and of what comes behind it.
    let all = json!({"permType": "READWRITE", "key": "L2xvY2tzLw==", "range_end": "L2xvY2tzMA=="});
    for (path, body) in [
        ("auth/user/add", json!({"name": "root", "password": "root"})),
        ("auth/role/add", json!({"name": "root"})),
        ("auth/user/grant", json!({"user": "root", "role": "root"})),
        ("auth/user/add", json!({"name": "octostore", "password": "s@cret"})),
        ("auth/role/add", json!({"name": "locks"})),
        ("auth/role/grant", json!({"name": "locks", "perm": all})),
        ("auth/user/grant", json!({"user": "octostore", "role": "locks"})),
        ("auth/enable", json!({})),
    ] {
        call_etcd(port, path, &body);
    }
}

fn get(node: &Process, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    exchange(node.http.expect("an address"), request.as_bytes()).expect("an answer")
}

/// The port with TLS for clients of a kind, as the banner names it.
fn encrypted_port(node: &Process, kind: &str) -> u16 {
    let mut lines = node.banner.iter().filter_map(|line| line.trim().strip_prefix(kind));
    let address = lines.next().expect("a line").split("TLS ").nth(1).expect("an address");
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn all_connections_of_servers_can_be_secured() {
    let certificates = Certificates::new();
    certificates.issue("client");
    let [ca, server_pem, server_key] =
        ["ca.pem", "server.pem", "server.key"].map(|file| certificates.path(file));
    let [client_pem, client_key] = ["client.pem", "client.key"].map(|file| certificates.path(file));
    let encrypted = free_port();
    let flags = |port: u16| {
        vec![
            format!("--listen-client-urls=http://127.0.0.1:{port},https://127.0.0.1:{encrypted}"),
            format!("--cert-file={server_pem}"),
            format!("--key-file={server_key}"),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={ca}"),
        ]
    };
    let Some(mut etcd) = Etcd::start_with(1, flags) else { return };
    demand_passwords(etcd.ports()[0]);
    let store = format!("etcds://octostore:s%40cret@127.0.0.1:{encrypted}/locks");
    let to_etcd = ["--store-ca", &ca, "--store-cert", &client_pem, "--store-key", &client_key];
    let between_servers = ["--tls-client-ca", &ca, "--cluster-ca", &ca];
    let sentinel = ["--sentinel-tls-listen", "127.0.0.1:0"];
    let flags = certificates.flags(&[&between_servers[..], &to_etcd, &sentinel].concat());
    let nodes = [0, 1].map(|_| start_node(&store, &flags));
    let leader = || nodes.iter().find_map(|node| Seen::by(node.addr).leader_port);
    until(|| leader().is_some() && nodes.iter().all(|node| Seen::by(node.addr).servers == 2));
    // They reach each other at the addresses with TLS, and present their certificates there.
    let plain: Vec<u16> = nodes.iter().map(|node| node.addr.port()).collect();
    assert!(leader().is_some_and(|port| !plain.contains(&port)), "{plain:?} {:?}", leader());
    let tokens = nodes.each_ref().map(|node| Client::connect(node.addr).line("LOCK k me EX 600"));
    assert_eq!(tokens, [":1", ":1"]);
    for node in &nodes {
        assert_eq!(get(node, "/locks/k").json()["fencing_token"], 1);
    }
    // The leader is found over TLS from each port of each server.
    for node in &nodes {
        let ports = ["redis", "sentinel"].map(|kind| encrypted_port(node, kind));
        for port in ports {
            let url = format!("rediss-sentinel://127.0.0.1:1,127.0.0.1:{port}");
            let certificates = ["--cacert", &ca, "--cert", &client_pem, "--key", &client_key];
            let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
            command.args(["locks", "--json", "--url", &url]).args(certificates);
            let output = command.env_clear().stdin(Stdio::null()).output().expect("the program");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("\"key\":\"k\""), "{text}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // What etcd knows of the sessions of its users is gone, too.
    etcd.kill_and_restart();
    for node in &nodes {
        until(|| Client::connect(node.addr).line("FENCE k") == ":1");
    }
    let wrong = store.replace("s%40cret", "other");
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.args(["--store", &wrong, "--listen", "127.0.0.1:0", "--http", "off"]).args(to_etcd);
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    let refusal = Process::spawn(&mut command).err().expect("a refusal");
    assert!(refusal.contains("authentication failed") && !refusal.contains("other"), "{refusal}");
}
