//! Values, rows and their types, between processes and between databases.
//!
//! * [`desc`]: the columns of a row, and their types;
//! * [`tuple`]: rows in PostgreSQL's own form;
//! * [`assign`]: what is read becomes what the column definition list says, as an assignment does it;
//! * [`encoding`]: texts of another encoding;
//! * [`border`]: types that exist in one database only;
//! * [`fingerprint`]: whether a type is still what it was;
//! * [`describe`]: the row types of anonymous records, which a number of one process names;
//! * [`translate`]: values of another process, made into values of this one;
//! * [`params`]: the parameters of a job;
//! * [`kept`]: the parameters of a task, as they are kept in a table;
//! * [`role`]: the type of a role that is kept in a table.

pub mod assign;
pub mod border;
pub mod desc;
pub mod describe;
pub mod encoding;
pub mod fingerprint;
pub mod kept;
pub mod params;
pub mod role;
pub mod translate;
pub mod tuple;
