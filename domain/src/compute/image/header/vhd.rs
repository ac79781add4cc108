//! The disks of Virtual PC and of the first Hyper-V: all that is said of one is in its last 512 bytes, and in its
//! first as well where its size is not fixed.

use super::{long, word};

/// How the 512 bytes begin.
pub(super) const MAGIC: &[u8] = b"conectix";
/// How many bytes they are.
pub(super) const FOOTER: u64 = 512;

const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
const CHECKSUM_AT: usize = 64;

/// What a file's first 512 bytes say: how large its disk is, in bytes.
pub(super) fn at_begin(bytes: &[u8]) -> Result<u64, &'static str> {
    match read(bytes)? {
        (DYNAMIC, disk_bytes) => Ok(disk_bytes),
        _ => Err("its first bytes are those of no disk that grows"),
    }
}

/// What the last 512 bytes say of a file of so many, whose first do not tell: how large its disk is, in bytes.
pub(super) fn at_end(bytes: &[u8], total: u64) -> Result<u64, &'static str> {
    match read(bytes)? {
        (FIXED, disk_bytes) if disk_bytes.checked_add(FOOTER) == Some(total) => Ok(disk_bytes),
        (FIXED, _) => Err("its disk has another size than its last bytes say"),
        _ => Err("its first bytes are missing"),
    }
}

fn read(bytes: &[u8]) -> Result<(u32, u64), &'static str> {
    let short = "its header is cut off";
    let footer = bytes.get(..FOOTER as usize).ok_or(short)?;
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = footer[CHECKSUM_AT..CHECKSUM_AT + 4].iter().map(|byte| u32::from(*byte)).sum();
    if word(footer, CHECKSUM_AT) != Some(!(sum - own)) {
        return Err("its header is broken");
    }
    match (word(footer, 60).ok_or(short)?, long(footer, 48).ok_or(short)?) {
        (DIFFERENCING, _) => Err("it is the difference to another file"),
        (_, 0) => Err("its disk is empty"),
        said => Ok(said),
    }
}
