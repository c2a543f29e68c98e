//! The messages from a worker to its reader: a stream of bytes, each message a header of eight bytes and a body, padded to
//! eight so that a row can be used where it lies.

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// A row of the result, a MinimalTuple.
    Row = 1,
    /// The types of the result's columns and their fingerprints, four bytes each; before the first row.
    Columns = 2,
    /// The description of an anonymous row type; before the first row that uses it.
    Record = 3,
    /// A statement's command tag, as text.
    Tag = 4,
    /// A notice, in the protocol's form.
    Notice = 5,
}

/// Bytes before each body.
pub const HEADER: usize = 8;

/// How many bytes a body of `len` bytes takes.
pub use crate::pg::memory::padded;

/// The header of a message.
pub fn header(kind: Kind, len: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&(kind as u32).to_ne_bytes());
    bytes
}

/// Length and kind from a header; None where it is none.
pub fn parse(header: [u8; HEADER]) -> Option<(Kind, usize)> {
    let [a, b, c, d, kind @ ..] = header;
    let kind = match u32::from_ne_bytes(kind) {
        1 => Kind::Row,
        2 => Kind::Columns,
        3 => Kind::Record,
        4 => Kind::Tag,
        5 => Kind::Notice,
        _ => return None,
    };
    Some((kind, u32::from_ne_bytes([a, b, c, d]) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive() {
        for kind in [Kind::Row, Kind::Columns, Kind::Record, Kind::Tag, Kind::Notice] {
            assert_eq!(parse(header(kind, 500_000_000)), Some((kind, 500_000_000)));
        }
        assert_eq!(parse([0; HEADER]), None);
        assert_eq!((padded(0), padded(1), padded(8), padded(9)), (0, 8, 8, 16));
    }
}
