//! The record of an embedding, as it stands in a line and in the store.
//!
//! ```json
//! {"model":"local-1","dim":256,"text_hash":"0123456789abcdef","encoding":"i8","scale":0.00654,"vector":"..."}
//! ```
//!
//! The vector is base64 of its numbers: of the local model bytes with a sign, which are what was computed
//! and not rounded; of others `f32`, little-endian, as the server has given them, since nobody can compute
//! them again. Times `scale` it has the length 1.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;

use super::local::text_hash;
use crate::record::text::{push_integer, push_json_string, push_number};

/// Numbers of a vector at the most.
pub const DIM_MAX: usize = 8_192;
/// Bytes of a model's name at the most.
pub const MODEL_BYTES_MAX: usize = 128;

/// A vector with what has to be known of it to compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    pub model: String,
    /// A hash of what was embedded: what was embedded anew since has another one.
    pub text_hash: u64,
    pub vector: Vector,
}

/// Numbers, of which only the direction counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    I8(Vec<i8>),
    F32(Vec<f32>),
}

impl Vector {
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::I8(numbers) => numbers.len(),
            Self::F32(numbers) => numbers.len(),
        }
    }

    /// Whether it has a direction.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let norm = self.norm();
        (1..=DIM_MAX).contains(&self.dim()) && norm.is_finite() && norm > 0.0
    }

    /// The length.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// How alike two vectors of the same model and dimension are: 1 if they point in the same direction.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> f64 {
        let cosine = self.dot(other) / (self.norm() * other.norm());
        cosine.clamp(-1.0, 1.0)
    }

    fn dot(&self, other: &Self) -> f64 {
        match (self, other) {
            (Self::I8(a), Self::I8(b)) => f64::from(dot(a, b)),
            _ => {
                let numbers = self.numbers().zip(other.numbers());
                numbers.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
            }
        }
    }

    /// All numbers as `f32`.
    pub fn numbers(&self) -> impl Iterator<Item = f32> {
        let (bytes, floats) = match self {
            Self::I8(numbers) => (&numbers[..], &[][..]),
            Self::F32(numbers) => (&[][..], &numbers[..]),
        };
        bytes
            .iter()
            .map(|number| f32::from(*number))
            .chain(floats.iter().copied())
    }
}

/// The sum of products, exactly: [`DIM_MAX`] of them fit.
#[must_use]
pub fn dot(a: &[i8], b: &[i8]) -> i32 {
    let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b));
    products.sum()
}

#[derive(Deserialize)]
struct Record<'a> {
    model: String,
    dim: usize,
    text_hash: &'a str,
    encoding: &'a str,
    vector: &'a str,
}

impl Embedding {
    /// An embedding of a text by another model.
    #[must_use]
    pub fn of_text(model: &str, text: &str, numbers: Vec<f32>) -> Self {
        Self {
            model: model.to_owned(),
            text_hash: text_hash(text.as_bytes()),
            vector: Vector::F32(numbers),
        }
    }

    /// Appends the record as one JSON object.
    pub fn write(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"{\"model\":");
        push_json_string(output, &self.model);
        output.extend_from_slice(b",\"dim\":");
        push_integer(output, self.vector.dim() as u64);
        output.extend_from_slice(format!(",\"text_hash\":\"{:016x}\"", self.text_hash).as_bytes());
        let (encoding, bytes): (_, Vec<u8>) = match &self.vector {
            Vector::I8(numbers) => ("i8", numbers.iter().map(|number| *number as u8).collect()),
            Vector::F32(numbers) => {
                let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
                ("f32", bytes.collect())
            }
        };
        output.extend_from_slice(b",\"encoding\":");
        push_json_string(output, encoding);
        output.extend_from_slice(b",\"scale\":");
        push_number(output, 1.0 / self.vector.norm());
        output.extend_from_slice(b",\"vector\":\"");
        output.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        output.extend_from_slice(b"\"}");
    }

    /// Reads a record; none if it is not one that [`Self::write`] has written: events can bring what
    /// passes for one.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        let record: Record<'_> = serde_json::from_slice(json).ok()?;
        if record.dim > DIM_MAX || record.vector.len() > DIM_MAX * 6 {
            return None;
        }
        let bytes = BASE64_STANDARD.decode(record.vector).ok()?;
        let vector = match record.encoding {
            "i8" => Vector::I8(bytes.iter().map(|byte| *byte as i8).collect()),
            "f32" if bytes.len().is_multiple_of(4) => {
                let numbers = bytes.chunks_exact(4);
                let number =
                    |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
                Vector::F32(numbers.map(number).collect())
            }
            _ => return None,
        };
        let is_valid = vector.dim() == record.dim
            && vector.is_valid()
            && (1..=MODEL_BYTES_MAX).contains(&record.model.len())
            && record.text_hash.len() == 16;
        is_valid.then_some(Self {
            text_hash: u64::from_str_radix(record.text_hash, 16).ok()?,
            model: record.model,
            vector,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back() {
        for vector in [
            Vector::I8(vec![1, -127, 0, 5]),
            Vector::F32(vec![0.25, -1e-3, 1e20]),
        ] {
            let embedding = Embedding {
                model: "a \"model\"".to_owned(),
                text_hash: 7,
                vector,
            };
            let mut json = Vec::new();
            embedding.write(&mut json);
            assert!(json.starts_with(b"{\"model\":"));
            assert_eq!(Embedding::read(&json), Some(embedding));
        }
    }

    #[test]
    fn what_is_no_record_is_none() {
        let good = r#"{"model":"m","dim":2,"text_hash":"0000000000000001","encoding":"i8","vector":"AQI="}"#;
        assert!(Embedding::read(good.as_bytes()).is_some());
        for (from, to) in [
            ("\"m\"", "\"\""),
            (":2,", ":3,"),
            (":2,", ":-2,"),
            (":2,", ":99999999999,"),
            ("AQI=", "AQI"),
            ("AQI=", "AAA="),
            ("i8", "f32"),
            ("i8", "f64"),
            ("0000000000000001", "1"),
            ("0000000000000001", "000000000000000g"),
            ("\"m\"", "7"),
        ] {
            let json = good.replacen(from, to, 1);
            assert_eq!(Embedding::read(json.as_bytes()), None, "{json}");
        }
        let not_finite = Embedding {
            model: "m".to_owned(),
            text_hash: 1,
            vector: Vector::F32(vec![f32::NAN, 1.0]),
        };
        let mut json = Vec::new();
        not_finite.write(&mut json);
        assert_eq!(Embedding::read(&json), None);
    }

    #[test]
    fn cosines_are_exact() {
        let a = Vector::I8(vec![3, 4, 0]);
        let b = Vector::I8(vec![3, 4, 0]);
        assert!((a.cosine(&b) - 1.0).abs() < 1e-15);
        assert!((a.cosine(&Vector::I8(vec![-3, -4, 0])) + 1.0).abs() < 1e-15);
        assert!(a.cosine(&Vector::I8(vec![0, 0, 9])).abs() < 1e-15);
        assert!((Vector::F32(vec![1.0]).cosine(&Vector::I8(vec![100])) - 1.0).abs() < 1e-15);
    }
}
