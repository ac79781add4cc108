//! Hyper-V's disks (MS-VHDX): a table at 192 KiB says where the metadata is, and that says how large the disk is
//! and whether it is the difference to another one.

use super::{half, little_long};

/// How many of its first bytes are looked at: its metadata is behind its log, in the third or fourth MiB.
pub(super) const LENGTH: usize = 4 << 20;
/// How a file begins that is one.
pub(super) const MAGIC: &[u8] = b"vhdxfile";

const REGIONS_AT: usize = 192 << 10;
/// Most entries of either table, as the format says.
const ENTRIES_MAX: usize = 2_047;
const ENTRY: usize = 32;
const HAS_PARENT: u32 = 1 << 1;

/// GUIDs as they lie in the file: of the region, and of what is looked for in it.
const METADATA: [u8; 16] = guid(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e);
const DISK_SIZE: [u8; 16] = guid(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8);
const PARAMETERS: [u8; 16] = guid(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b);

/// The first three parts of one are little endian.
const fn guid(text: u128) -> [u8; 16] {
    let mut bytes = text.to_be_bytes();
    let turned = [3, 2, 1, 0, 5, 4, 7, 6];
    let from = bytes;
    let mut at = 0;
    while at < turned.len() {
        bytes[at] = from[turned[at]];
        at += 1;
    }
    bytes
}

/// How large its disk is, in bytes.
pub(super) fn disk_bytes(bytes: &[u8]) -> Result<u64, &'static str> {
    let odd = "what it is made of is not where it belongs";
    let regions = bytes.get(REGIONS_AT..).filter(|table| table.starts_with(b"regi")).ok_or(odd)?;
    let count = half(regions, 8).ok_or(odd)? as usize;
    let region = entry(regions, 16, count, METADATA).ok_or(odd)?;
    let metadata = within(bytes, little_long(region, 16)).ok_or(odd)?;
    let metadata = Some(metadata).filter(|table| table.starts_with(b"metadata")).ok_or(odd)?;
    // Sixteen bits, behind as many that are reserved.
    let count = half(metadata, 8).ok_or(odd)? as usize >> 16;
    let item = |which| {
        let entry = entry(metadata, ENTRY, count, which)?;
        within(metadata, half(entry, 16).map(u64::from))
    };
    if half(item(PARAMETERS).ok_or(odd)?, 4).ok_or(odd)? & HAS_PARENT != 0 {
        return Err("it is the difference to another file");
    }
    match little_long(item(DISK_SIZE).ok_or(odd)?, 0).ok_or(odd)? {
        0 => Err("its disk is empty"),
        disk_bytes => Ok(disk_bytes),
    }
}

fn within(bytes: &[u8], at: Option<u64>) -> Option<&[u8]> {
    bytes.get(usize::try_from(at?).ok()?..)
}

/// The entry of a table that is of this.
fn entry(table: &[u8], from: usize, count: usize, which: [u8; 16]) -> Option<&[u8]> {
    let entries = table.get(from..)?.chunks_exact(ENTRY).take(count.min(ENTRIES_MAX));
    let mut of_it = entries.filter(|entry| entry.starts_with(&which));
    let first = of_it.next()?;
    // Of two nobody knows which one is read.
    of_it.next().is_none().then_some(first)
}
