//! A file as it is uploaded, looked at on its way: whether it is what was described.
//!
//! What its first bytes say is known at once, so a file that is not taken is refused before the rest of
//! it has come. All of it is known at its end. Nothing opens the file for that.

use sha2::{Digest as _, Sha256};

use super::{
    Definition, Format, Uploaded, check_disk,
    header::{self, Claim, Ends},
};
use crate::kernel::{Refusal, codes};

/// How many bytes a sector has: a raw disk is a multiple of it.
const SECTOR_BYTES: u64 = 512;

/// What came of a file so far.
#[derive(Clone, Debug)]
pub struct Inspection {
    definition: Definition,
    hasher: Sha256,
    ends: Ends,
}

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::WRONG_FILE, detail)
}

impl Inspection {
    /// Begins with a file that is to be this.
    pub fn new(definition: Definition) -> Self {
        let ends = match definition.format {
            Format::Iso => Ends::of_at_least(header::DISC_LENGTH),
            _ => Ends::default(),
        };
        Self { definition, hasher: Sha256::new(), ends }
    }

    /// Whether a file of so many bytes can be it.
    ///
    /// # Errors
    /// `wrong-file`: it has another size.
    pub fn check_size(&self, bytes: u64) -> Result<(), Refusal> {
        let (is, said) = (bytes.div_ceil(1 << 20), self.definition.size_mib);
        if is == said {
            return Ok(());
        }
        Err(no(format!("size_mib: the file has {is} MiB, and the image says {said}")))
    }

