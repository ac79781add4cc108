//! What a file of a stranger claims to be, told from its first bytes.
//!
//! Before any tool opens it: some formats name other files of the host, which a tool then opens, and
//! so a stranger would read them.

mod vhd;
mod vhdx;
mod vmdk;

/// How many bytes are looked at, at either end. Of some formats [`Ends`] keeps more at the beginning.
pub const LENGTH: usize = 512;

/// What a file's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A qcow2 that stands alone.
    Qcow2,
    /// A VHD that stands alone.
    Vhd,
    /// A VHDX that stands alone.
    Vhdx,
    /// A VMDK that stands alone.
    Vmdk,
    /// None of the formats we know of: raw, as far as one can tell.
    Unknown,
    /// A file of a format that is taken, which is not taken itself: why.
    Unsafe(&'static str),
    /// Another format, by name.
    Other(&'static str),
}

/// Formats that are told by how they begin.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"<<< ", "vdi"),
    (b"COWD", "an old kind of vmdk"),
    (b"LUKS\xba\xbe", "luks"),
    (b"QED\0", "qed"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
];

/// How a text begins that names the files in which the data of a VMDK is.
const VMDK_TEXT: &[u8] = b"# Disk DescriptorFile";

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

/// Reads the first bytes of a file, as many as [`Ends`] keeps; there may be fewer.
pub fn read(bytes: &[u8]) -> Claim {
    let is =
        |claim: Claim, read: Result<u64, &'static str>| read.map_or_else(Claim::Unsafe, |_| claim);
    if bytes.starts_with(b"QFI\xfb") {
        return qcow2(bytes).map_or_else(Claim::Unsafe, |()| Claim::Qcow2);
    }
    if bytes.starts_with(vmdk::MAGIC) {
        return is(Claim::Vmdk, vmdk::disk_bytes(bytes));
    }
    if bytes.starts_with(vhd::MAGIC) {
        return is(Claim::Vhd, vhd::at_begin(bytes));
    }
    if bytes.starts_with(vhdx::MAGIC) {
        return is(Claim::Vhdx, vhdx::disk_bytes(bytes));
    }
    if bytes.starts_with(VMDK_TEXT) {
        return Claim::Unsafe("its data is in other files");
    }
    let other = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning));
    other.map_or(Claim::Unknown, |(_, name)| Claim::Other(name))
}

/// How large the disk is that a file holds whose first bytes tell what it is, in bytes.
fn disk_bytes(bytes: &[u8]) -> Option<u64> {
    match read(bytes) {
        Claim::Qcow2 => long(bytes, 24),
        Claim::Vhd => vhd::at_begin(bytes).ok(),
        Claim::Vhdx => vhdx::disk_bytes(bytes).ok(),
        Claim::Vmdk => vmdk::disk_bytes(bytes).ok(),
        Claim::Unknown | Claim::Unsafe(_) | Claim::Other(_) => None,
    }
}

/// The first and the last bytes of a file, as it comes.
#[derive(Clone, Debug)]
pub struct Ends {
    begin: Vec<u8>,
    end: Vec<u8>,
    total: u64,
    /// How many first bytes are kept of every file.
    least: usize,
}

impl Default for Ends {
    fn default() -> Self {
        Self::of_at_least(LENGTH)
    }
}

impl Ends {
    /// With so many first bytes of every file, and more where they do not tell what it is.
    pub fn of_at_least(least: usize) -> Self {
        Self { begin: Vec::new(), end: Vec::new(), total: 0, least: least.max(LENGTH) }
    }

    /// More of the file.
    pub fn take(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        let mut rest = piece;
        while !rest.is_empty() && !self.has_begun() {
            let (more, after) = rest.split_at((self.wanted() - self.begin.len()).min(rest.len()));
            self.begin.extend_from_slice(more);
            rest = after;
        }
        self.end.extend_from_slice(&piece[piece.len().saturating_sub(LENGTH)..]);
        self.end.drain(..self.end.len().saturating_sub(LENGTH));
    }

    fn wanted(&self) -> usize {
        let of_format = match &self.begin {
            begin if begin.starts_with(vmdk::MAGIC) => vmdk::LENGTH,
            begin if begin.starts_with(vhdx::MAGIC) => vhdx::LENGTH,
            _ => LENGTH,
        };
        self.least.max(of_format)
    }

