//! Values, rows and their types, between processes and between databases.
//!
//! * [`assign`]: what is read becomes what the column definition list says, as an assignment does it;
//! * [`border`]: types that exist in one database only;
//! * [`encoding`]: texts of another encoding;
//! * [`fingerprint`]: whether a type is still what it was;
//! * [`params`]: the parameters of a job;
//! * [`record`]: anonymous records, which a number of one process names;
//! * [`tuple`]: rows in PostgreSQL's own form.

pub mod assign;
pub mod border;
pub mod encoding;
pub mod fingerprint;
pub mod params;
pub mod record;
pub mod tuple;
