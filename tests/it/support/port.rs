//! Ports for servers that cannot choose one by themselves.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// A port that is free now. Another program may take it first.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether what listens on this port answers `request` with a text that contains `name`, and closes
/// the connection. It may also be another program than the one that was started there, or the
/// connection itself, if it has been given the same port.
pub(crate) fn answers_with(port: u16, request: &str, name: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains(name))
    };
    ask().is_ok_and(|is_contained| is_contained)
}
