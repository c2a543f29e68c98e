//! The messages from a worker to its reader.
//!
//! They form a stream of bytes. Each message is a header of eight bytes and a body, padded to a multiple of eight so that a row can be used
//! in place.

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// A row of the result, as a MinimalTuple.
    Row = 1,
    /// The columns of the result, as [`Column`]s. Precedes the first row.
    Columns = 2,
    /// The description of a type within a record. Precedes the first row that uses it.
    Record = 3,
    /// The command tag of a statement, as text.
    Tag = 4,
    /// A notice, in the form of the protocol.
    Notice = 5,
    /// The rows of a task of another database, as JSON in the encoding of that.
    Json = 6,
}

numbered!(Kind {
    Row,
    Columns,
    Record,
    Tag,
    Notice,
    Json
});

/// A column of the result, as the process that wrote its values knew it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// The type's oid.
    pub kind: u32,
    /// The fingerprint of the type.
    pub print: u32,
    /// The type modifier.
    pub modifier: i32,
}

impl Column {
    /// The number of bytes that a column takes in a message.
    pub const LEN: usize = 12;

    /// Reads the columns from a message's body.
    pub fn all(body: &[u8]) -> Vec<Self> {
        body.as_chunks::<{ Self::LEN }>()
            .0
            .iter()
            .map(|[a, b, c, d, e, f, g, h, modifier @ ..]| Self {
                kind: u32::from_ne_bytes([*a, *b, *c, *d]),
                print: u32::from_ne_bytes([*e, *f, *g, *h]),
                modifier: i32::from_ne_bytes(*modifier),
            })
            .collect()
    }

    /// The column as it stands in a message.
    pub fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.print.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.modifier.to_ne_bytes());
        bytes
    }
}

/// The size of the header in bytes.
pub const HEADER: usize = 8;

/// The number of bytes that a body of `len` bytes takes.
pub use crate::pg::memory::padded;

/// Builds the header of a message.
pub fn header(kind: Kind, len: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&(kind as u32).to_ne_bytes());
    bytes
}

/// Returns the kind and length from a header, or None if it is not valid.
pub fn parse(header: [u8; HEADER]) -> Option<(Kind, usize)> {
    let [a, b, c, d, kind @ ..] = header;
    let kind = Kind::from_number(u32::from_ne_bytes(kind))?;
    Some((kind, u32::from_ne_bytes([a, b, c, d]) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_survive() {
        let column = Column {
            kind: 1700,
            print: u32::MAX,
            modifier: -1,
        };
        assert_eq!(
            Column::all(&[column.bytes(), column.bytes()].concat()),
            [column, column]
        );
    }

    #[test]
    fn headers_survive() {
        for kind in [
            Kind::Row,
            Kind::Columns,
            Kind::Record,
            Kind::Tag,
            Kind::Notice,
            Kind::Json,
        ] {
            assert_eq!(parse(header(kind, 500_000_000)), Some((kind, 500_000_000)));
        }
        assert_eq!(parse([0; HEADER]), None);
        assert_eq!((padded(0), padded(1), padded(8), padded(9)), (0, 8, 8, 16));
    }
}
