//! An event and its line. The line is written by hand into a buffer: it is the hot path.

use super::device::Device;
use super::place::{Address, City};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventType {
    LoginSuccess,
    LoginFailed,
    Logout,
    MfaSuccess,
    MfaFailed,
    FileAccess,
    ApiCall,
    DbQuery,
    EmailSend,
    ConfigChange,
    AccessDenied,
    AdminChange,
    FileDownload,
}

/// All that a line says.
pub(super) struct Event {
    pub(super) timestamp_ms: i64,
    pub(super) user: u32,
    pub(super) kind: EventType,
    pub(super) address: Address,
    pub(super) city: &'static City,
    pub(super) threat_percent: u32,
    /// The failure of something that is not a failure type, such as a call that timed out.
    pub(super) has_failed: bool,
    pub(super) device: Device,
    pub(super) endpoint: Endpoint,
    pub(super) size_bytes: u64,
}

/// A path, most with the number of the thing that was touched.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) number: Option<u32>,
}

impl EventType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LoginSuccess => "LOGIN_SUCCESS",
            Self::LoginFailed => "LOGIN_FAILED",
            Self::Logout => "LOGOUT",
            Self::MfaSuccess => "MFA_SUCCESS",
            Self::MfaFailed => "MFA_FAILED",
            Self::FileAccess => "FILE_ACCESS",
            Self::ApiCall => "API_CALL",
            Self::DbQuery => "DB_QUERY",
            Self::EmailSend => "EMAIL_SEND",
            Self::ConfigChange => "CONFIG_CHANGE",
            Self::AccessDenied => "ACCESS_DENIED",
            Self::AdminChange => "ADMIN_CHANGE",
            Self::FileDownload => "FILE_DOWNLOAD",
        }
    }

    pub(super) fn is_failure(self) -> bool {
        matches!(
            self,
            Self::LoginFailed | Self::MfaFailed | Self::AccessDenied
        )
    }
}

impl Event {
    /// Appends the line of the event that is number `index` of the output.
    pub(super) fn write_line(&self, index: u64, line: &mut Vec<u8>) {
        push(line, "{\"event_id\":\"");
        self.write_id(index, line);
        push(line, "\",\"user\":\"user");
        push_padded(line, u64::from(self.user), 5);
        push(line, "\",\"timestamp\":");
        push_padded(line, self.timestamp_ms.cast_unsigned(), 1);
        push(line, ",\"type\":\"");
        push(line, self.kind.name());
        push(line, "\",\"source_ip\":\"");
        push_address(line, self.address);
        push(line, "\",\"geo_location\":\"");
        push(line, self.city.name);
        push(line, ", ");
        push(line, self.city.country);
        push(line, "\",\"threat_score\":0.");
        push_padded(line, u64::from(self.threat_percent.min(99)), 2);
        push(line, ",\"status\":\"");
        push(line, self.status());
        push(line, "\",\"metadata\":{\"user_agent\":\"");
        push(line, self.device.agent.before);
        push_padded(line, u64::from(self.device.agent_version), 1);
        push(line, self.device.agent.after);
        push(line, "\",\"asn\":\"AS");
        push_padded(line, u64::from(self.address.autonomous_system()), 1);
        push(line, "\",\"device\":\"dev-");
        push_padded(line, u64::from(self.device.owner), 5);
        push(line, "-");
        push_padded(line, u64::from(self.device.ordinal), 1);
        push(line, "\",\"endpoint\":\"");
        push(line, self.endpoint.path);
        if let Some(number) = self.endpoint.number {
            push_padded(line, u64::from(number), 1);
        }
        push(line, "\",\"bytes\":");
        push_padded(line, self.size_bytes, 1);
        push(line, "}}\n");
    }

    /// Appends the event's id, the one place that knows its form.
    pub(super) fn write_id(&self, index: u64, line: &mut Vec<u8>) {
        push(line, "evt_");
        push_padded(line, self.timestamp_ms.cast_unsigned(), 1);
        push(line, "_");
        push_padded(line, index, 7);
    }

    fn status(&self) -> &'static str {
        match self.kind {
            EventType::AccessDenied => "blocked",
            _ if self.has_failed || self.kind.is_failure() => "failed",
            _ => "success",
        }
    }
}

pub(super) fn push(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

/// Appends a number in decimal, with zeros in front up to `width_min` digits.
pub(super) fn push_padded(line: &mut Vec<u8>, mut number: u64, width_min: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    line.extend_from_slice(&digits[first.min(digits.len() - width_min)..]);
}

fn push_address(line: &mut Vec<u8>, address: Address) {
    match address {
        Address::V4(octets) => {
            for (position, octet) in octets.into_iter().enumerate() {
                if position > 0 {
                    line.push(b'.');
                }
                push_padded(line, u64::from(octet), 1);
            }
        }
        Address::V6 { site, subnet, host } => {
            push(line, "2001:db8:");
            push_hex(line, site);
            push(line, ":");
            push_hex(line, subnet);
            push(line, "::");
            push_hex(line, host);
        }
    }
}

fn push_hex(line: &mut Vec<u8>, number: u16) {
    let n_digits = (16 - number.leading_zeros()).div_ceil(4).max(1);
    for position in (0..n_digits).rev() {
        let digit = (number >> (4 * position)) & 0xF;
        line.push(b"0123456789abcdef"[usize::from(digit)]);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_and_padded() {
        for (number, width, expected) in [
            (0, 1, "0"),
            (7, 5, "00007"),
            (123_456, 5, "123456"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut line = Vec::new();
            push_padded(&mut line, number, width);
            assert_eq!(line, expected.as_bytes());
        }
    }

    #[test]
    fn addresses_are_those_std_would_write() {
        let address = Address::V6 {
            site: 0x10d,
            subnet: 0xa0,
            host: 0xfff1,
        };
        let mut line = Vec::new();
        push_address(&mut line, address);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(
            text,
            text.parse::<std::net::Ipv6Addr>().unwrap().to_string()
        );
    }
}
