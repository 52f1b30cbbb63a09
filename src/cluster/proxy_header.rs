//! The header of a connection between two servers: PROXY protocol, version 2, with fields of our
//! own.
//!
//! Guarantees: a header is accepted only from a server that knows the key of the cluster, and only
//! as a whole. Not here: sockets.

use std::net::{IpAddr, SocketAddr};

use crate::auth::Proof;

/// What every header begins with. No request of a client does.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes before the addresses; the last two are the number of those that follow.
pub(super) const FIXED_BYTES: usize = 16;

const VERSION_2: u8 = 0x20;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const FAMILY_UNKNOWN: u8 = 0;
const FAMILY_TCP4: u8 = 0x11;
const FAMILY_TCP6: u8 = 0x21;

/// The types that the protocol leaves to applications.
const FIELD_NODE: u8 = 0xe0;
const FIELD_CLIENT: u8 = 0xe1;
/// The last field. Covers all bytes before its value.
const FIELD_PROOF: u8 = 0xe2;

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The id of the server that sends it.
    pub node: String,
    /// The client's address and the one it has connected to; `None`: the connection is between the
    /// servers themselves.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What the client's connection has done so far, in the words of the protocol above.
    pub client: Vec<u8>,
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        match self.addresses {
            None => bytes.extend([VERSION_2 | COMMAND_LOCAL, FAMILY_UNKNOWN, 0, 0]),
            Some((source, destination)) => match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    bytes.extend([VERSION_2 | COMMAND_PROXY, FAMILY_TCP4, 0, 0]);
                    bytes.extend(from.octets().into_iter().chain(to.octets()));
                    bytes.extend(
                        [source.port(), destination.port()].iter().flat_map(|port| port.to_be_bytes()),
                    );
                }
                (from, to) => {
                    bytes.extend([VERSION_2 | COMMAND_PROXY, FAMILY_TCP6, 0, 0]);
                    bytes.extend([from, to].into_iter().flat_map(octets_of_v6));
                    bytes.extend(
                        [source.port(), destination.port()].iter().flat_map(|port| port.to_be_bytes()),
                    );
                }
            },
        }
        push_field(&mut bytes, FIELD_NODE, self.node.as_bytes());
        push_field(&mut bytes, FIELD_CLIENT, &self.client);
        bytes.extend([FIELD_PROOF, 0, Proof::BYTES as u8]);
        let rest = u16::try_from(bytes.len() - FIXED_BYTES + Proof::BYTES).unwrap_or(u16::MAX);
        bytes[FIXED_BYTES - 2..FIXED_BYTES].copy_from_slice(&rest.to_be_bytes());
        let proof = Proof::new(key, &bytes).to_bytes();
        bytes.extend(proof);
        bytes
    }

    /// The number of bytes after the fixed ones.
    pub(super) fn rest_bytes(fixed: &[u8; FIXED_BYTES]) -> usize {
        usize::from(u16::from_be_bytes([fixed[FIXED_BYTES - 2], fixed[FIXED_BYTES - 1]]))
    }

    /// Reads a whole header. Fails if its sender does not know the key.
    pub fn decode(bytes: &[u8], key: &[u8; 32]) -> Result<Header, &'static str> {
        const MALFORMED: &str = "malformed PROXY header";
        let signed = bytes.len().checked_sub(Proof::BYTES).ok_or(MALFORMED)?;
        let (signed, proof) = bytes.split_at(signed);
        if !Proof::new(key, signed).matches(proof) {
            return Err("PROXY header of a client that is not a server of this cluster");
        }
        let rest = signed.strip_prefix(&SIGNATURE).ok_or(MALFORMED)?;
        let ([command, family, _, _], rest) = rest.split_first_chunk().ok_or(MALFORMED)?;
        let (addresses, mut rest) = match (*command & 0xf, *family) {
            (COMMAND_LOCAL, FAMILY_UNKNOWN) => (None, rest),
            (COMMAND_PROXY, FAMILY_TCP4) => split_addresses::<4>(rest).ok_or(MALFORMED)?,
            (COMMAND_PROXY, FAMILY_TCP6) => split_addresses::<16>(rest).ok_or(MALFORMED)?,
            _ => return Err(MALFORMED),
        };
        let mut header = Header { node: String::new(), addresses, client: Vec::new() };
        while let Some(([kind, high, low], after)) = rest.split_first_chunk() {
            if *kind == FIELD_PROOF {
                return Ok(header);
            }
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (value, after) = after.split_at_checked(length).ok_or(MALFORMED)?;
            match *kind {
                FIELD_NODE => header.node = String::from_utf8_lossy(value).into_owned(),
                FIELD_CLIENT => header.client = value.to_vec(),
                _ => {}
            }
            rest = after;
        }
        Err(MALFORMED)
    }
}

fn octets_of_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn push_field(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(&value[..usize::from(length)]);
}

type Addresses = Option<(SocketAddr, SocketAddr)>;

/// Two addresses of `N` bytes each, and two ports.
fn split_addresses<const N: usize>(bytes: &[u8]) -> Option<(Addresses, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (from, bytes) = bytes.split_first_chunk::<N>()?;
    let (to, bytes) = bytes.split_first_chunk::<N>()?;
    let (from_port, bytes) = bytes.split_first_chunk()?;
    let (to_port, bytes) = bytes.split_first_chunk()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_be_bytes(*port))
    };
    Some((Some((address(from, from_port), address(to, to_port))), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(from: &str, to: &str) -> Header {
        let addresses = Some((from.parse().unwrap(), to.parse().unwrap()));
        Header { node: "a".repeat(40), addresses, client: b"{}".to_vec() }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let key = [7; 32];
        for header in [
            header("10.0.0.1:50000", "10.0.0.2:7379"),
            header("[fe80::1]:50000", "[fe80::2]:7379"),
            header("10.0.0.1:50000", "[fe80::2]:7379"),
            Header { addresses: None, ..header("10.0.0.1:1", "10.0.0.2:1") },
        ] {
            let bytes = header.encode(&key);
            let fixed = bytes.first_chunk().unwrap();
            assert_eq!(FIXED_BYTES + Header::rest_bytes(fixed), bytes.len());
            assert_eq!(Header::decode(&bytes, &key), Ok(header));
        }
    }

    #[test]
    fn a_header_that_was_changed_or_has_another_key_is_refused() {
        let key = [7; 32];
        let bytes = header("10.0.0.1:50000", "10.0.0.2:7379").encode(&key);
        assert!(Header::decode(&bytes, &[8; 32]).is_err());
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(Header::decode(&changed, &key).is_err(), "{place}");
            assert!(Header::decode(&bytes[..place], &key).is_err(), "{place}");
        }
    }
}
