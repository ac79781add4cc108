//! SQLite's errors in the log's words.

use commands::ports::LogFault;
use rusqlite::{Error, ErrorCode};

/// What a failed statement means for a caller.
pub fn fault(error: Error) -> LogFault {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LogFault::Full(reason),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LogFault::Unavailable(reason),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LogFault::Corrupt { position: 0, reason: format!("the file is damaged: {reason}") }
        }
        _ => LogFault::Unexpected(reason),
    }
}
