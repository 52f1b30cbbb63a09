//! `octostore health`: the health check of containers.

use std::process::{Command, Output};

use crate::support::process::Process;
use crate::support::until;

/// Runs the check with the server's variable, as in a container.
fn check(http: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.arg("health").env_clear().env("OCTOSTORE_HTTP", http).output().expect("the program")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn health_is_that_of_the_server_and_its_storage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let password = [("OCTOSTORE_REQUIREPASS", std::ffi::OsStr::new("secret"))];
    let server = Process::start_with(&data, &password);
    let http = server.http.expect("an address");
    let healthy = check(&http.to_string());
    assert!(healthy.status.success(), "without the password: {}", stderr(&healthy));
    assert_eq!(healthy.stdout, b"healthy\n");
    let several = check(&format!("0.0.0.0:{}, 192.0.2.1:1", http.port()));
    assert!(several.status.success(), "{}", stderr(&several));

    let redis = check(&server.addr.to_string());
    assert_eq!(redis.status.code(), Some(1));
    assert!(stderr(&redis).contains("does not answer in HTTP"), "{}", stderr(&redis));

    std::fs::remove_file(&data).unwrap();
    // The server looks for its files about once a second.
    until(|| !check(&http.to_string()).status.success());
    let sick = check(&http.to_string());
    assert_eq!(sick.status.code(), Some(1));
    assert!(stderr(&sick).contains("is not healthy: HTTP/1.1 500"), "{}", stderr(&sick));

    server.kill();
    let gone = check(&http.to_string());
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("cannot be asked"), "{}", stderr(&gone));
    let off = check("off");
    assert_eq!(off.status.code(), Some(1));
    assert!(stderr(&off).contains("HTTP, which is off"), "{}", stderr(&off));
}
