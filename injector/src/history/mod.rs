//! What happened, as records: one JSON object a line (doc/events.md). Knows events, and no backend.

pub mod record;
pub mod writer;

pub use record::{CallRecord, Flip, Kind, Record};
pub use writer::Writer;
