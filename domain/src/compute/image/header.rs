//! What a file of a stranger claims to be, told from its first bytes.
//!
//! Before any tool opens it: some formats name other files of the host, which a tool then opens, and
//! so a stranger would read them.

/// How many bytes are looked at.
pub const LENGTH: usize = 512;

/// What a file's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A qcow2 that stands alone.
    Qcow2,
    /// None of the formats we know of: raw, as far as one can tell.
    Unknown,
    /// A qcow2 that is not taken: why.
    Unsafe(&'static str),
    /// Another format, by name.
    Other(&'static str),
}

/// Formats that are told by how they begin.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"# Disk DescriptorFile", "vmdk"),
    (b"<<< ", "vdi"),
    (b"COWD", "vmdk"),
    (b"KDMV", "vmdk"),
    (b"LUKS\xba\xbe", "luks"),
    (b"QED\0", "qed"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"conectix", "vhd"),
    (b"vhdxfile", "vhdx"),
];

/// How the last 512 bytes of a file begin that is a VHD of fixed size: all before it is raw.
const VHD_FOOTER: &[u8] = b"conectix";

/// Bit of a qcow2's incompatible features: its data is in another file.
const DATA_FILE: u64 = 1 << 2;
/// Bits that we know: dirty, corrupt, compression type, extended entries, and the data file.
const KNOWN: u64 = 0b1_1111;

/// How many bytes of a disc are looked at.
pub const DISC_LENGTH: usize = DISC_MARK_AT + DISC_MARK.len();
/// Where a disc says what it is: in its sixteenth sector (ECMA-119 §8.1).
const DISC_MARK_AT: usize = 16 * 2_048 + 1;
const DISC_MARK: &[u8] = b"CD001";

/// Whether the first bytes of a file, [`DISC_LENGTH`] of them, are those of a disc.
pub fn is_disc(bytes: &[u8]) -> bool {
    bytes.get(DISC_MARK_AT..DISC_LENGTH).is_some_and(|mark| mark == DISC_MARK)
}

/// Reads the first bytes of a file; there may be fewer than [`LENGTH`].
pub fn read(bytes: &[u8]) -> Claim {
    if bytes.starts_with(b"QFI\xfb") {
        return qcow2(bytes).map_or_else(Claim::Unsafe, |()| Claim::Qcow2);
    }
    let other = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning));
    other.map_or(Claim::Unknown, |(_, name)| Claim::Other(name))
}

/// What a file is by its last bytes, 512 of them, where its first bytes do not tell.
pub fn read_end(bytes: &[u8]) -> Option<&'static str> {
    bytes.starts_with(VHD_FOOTER).then_some("vhd")
}

/// How large the disk is that a qcow2 holds, in bytes.
pub fn disk_bytes(bytes: &[u8]) -> Option<u64> {
    long(bytes, 24).filter(|_| bytes.starts_with(b"QFI\xfb"))
}

/// Where a qcow2 of ours names its backing file: place and length, in bytes.
pub fn backing(bytes: &[u8]) -> Option<(u64, u32)> {
    let at = long(bytes, 8).filter(|at| bytes.starts_with(b"QFI\xfb") && *at != 0)?;
    word(bytes, 16).map(|length| (at, length))
}

fn qcow2(bytes: &[u8]) -> Result<(), &'static str> {
    let short = "its header is cut off";
    match word(bytes, 4).ok_or(short)? {
        2 => {}
        3 => {
            let incompatible = long(bytes, 72).ok_or(short)?;
            if incompatible & DATA_FILE != 0 {
                return Err("it has its data in another file");
            }
            if incompatible & !KNOWN != 0 {
                return Err("it has features that are not known");
            }
        }
        _ => return Err("its version is none of 2 and 3"),
    }
    if long(bytes, 8).ok_or(short)? != 0 {
        return Err("it has a backing file");
    }
    if word(bytes, 32).ok_or(short)? != 0 {
        return Err("it is encrypted");
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, backing: u64, crypt: u32, incompatible: u64) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[32..36].copy_from_slice(&crypt.to_be_bytes());
        bytes[72..80].copy_from_slice(&incompatible.to_be_bytes());
        bytes
    }

    #[test]
    fn only_what_stands_alone_is_taken() {
        for (bytes, claim) in [
            (header(3, 0, 0, 0), Claim::Qcow2),
            (header(2, 0, 0, u64::MAX), Claim::Qcow2),
            (header(3, 0x200, 0, 0), Claim::Unsafe("it has a backing file")),
            (header(2, 0x200, 0, 0), Claim::Unsafe("it has a backing file")),
            (header(3, 0, 2, 0), Claim::Unsafe("it is encrypted")),
            (header(3, 0, 0, 4), Claim::Unsafe("it has its data in another file")),
            (header(3, 0, 0, 1 << 40), Claim::Unsafe("it has features that are not known")),
            (header(4, 0, 0, 0), Claim::Unsafe("its version is none of 2 and 3")),
            (header(3, 0, 0, 0)[..20].to_vec(), Claim::Unsafe("its header is cut off")),
            (b"KDMV\x01\0".to_vec(), Claim::Other("vmdk")),
            (b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0".to_vec(), Claim::Other("vmdk")),
            (vec![0; 512], Claim::Unknown),
            (vec![], Claim::Unknown),
        ] {
            assert_eq!(read(&bytes), claim);
        }
    }
}