    /// Whether all first bytes have come that are looked at.
    pub fn has_begun(&self) -> bool {
        self.begin.len() >= self.wanted()
    }

    /// The first bytes.
    pub fn begin(&self) -> &[u8] {
        &self.begin
    }

    /// How many bytes have come.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What the file is, all of which has come: of a VHD of fixed size the last bytes alone tell.
    pub fn claim(&self) -> Claim {
        match read(&self.begin) {
            Claim::Unknown if self.end.starts_with(vhd::MAGIC) => {
                vhd::at_end(&self.end, self.total).map_or_else(Claim::Unsafe, |_| Claim::Vhd)
            }
            claim => claim,
        }
    }

    /// How large the disk is that the file holds, all of which has come, in bytes.
    pub fn disk_bytes(&self) -> Option<u64> {
        match self.claim() {
            Claim::Unknown => Some(self.total),
            Claim::Vhd => {
                disk_bytes(&self.begin).or_else(|| vhd::at_end(&self.end, self.total).ok())
            }
            _ => disk_bytes(&self.begin),
        }
    }
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

/// Four bytes, little endian.
fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Eight bytes, little endian.
fn little_long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
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
            (b"KDMV\x01\0".to_vec(), Claim::Unsafe("its header is cut off")),
            (
                b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0".to_vec(),
                Claim::Unsafe("its data is in other files"),
            ),
            (b"COWD\x01\0".to_vec(), Claim::Other("an old kind of vmdk")),
            (vec![0; 512], Claim::Unknown),
            (vec![], Claim::Unknown),
        ] {
            assert_eq!(read(&bytes), claim);
        }
    }

    const SPARSE: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\nRW 16384 SPARSE \"a.vmdk\"\n";

    fn vmdk(capacity: u64, at: u64, descriptor: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        bytes[..4].copy_from_slice(b"KDMV");
        bytes[4] = 1;
        bytes[12..20].copy_from_slice(&capacity.to_le_bytes());
        bytes[28..36].copy_from_slice(&at.to_le_bytes());
        bytes[36] = 20;
        bytes[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
        bytes
    }

    #[test]
    fn a_vmdk_is_taken_that_is_one_file_and_nothing_else() {
        let edited = |from: &str, to: &str| {
            assert!(SPARSE.contains(from), "{from}");
            vmdk(16_384, 1, &SPARSE.replace(from, to))
        };
        let fine = vmdk(16_384, 1, SPARSE);
        assert_eq!((read(&fine), disk_bytes(&fine)), (Claim::Vmdk, Some(8 << 20)));
        let stream = edited("monolithicSparse", "streamOptimized");
        assert_eq!(read(&stream), Claim::Vmdk);
        assert_eq!(read(&edited("RW 16384", "RDONLY 16384")), Claim::Vmdk);
        let files = "its data is in other files";
        let kind = "its kind is none of monolithicSparse and streamOptimized";
        let parent = "it is the difference to another file";
        let place = "its descriptor is not in it, or not where it belongs";
        let hint = "\nparentFileNameHint=\"/etc/shadow\"\n";
        let mut behind = fine.clone();
        behind[9_000..9_000 + hint.len()].copy_from_slice(hint.as_bytes());
        for (bytes, why) in [
            // QEMU reads the descriptor of a disk of no size as a list of files.
            (vmdk(0, 1, &SPARSE.replace("SPARSE \"a.vmdk\"", "FLAT \"/etc/shadow\" 0")), files),
            (edited("SPARSE \"a.vmdk\"", "FLAT \"/etc/shadow\" 0"), files),
            (edited("RW 16384", "RW 8 FLAT \"/etc/shadow\" 0\nRW 16384"), files),
            (edited("RW 16384 SPARSE \"a.vmdk\"\n", ""), files),
            (edited("monolithicSparse", "twoGbMaxExtentSparse"), kind),
            (edited("monolithicSparse", "monolithicFlat"), kind),
            (edited("createType=", "createType=\"vmfs\"\ncreateType="), kind),
            (edited("ffffffff", "153e4924"), parent),
            (edited("parentCID=ffffffff\n", ""), parent),
            (edited("version=1\n", "version=1\nparentFileNameHint=\"/etc/shadow\"\n"), parent),
            (behind, parent),
            (vmdk(16_384, 0, SPARSE), place),
            (vmdk(16_384, 1 << 40, SPARSE), place),
            (vmdk(u64::MAX, 1, SPARSE), "its disk is too large"),
        ] {
            assert_eq!(read(&bytes), Claim::Unsafe(why));
            assert_eq!(disk_bytes(&bytes), None);
        }
    }

    fn footer(kind: u8, disk_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"conectix");
        bytes[48..56].copy_from_slice(&disk_bytes.to_be_bytes());
        bytes[63] = kind;
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        bytes[64..68].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    }

    fn ends(pieces: &[&[u8]]) -> (Claim, Option<u64>) {
        let mut ends = Ends::default();
        for piece in pieces {
            ends.take(piece);
        }
        (ends.claim(), ends.disk_bytes())
    }

    #[test]
    fn a_vhd_is_told_by_its_first_or_its_last_bytes() {
        let (data, fixed) = (vec![7; 4_096], footer(2, 4_096));
        assert_eq!(ends(&[&data, &fixed]), (Claim::Vhd, Some(4_096)));
        let (cut, rest) = fixed.split_at(100);
        assert_eq!(ends(&[&data, cut, rest]), (Claim::Vhd, Some(4_096)), "in two pieces");
        let dynamic = footer(3, 1 << 30);
        assert_eq!(ends(&[&dynamic, &data, &dynamic]), (Claim::Vhd, Some(1 << 30)));
        assert_eq!(ends(&[&data, &data]), (Claim::Unknown, Some(8_192)));
        let mut broken = fixed.clone();
        broken[50] = 1;
        let (other, empty) = (footer(4, 4_096), footer(3, 0));
        for (pieces, why) in [
            ([&other, &data, &data], "it is the difference to another file"),
            ([&data, &data, &other], "it is the difference to another file"),
            ([&data, &data, &fixed], "its disk has another size than its last bytes say"),
            ([&data, &data, &dynamic], "its first bytes are missing"),
            ([&fixed, &data, &data], "its first bytes are those of no disk that grows"),
            ([&data, &data, &broken], "its header is broken"),
            ([&empty, &data, &data], "its disk is empty"),
        ] {
            assert_eq!(ends(&pieces.map(Vec::as_slice)), (Claim::Unsafe(why), None));
        }
    }

    fn vhdx(parent: u32, disk_bytes: u64, metadata_at: u64) -> Vec<u8> {
        let guid = |text: &str| uuid::Uuid::parse_str(text).unwrap().to_bytes_le();
        let mut bytes = vec![0; 4 << 20];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, b"vhdxfile");
        let regions = 192 << 10;
        put(regions, b"regi");
        put(regions + 8, &2_u32.to_le_bytes());
        put(regions + 16, &guid("2dc27766-f623-4200-9d64-115e9bfd4a08"));
        put(regions + 48, &guid("8b7ca206-4790-4b9a-b8fe-575f050f886e"));
        put(regions + 64, &metadata_at.to_le_bytes());
        let at = 2 << 20;
        put(at, b"metadata");
        put(at + 10, &2_u16.to_le_bytes());
        put(at + 32, &guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b"));
        put(at + 48, &(64_u32 << 10).to_le_bytes());
        put(at + 64, &guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8"));
        put(at + 80, &(65_u32 << 10).to_le_bytes());
        put(at + (64 << 10) + 4, &parent.to_le_bytes());
        put(at + (65 << 10), &disk_bytes.to_le_bytes());
        bytes
    }

    #[test]
    fn a_vhdx_is_told_by_its_metadata() {
        let fine = vhdx(0, 8 << 20, 2 << 20);
        let (first, rest) = fine.split_at(300);
        assert_eq!(ends(&[first, rest, &[0; 512]]), (Claim::Vhdx, Some(8 << 20)));
        let odd = "what it is made of is not where it belongs";
        for (bytes, why) in [
            (vhdx(2, 8 << 20, 2 << 20), "it is the difference to another file"),
            (vhdx(0, 0, 2 << 20), "its disk is empty"),
            (vhdx(0, 8 << 20, 5 << 20), odd),
            (vhdx(0, 8 << 20, u64::MAX), odd),
            (fine[..(2 << 20) + 40].to_vec(), odd),
            (fine[..512].to_vec(), odd),
        ] {
            assert_eq!(read(&bytes), Claim::Unsafe(why));
        }
    }
}
