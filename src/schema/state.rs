//! The layout of the database in a state folder. Numbers in keys are big-endian, so that epochs sort.
//!
//! | family | key | value |
//! |---|---|---|
//! | `default` | name | version, detector, where the undo log begins |
//! | `default` | `epoch:` and the epoch's number | what is told of a committed epoch, JSON |
//! | `default` | `began:` and a database's name | the first epoch that was committed under that name |
//! | `baselines` | see [`super::baseline_key`] | the epoch of the last change, then the detector's record |
//! | `undo` | epoch, then the key of a record | the value before the epoch; empty if there was none |

/// Written when a state is made. A change of anything above raises it.
pub const STATE_VERSION: u32 = 1;

pub const META: &str = "default";
pub const BASELINES: &str = super::BASELINES;
pub const UNDO: &str = "undo";

/// All families.
pub const FAMILIES: [&str; 3] = [META, BASELINES, UNDO];

/// Names in `default`.
pub const META_VERSION: &str = "version";
pub const META_DETECTOR: &str = "detector";
/// The oldest epoch that can be rolled back.
pub const META_OLDEST: &str = "oldest";
const EPOCH_PREFIX: &[u8] = b"epoch:";
const BEGAN_PREFIX: &[u8] = b"began:";

/// Bytes before the record in a value of `baselines`.
const TAG_BYTES: usize = 8;

/// The name of what is told of a committed epoch; for 0, where these names begin.
#[must_use]
pub fn epoch_key(epoch: u64) -> Vec<u8> {
    [EPOCH_PREFIX, &epoch.to_be_bytes()].concat()
}

/// The number in what [`epoch_key`] has made, or none if it is another name.
#[must_use]
pub fn split_epoch_key(key: &[u8]) -> Option<u64> {
    read_number(key.strip_prefix(EPOCH_PREFIX)?)
}

/// The name of the first epoch of a database; for no name, where these names begin.
#[must_use]
pub fn began_key(database: &str) -> Vec<u8> {
    [BEGAN_PREFIX, database.as_bytes()].concat()
}

/// The database in what [`began_key`] has made, or none if it is another name.
#[must_use]
pub fn split_began_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(BEGAN_PREFIX)?).ok()
}

/// The key in `undo` of a record in an epoch; for an empty key, where those of the epoch begin.
#[must_use]
pub fn undo_key(epoch: u64, key: &[u8]) -> Vec<u8> {
    [&epoch.to_be_bytes(), key].concat()
}

/// The epoch and the record's key in what [`undo_key`] has made.
#[must_use]
pub fn split_undo_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (epoch, key) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*epoch), key))
}

/// A number as a value.
#[must_use]
pub fn read_number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Makes `value` the one of a record that has changed in an epoch.
pub fn write_value(value: &mut Vec<u8>, epoch: u64, record: &[u8]) {
    value.clear();
    value.extend_from_slice(&epoch.to_be_bytes());
    value.extend_from_slice(record);
}

/// The epoch of the last change and the record in a value.
#[must_use]
pub fn split_value(value: &[u8]) -> Option<(u64, &[u8])> {
    let (epoch, record) = value.split_at_checked(TAG_BYTES)?;
    Some((read_number(epoch)?, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_epoch_and_read_back() {
        assert_eq!(split_epoch_key(&epoch_key(7)), Some(7));
        assert_eq!(split_epoch_key(&began_key("db")), None);
        assert_eq!(split_began_key(&began_key("db")), Some("db"));
        assert_eq!(split_undo_key(&undo_key(7, b"u")), Some((7, &b"u"[..])));
        assert!(undo_key(255, b"\xFF\xFF") < undo_key(256, b""));
        assert!(epoch_key(255) < epoch_key(256));
        let mut value = vec![1];
        write_value(&mut value, 7, b"record");
        assert_eq!(split_value(&value), Some((7, &b"record"[..])));
        assert_eq!(split_value(b"short"), None);
    }
}