    /// More of it.
    ///
    /// # Errors
    /// `wrong-file`: it is too long, or another format than was said or than is taken.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let said = self.definition.size_mib;
        if self.ends.total() + piece.len() as u64 > said << 20 {
            return Err(no(format!(
                "size_mib: the file has more than the {said} MiB that were said"
            )));
        }
        let was_known = self.ends.has_begun();
        self.ends.take(piece);
        if !was_known && self.ends.has_begun() {
            self.check_begin()?;
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// All of it has come: what it is.
    ///
    /// # Errors
    /// `wrong-file`: its size, its format or its digest is another than was said; `invalid-field`: its disk
    /// is larger than the image says.
    pub fn finish(self) -> Result<Uploaded, Refusal> {
        let total = self.ends.total();
        self.check_size(total)?;
        self.check(self.ends.claim())?;
        let disk_bytes = match self.definition.format {
            Format::Iso | Format::Raw => total,
            _ => self.ends.disk_bytes().unwrap_or(0),
        };
        if disk_bytes == 0 {
            return Err(no("the disk in the file is empty".to_owned()));
        }
        let is_odd = !disk_bytes.is_multiple_of(SECTOR_BYTES);
        if is_odd && self.definition.format != Format::Qcow2 {
            let detail = match self.definition.format {
                Format::Iso | Format::Raw => {
                    format!("the file has {total} bytes: raw has a multiple of 512")
                }
                _ => format!("the disk in the file has {disk_bytes} bytes: no multiple of 512"),
            };
            return Err(no(detail));
        }
        if self.definition.format != Format::Iso {
            check_disk(&self.definition, disk_bytes)?;
        }
        let (is, said) = (format!("{:x}", self.hasher.finalize()), &self.definition.sha256);
        if is != *said {
            return Err(no(format!("sha256: the file has {is}, and the image says {said}")));
        }
        Ok(Uploaded { size_bytes: total, disk_bytes })
    }

    /// Whether its first bytes may be those of what was said: of a VHD of fixed size they say nothing.
    fn check_begin(&self) -> Result<(), Refusal> {
        match (header::read(self.ends.begin()), self.definition.format) {
            (Claim::Unknown, Format::Vhd) => Ok(()),
            (claim, _) => self.check(claim),
        }
    }

    /// Whether what its bytes say, as many as have come, is what was said.
    fn check(&self, claim: Claim) -> Result<(), Refusal> {
        let said = self.definition.format;
        let detail = match (claim, said) {
            (Claim::Qcow2, Format::Qcow2)
            | (Claim::Vhd, Format::Vhd)
            | (Claim::Vhdx, Format::Vhdx)
            | (Claim::Vmdk, Format::Vmdk)
            | (Claim::Unknown, Format::Raw) => return Ok(()),
            (Claim::Unknown, Format::Iso) if header::is_disc(self.ends.begin()) => return Ok(()),
            (Claim::Unknown, Format::Iso) => "format: the file is no disc (ISO 9660)".to_owned(),
            (Claim::Unknown, said) => format!("format: the file is no {}", said.name()),
            (Claim::Qcow2, _) => "format: the file is qcow2".to_owned(),
            (Claim::Vhd, _) => "format: the file is vhd".to_owned(),
            (Claim::Vhdx, _) => "format: the file is vhdx".to_owned(),
            (Claim::Vmdk, _) => "format: the file is vmdk".to_owned(),
            (Claim::Unsafe(why), _) => format!("the file is not taken: {why}"),
            (Claim::Other(name), _) => {
                format!("the file is {name}: convert it to qcow2 or raw")
            }
        };
        Err(no(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(bytes: &[u8]) -> Definition {
        let value = serde_json::json!({
            "name": "a", "source": "upload", "sha256": format!("{:x}", Sha256::digest(bytes)),
            "format": "raw", "size_mib": bytes.len().div_ceil(1 << 20), "architecture": "x86_64",
            "os": "linux", "firmware": "bios", "min_disk_gib": 1,
        });
        serde_json::from_value(value).unwrap()
    }

    fn qcow2(bytes: &[u8]) -> Definition {
        Definition { format: Format::Qcow2, ..raw(bytes) }
    }

    fn of(format: Format, bytes: &[u8]) -> Definition {
        Definition { format, ..raw(bytes) }
    }

    /// A disk of 1,024 bytes whose last 512 say this of it.
    fn vhd(kind: u8, disk_bytes: u64) -> Vec<u8> {
        let mut footer = vec![0; 512];
        footer[..8].copy_from_slice(b"conectix");
        footer[48..56].copy_from_slice(&disk_bytes.to_be_bytes());
        footer[63] = kind;
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        [vec![1; 1_024], footer].concat()
    }

    fn iso(bytes: &[u8]) -> Definition {
        Definition { format: Format::Iso, ..raw(bytes) }
    }

    fn disc() -> Vec<u8> {
        let mut bytes = vec![0; 40_960];
        bytes[32_769..32_774].copy_from_slice(b"CD001");
        bytes
    }

    fn header(backing: u64, disk_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![0; 4_096];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[7] = 3;
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[24..32].copy_from_slice(&disk_bytes.to_be_bytes());
        bytes
    }

    /// In pieces of so many bytes; the refusal's words, and how many bytes were taken before it.
    fn take(definition: Definition, bytes: &[u8], piece: usize) -> Result<Uploaded, String> {
        let mut inspection = Inspection::new(definition);
        for piece in bytes.chunks(piece) {
            inspection.take(piece).map_err(|no| format!("early: {}", no.detail))?;
        }
        inspection.finish().map_err(|no| no.detail)
    }

    #[test]
    fn a_file_is_taken_that_is_what_was_said() {
        let disk = vec![7; 3_072];
        for piece in [1, 7, 511, 512, 513, 4_096] {
            let made = Uploaded { size_bytes: 3_072, disk_bytes: 3_072 };
            assert_eq!(take(raw(&disk), &disk, piece), Ok(made));
            let file = header(0, 1 << 30);
            let made = Uploaded { size_bytes: 4_096, disk_bytes: 1 << 30 };
            assert_eq!(take(qcow2(&file), &file, piece), Ok(made));
            let made = Uploaded { size_bytes: 40_960, disk_bytes: 40_960 };
            assert_eq!(take(iso(&disc()), &disc(), piece), Ok(made));
            let (file, made) = (vhd(2, 1_024), Uploaded { size_bytes: 1_536, disk_bytes: 1_024 });
            assert_eq!(take(of(Format::Vhd, &file), &file, piece), Ok(made));
        }
    }

    #[test]
    fn a_file_that_lies_is_refused_as_soon_as_it_is_known() {
        let backed = header(0x200, 1 << 30);
        let fine = header(0, 1 << 30);
        let vdi = [b"<<< QEMU".as_slice(), &[0; 1_016]].concat();
        let text = b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0".to_vec();
        let (vhd, cut) = (vhd(2, 1_024), vhd(2, 2_048));
        let long = vec![1; (1 << 20) + 512];
        for (definition, bytes, why) in [
            (qcow2(&backed), &backed, "early: the file is not taken: it has a backing file"),
            (raw(&backed), &backed, "early: the file is not taken: it has a backing file"),
            (raw(&fine), &fine, "early: format: the file is qcow2"),
            (qcow2(&long), &long, "early: format: the file is no qcow2"),
            (iso(&long), &long, "early: format: the file is no disc (ISO 9660)"),
            (iso(&[1; 512]), &vec![1; 512], "format: the file is no disc (ISO 9660)"),
            (raw(&vdi), &vdi, "early: the file is vdi: convert it to qcow2 or raw"),
            (of(Format::Vmdk, &text), &text, "the file is not taken: its data is in other files"),
            (of(Format::Vmdk, &fine), &fine, "early: format: the file is qcow2"),
            (of(Format::Vhdx, &long), &long, "early: format: the file is no vhdx"),
            (of(Format::Vhd, &long), &long, "format: the file is no vhd"),
            (raw(&vhd), &vhd, "format: the file is vhd"),
            (qcow2(&vhd), &vhd, "early: format: the file is no qcow2"),
            (
                of(Format::Vhd, &cut),
                &cut,
                "the file is not taken: its disk has another size than its last bytes say",
            ),
            (raw(&[1; 700]), &vec![1; 700], "the file has 700 bytes: raw has a multiple of 512"),
            (raw(&[]), &vec![], "the disk in the file is empty"),
            (
                raw(&[1; 512]),
                &long,
                "early: size_mib: the file has more than the 1 MiB that were said",
            ),
            (raw(&long), &vec![1; 512], "size_mib: the file has 1 MiB, and the image says 2"),
        ] {
            assert_eq!(take(definition, bytes, 512).unwrap_err(), why);
        }
        let other = Definition { sha256: "0a".repeat(32), ..raw(&[1; 512]) };
        assert!(take(other, &[1; 512], 512).unwrap_err().starts_with("sha256: the file has "));
        let large = header(0, (1 << 30) + 1);
        let no = take(qcow2(&large), &large, 512).unwrap_err();
        assert_eq!(no, "min_disk_gib: the disk in its file has 2 GiB");
    }
}
