//! Every trait the outside implements, one file per noun.

mod answers;
mod backups;
mod bills;
mod clock;
mod files;
mod hosts;
mod images;
mod leases;
mod log;
mod machines;
mod pipe;
mod provider;
mod vault;
mod views;

pub use answers::{AnswerFault, AnswerTable, Answers, Holds, Value};
pub use backups::{BackupStores, StoreAccess, StoreKeys, StoredBackup};
pub use bills::{
    BillFault, BillStore, CostQuery, Found, Lines, Origins, Part, Quarantined, ReadBill, Reading,
    Repeats, Statement, Wanted, origins_by_line, sums_by_line,
};
pub use clock::{Clock, NewId};
pub use files::{Bucket, FilePage, Files, Pieces};
pub use hosts::{HostDriver, HostTask, Hosts, LocalHost, NoHosts, ServerPower, ServerPowers};
pub use images::{ImagePieces, ImageStores};
pub use leases::{Lease, Leases};
pub use log::{
    Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Expected, Head, LogFault,
    NewEvent, StreamAppend,
};
pub use machines::Machines;
pub use pipe::{PIECE_BYTES_MAX, Pipe};
pub use provider::{
    Access, Call, DriverFault, Identity, Intent, Listing, Pace, Provider, Report, Sighting,
    Support, Task, Unpaced,
};
pub use vault::{Vault, VaultFault};
pub use views::{
    Cell, Change, Difference, Filter, Op, Order, Page, PageToken, Query, Row, Verified, ViewFault,
    Views,
};
