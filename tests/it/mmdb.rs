//! Writes files in MaxMind's format, as small as the format allows: what is looked up in them is
//! for the tests to say.

use std::net::IpAddr;

/// A value of the data section.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Short(u16),
    Number(u32),
    Long(u64),
    Map(&'a [(&'a str, Value<'a>)]),
    Texts(&'a [&'a str]),
}

impl Value<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut output = Vec::new();
        self.push(&mut output);
        output
    }

    fn push(&self, output: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                push_head(2, text.len(), output);
                output.extend_from_slice(text.as_bytes());
            }
            Self::Short(number) => {
                push_head(5, 2, output);
                output.extend_from_slice(&number.to_be_bytes());
            }
            Self::Long(number) => {
                push_head(9, 8, output);
                output.extend_from_slice(&number.to_be_bytes());
            }
            Self::Number(number) => {
                push_head(6, 4, output);
                output.extend_from_slice(&number.to_be_bytes());
            }
            Self::Map(members) => {
                push_head(7, members.len(), output);
                for (name, value) in *members {
                    Self::Text(name).push(output);
                    value.push(output);
                }
            }
            Self::Texts(texts) => {
                push_head(11, texts.len(), output);
                for text in *texts {
                    Self::Text(text).push(output);
                }
            }
        }
    }
}

/// The type and the size of a value.
fn push_head(kind: u8, size: usize, output: &mut Vec<u8>) {
    let (short, rest) = match size {
        0..29 => (size as u8, vec![]),
        29..285 => (29, vec![(size - 29) as u8]),
        _ => (30, ((size - 285) as u16).to_be_bytes().to_vec()),
    };
    // Types from 8 on stand in a byte of their own.
    if kind < 8 {
        output.push(kind << 5 | short);
    } else {
        output.extend_from_slice(&[short, kind - 7]);
    }
    output.extend(rest);
}

/// A record of a City database.
pub(crate) fn city(name: &str, country: &str) -> Vec<u8> {
    let names = [("de", Value::Text("Stadt")), ("en", Value::Text(name))];
    Value::Map(&[
        ("city", Value::Map(&[("names", Value::Map(&names))])),
        ("country", Value::Map(&[("iso_code", Value::Text(country))])),
    ])
    .bytes()
}

/// A record of a Country database.
pub(crate) fn country(code: &str) -> Vec<u8> {
    let country = [
        ("geoname_id", Value::Number(7)),
        ("iso_code", Value::Text(code)),
    ];
    Value::Map(&[("country", Value::Map(&country))]).bytes()
}

/// A record of an ASN database.
pub(crate) fn provider(number: u32) -> Vec<u8> {
    Value::Map(&[
        ("autonomous_system_number", Value::Number(number)),
        ("autonomous_system_organization", Value::Text("Somebody")),
    ])
    .bytes()
}

/// What a node of the search tree leads to.
#[derive(Clone, Copy)]
enum Next {
    Nothing,
    Node(usize),
    Record(usize),
}

/// A database of that type: networks, none within another, each with the bytes of its record. IPv4
/// stands in the IPv6 tree at `::/96`.
pub(crate) fn database(kind: &str, networks: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut nodes = vec![[Next::Nothing; 2]];
    let mut data = Vec::new();
    for (network, record) in networks {
        let (address, n_bits) = network.split_once('/').unwrap();
        let n_bits: usize = n_bits.parse().unwrap();
        let (number, n_bits) = match address.parse().unwrap() {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 96 + n_bits),
            IpAddr::V6(address) => (address.to_bits(), n_bits),
        };
        let bit = |i: usize| (number >> (127 - i) & 1) as usize;
        let mut at = 0;
        for i in 0..n_bits - 1 {
            at = if let Next::Node(next) = nodes[at][bit(i)] {
                next
            } else {
                nodes.push([Next::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[at][bit(i)] = Next::Node(next);
                next
            };
        }
        nodes[at][bit(n_bits - 1)] = Next::Record(data.len());
        data.extend_from_slice(record);
    }
    let mut file = Vec::new();
    for next in nodes.iter().flatten() {
        let number = match next {
            Next::Nothing => nodes.len(),
            Next::Node(node) => *node,
            Next::Record(offset) => nodes.len() + 16 + offset,
        };
        file.extend_from_slice(&(number as u32).to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend(data);
    file.extend_from_slice(b"\xAB\xCD\xEFMaxMind.com");
    let metadata = [
        ("binary_format_major_version", Value::Short(2)),
        ("binary_format_minor_version", Value::Short(0)),
        ("build_epoch", Value::Long(1_735_689_600)),
        ("database_type", Value::Text(kind)),
        ("description", Value::Map(&[("en", Value::Text("A test"))])),
        ("ip_version", Value::Short(6)),
        ("languages", Value::Texts(&["en"])),
        ("node_count", Value::Number(nodes.len() as u32)),
        ("record_size", Value::Short(24)),
    ];
    file.extend(Value::Map(&metadata).bytes());
    file
}
