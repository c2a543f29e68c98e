//! Values, rows and their types, between processes and between databases.
//!
//! * [`desc`]: the columns of a row, and their types;
//! * [`tuple`]: rows in PostgreSQL's own form;
//! * [`assign`]: assignment of values to the columns of the column definition list;
//! * [`encoding`]: texts in another encoding;
//! * [`border`]: types that exist in one database only;
//! * [`fingerprint`]: detection of types that have changed;
//! * [`describe`]: the row types of anonymous records, which are numbered per process;
//! * [`translate`]: conversion of another process's values;
//! * [`params`]: the parameters of a job;
//! * [`kept`]: the parameters of a task, as they are kept in a table;
//! * [`json`]: rows that are kept as JSON;
//! * [`role`]: the type of a role that is kept in a table;
//! * [`zone`]: time zones, and what their clocks show.

pub mod assign;
pub mod border;
pub mod desc;
pub mod describe;
pub mod encoding;
pub mod fingerprint;
pub mod json;
pub mod kept;
pub mod params;
pub mod role;
pub mod translate;
pub mod tuple;
pub mod zone;
