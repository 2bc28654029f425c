//! Where the keeper listens.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where the keeper listens: `unix:/path`, `tcp:IP:PORT` (or `tcp://IP:PORT`), `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeeperAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, in plaintext.
    Tcp(SocketAddr),
    /// TLS over TCP.
    Tls {
        /// A name or an IP address, which the keeper's certificate must name. An IPv6 address has no brackets here.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl FromStr for KeeperAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:").map(PathBuf::from) {
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err("write unix: and an absolute path") };
        }
        if let Some(authority) = text.strip_prefix("https://") {
            return tls(authority).ok_or("write https://HOST:PORT, and no path");
        }
        let address = text.strip_prefix("tcp:").ok_or("write unix:/path, tcp:IP:PORT or https://HOST:PORT")?;
        let address = address.strip_prefix("//").unwrap_or(address);
        address.parse().map(Self::Tcp).map_err(|_| "write tcp:IP:PORT, with a number for the address")
    }
}

fn tls(authority: &str) -> Option<KeeperAddress> {
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok()?.to_string(),
        None => Some(host).filter(|host| is_name(host))?.to_owned(),
    };
    Some(KeeperAddress::Tls { host, port })
}

/// A DNS name or an IPv4 address.
fn is_name(host: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    !host.is_empty() && host.len() <= 253 && host.bytes().all(known)
}

impl fmt::Display for KeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_written_the_same() {
        for text in [
            "unix:/run/keeper.sock",
            "tcp:127.0.0.1:7701",
            "tcp:[::1]:7701",
            "https://keeper.example:7701",
            "https://10.0.0.2:1",
            "https://[fd00::2]:7701",
        ] {
            assert_eq!(text.parse::<KeeperAddress>().unwrap().to_string(), text);
        }
        assert_eq!("tcp://127.0.0.1:7".parse::<KeeperAddress>(), "tcp:127.0.0.1:7".parse());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "/run/keeper.sock",
            "unix:keeper.sock",
            "tcp:localhost:7",
            "tcp:///127.0.0.1:7",
            "http://127.0.0.1:7",
            "https://keeper.example",
            "https://keeper.example:0",
            "https://keeper.example:7/path",
            "https://someone@keeper.example:7",
            "https://:7",
            "https://fd00::2:7",
            "https://[keeper.example]:7",
        ] {
            assert!(text.parse::<KeeperAddress>().is_err(), "{text}");
        }
    }
}
