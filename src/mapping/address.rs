//! Addresses as logs write them: with a port, in brackets, with a zone.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};

/// The address in a text such as `192.0.2.1`, `192.0.2.1:443`, `[2001:db8::1]:443`, `fe80::1%eth0` or
/// `::ffff:192.0.2.1`, of several with commas the first; none if it is none.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    // Proxies append theirs.
    let text = text.split_once(',').map_or(text, |(first, _)| first);
    let text = text.trim_ascii();
    // A zone may be any name.
    let without_zone = |text: &str| {
        text.split_once('%')
            .map_or(text, |(address, _)| address)
            .parse()
    };
    let address = match text.strip_prefix('[') {
        Some(inner) => {
            let (inner, after) = inner.split_once(']')?;
            let is_number = |port: &str| {
                port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
            };
            let is_port = after.strip_prefix(':').map_or(after.is_empty(), is_number);
            without_zone(inner).ok().filter(|_| is_port)?
        }
        None => without_zone(text).ok().or_else(|| {
            let socket = text.parse::<SocketAddrV4>().ok()?;
            Some(IpAddr::V4(*socket.ip()))
        })?,
    };
    Some(match address {
        IpAddr::V6(address) => plain(address),
        v4 @ IpAddr::V4(_) => v4,
    })
}

/// An IPv4 address in the form of an IPv6 one (RFC 4291, 2.5.5.2) is what it is.
fn plain(address: Ipv6Addr) -> IpAddr {
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        let check = |text: &str, expected: &str| {
            let found = parse_address(text).map(|address| address.to_string());
            assert_eq!(found.unwrap_or_default(), expected, "for {text}");
        };
        check("192.0.2.1", "192.0.2.1");
        check(" 192.0.2.1:443 ", "192.0.2.1");
        check("[2001:db8::1]:443", "2001:db8::1");
        check("[2001:DB8::1]", "2001:db8::1");
        check("[192.0.2.1]:443", "192.0.2.1");
        check("192.0.2.1, 10.0.0.1", "192.0.2.1");
        check("fe80::1%eth0", "fe80::1");
        check("[fe80::1%3]:443", "fe80::1");
        check("[2001:db8::1%eth0]:44", "2001:db8::1");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("[::ffff:192.0.2.1]:80", "192.0.2.1");
        for wrong in [
            "",
            "ec2.amazonaws.com",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1 x",
            "12.000.22.33",
            "192.0.2.1:99999",
            "[192.0.2.1",
            "[192.0.2.1]x",
            "[192.0.2.1]:",
            "[192.0.2.1]:+44",
            "[2001:db8::1]:+1",
        ] {
            check(wrong, "");
        }
    }
}
