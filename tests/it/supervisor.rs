//! What the server reports to systemd, or to another supervisor with its protocol.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::process::{Process, signal};

fn received(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).expect("a notification");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn the_supervisor_learns_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start_with(&data, &[("NOTIFY_SOCKET", path.as_os_str())]);
    assert_eq!(received(&socket), "READY=1\n");
    assert_eq!(server.connect().line("PING"), "+PONG");
    signal(&server, "-HUP");
    let reloading = received(&socket);
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload").trim_end();
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
    assert_eq!(received(&socket), "READY=1\n");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(received(&socket), "STOPPING=1\n");
}

#[test]
fn a_supervisor_that_is_gone_prevents_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("notify");
    let data = dir.path().join("octostore.db");
    let server = Process::start_with(&data, &[("NOTIFY_SOCKET", missing.as_os_str())]);
    assert_eq!(server.connect().line("PING"), "+PONG");
    let (code, log) = server.terminate();
    assert!(code == Some(0) && log.contains("cannot notify the supervisor"), "{log}");
}
