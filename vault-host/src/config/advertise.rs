//! How a host calls itself to the other hosts of its store.

use super::ConfigError;

/// Longest address of a host.
pub(crate) const ADDRESS_BYTES_MAX: usize = 200;

/// Whether this reads as the address of a host, and as nothing else where a message has it.
pub(crate) fn is_address(address: &str) -> bool {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    address.len() <= ADDRESS_BYTES_MAX && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(of_a_name))
}

pub(super) fn checked(advertise: Option<String>, is_shared: bool) -> Result<Option<String>, ConfigError> {
    match advertise {
        Some(_) if !is_shared => Err(ConfigError::Advertise("it is for hosts that share a store: set store")),
        Some(address) if !is_address(&address) => Err(ConfigError::Advertise("write https://HOST:PORT")),
        advertise => Ok(advertise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host_and_no_more() {
        for good in ["https://host-a.example:7440", "http://10.0.0.1:7440", "https://[::1]:7440"] {
            assert!(is_address(good), "{good}");
            assert_eq!(checked(Some(good.to_owned()), true).unwrap().as_deref(), Some(good));
        }
        let long = format!("https://{}", "a".repeat(ADDRESS_BYTES_MAX));
        for bad in ["", "host:1", "https://", "unix:/run/host.sock", "https://a b", "https://a/\u{1b}[2J", &long] {
            assert_eq!(checked(Some(bad.to_owned()), true).unwrap_err().code(), "config-advertise", "{bad}");
        }
        assert_eq!(checked(Some("https://a".to_owned()), false).unwrap_err().code(), "config-advertise");
    }
}
