//! `octostore health`: whether a server can grant locks, for the health checks of containers, whose
//! images have no other program.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::{fail, print};
use crate::config::OPTIONS;

/// A server that does not connect or answer within this time is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status line is shorter.
const STATUS_LINE_BYTES_MAX: u64 = 1024;

pub(super) fn command() -> Command {
    let default = OPTIONS.iter().find(|option| option.name == "http").map_or("", |option| option.default);
    let http = Arg::new("http")
        .long("http")
        .env("OCTOSTORE_HTTP")
        .value_name("ADDR:PORT")
        .default_value(default)
        .help("The server's addresses for HTTP clients, of which the first is asked");
    Command::new("health").about("Asks a server whether it can grant locks: GET /health").arg(http)
}

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let addresses = matches.get_one::<String>("http").map_or("", String::as_str);
    let address = addresses.split(',').next().unwrap_or_default().trim();
    match status_line(address) {
        Ok(line) if line.split_whitespace().nth(1) == Some("200") => {
            print("healthy");
            ExitCode::SUCCESS
        }
        Ok(line) if line.starts_with("HTTP/") => fail(1, format!("{address} is not healthy: {line}")),
        Ok(_) => fail(1, format!("{address} does not answer in HTTP; it must be an address of --http")),
        Err(_) if address == "off" => {
            fail(1, "the server is asked over HTTP, which is off; add an address of loopback to --http")
        }
        Err(error) => fail(1, format!("{address} cannot be asked: {error}")),
    }
}

/// The first line of the response to `GET /health`.
fn status_line(address: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    match BufReader::new(stream.take(STATUS_LINE_BYTES_MAX)).read_line(&mut line) {
        Ok(_) => Ok(line.trim_end().to_owned()),
        // Bytes of another protocol.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Connects to one of the addresses that a host name stands for.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in address.to_socket_addrs()? {
        result = TcpStream::connect_timeout(&reachable(address), TIMEOUT);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A server that listens on all addresses is asked at loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
