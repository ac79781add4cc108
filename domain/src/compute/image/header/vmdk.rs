//! VMware's disks: one file that has its descriptor in itself.
//!
//! What goes by this name may as well be a text that names other files, and whoever opens it opens those. So all
//! of the descriptor is read here, before a tool reads any of it: a sparse file, whole in itself, is taken, as
//! vSphere (`streamOptimized`, in an OVA too) and Workstation (`monolithicSparse`) write one.

use super::{half, little_long};

/// How many of its first bytes are looked at: the header, and the longest descriptor that is taken.
pub(super) const LENGTH: usize = 64 << 10;
/// How a file begins that is one.
pub(super) const MAGIC: &[u8] = b"KDMV";

const SECTOR: usize = 512;
/// Where the descriptor is: QEMU looks for it there, whatever the header says.
const DESCRIPTOR_AT: u64 = 1;
/// How many sectors QEMU looks at, whatever the header says.
const DESCRIPTOR_SECTORS: usize = 20;
/// What a file that is whole in itself calls its parent.
const NO_PARENT: &str = "ffffffff";
const KINDS: &[&str] = &["monolithicSparse", "streamOptimized"];
const ACCESS: &[&str] = &["RW", "RDONLY", "NOACCESS"];

/// How large its disk is, in bytes.
pub(super) fn disk_bytes(bytes: &[u8]) -> Result<u64, &'static str> {
    let short = "its header is cut off";
    if !(1..=3).contains(&half(bytes, 4).ok_or(short)?) {
        return Err("its version is none of 1 to 3");
    }
    let capacity = little_long(bytes, 12).ok_or(short)?;
    // QEMU takes the descriptor of such a one for a list of other files.
    if capacity == 0 {
        return Err("its data is in other files");
    }
    let at = little_long(bytes, 28).ok_or(short)?;
    let sectors = little_long(bytes, 36).ok_or(short)?;
    let sectors =
        usize::try_from(sectors).ok().filter(|sectors| (1..LENGTH / SECTOR).contains(sectors));
    let (DESCRIPTOR_AT, Some(sectors)) = (at, sectors) else {
        return Err("its descriptor is not in it, or not where it belongs");
    };
    let seen = sectors.max(DESCRIPTOR_SECTORS) * SECTOR;
    let text = bytes.get(SECTOR..bytes.len().min(SECTOR + seen)).unwrap_or_default();
    check(text)?;
    capacity.checked_mul(SECTOR as u64).ok_or("its disk is too large")
}

/// That nothing is elsewhere.
fn check(text: &[u8]) -> Result<(), &'static str> {
    let parent = "it is the difference to another file";
    // Behind its end as well: somebody may look further than to the first zero.
    let all = String::from_utf8_lossy(text).to_ascii_lowercase();
    if all.contains("parentfilenamehint") {
        return Err(parent);
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let descriptor = String::from_utf8_lossy(&text[..end]);
    let value = |name: &str| {
        let said = descriptor.lines().filter_map(|line| line.split_once('='));
        let mut said = said.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        let first = said.next().map(|(_, value)| value.trim().trim_matches('"'));
        first.filter(|_| said.next().is_none())
    };
    if value("parentCID").is_none_or(|id| !id.eq_ignore_ascii_case(NO_PARENT)) {
        return Err(parent);
    }
    if value("createType").is_none_or(|kind| !KINDS.contains(&kind)) {
        return Err("its kind is none of monolithicSparse and streamOptimized");
    }
    let words = descriptor.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let extents: Vec<_> =
        words.filter(|words| words.first().is_some_and(|word| ACCESS.contains(word))).collect();
    match &extents[..] {
        [only] if only.get(2) == Some(&"SPARSE") => Ok(()),
        _ => Err("its data is in other files"),
    }
}
