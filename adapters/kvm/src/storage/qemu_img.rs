//! The runs of `qemu-img` there are, and its answer.
//!
//! Every run names the format: what a guest has written into a raw disk must never be taken for the
//! header of another format. File names are absolute, so that none reads as a protocol's.

use std::{fmt, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tool::{Tool, ToolFault};

/// What a disk's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// QEMU's own: sparse, with a backing file where wanted.
    Qcow2,
    /// The disk's bytes and nothing else.
    Raw,
}

impl Format {
    /// All of them, sorted.
    pub const ALL: [Self; 2] = [Self::Qcow2, Self::Raw];

    /// QEMU's name of it, and the ending of our files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a disk's file is that another program made: it is read once, and never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Of Virtual PC and Hyper-V.
    Vhd,
    /// Of Hyper-V.
    Vhdx,
    /// Of VMware.
    Vmdk,
}

impl Foreign {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
        }
    }

    /// The file as QEMU opens it: as this and nothing else, and no other file with it.
    fn open(self, path: &Path) -> String {
        let file = json!({"driver": "file", "filename": path.to_string_lossy()});
        let mut all = json!({"driver": self.name(), "file": file});
        if self == Self::Vhd {
            // Who wrote it otherwise decides whether its size is that or its old geometry's.
            all["force_size_calc"] = json!("current_size");
        }
        if self == Self::Vmdk {
            all["backing"] = Value::Null;
        }
        format!("json:{all}")
    }
}

/// Slowest medium that is reckoned with when a run copies: bytes in a second.
const COPIED_PER_SECOND: u64 = 4 << 20;
/// What a run has beside its copying.
const BASE: Duration = Duration::from_mins(1);

/// How long a run that copies so many bytes may take.
pub fn copy_limit(bytes: u64) -> Duration {
    BASE + Duration::from_secs(bytes / COPIED_PER_SECOND)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Makes an empty disk.
pub fn create(path: &Path, format: Format, size_bytes: u64) -> Tool {
    let (path, size) = (text(path), size_bytes.to_string());
    Tool::new("qemu-img", ["create", "-q", "-f", format.name(), &path, &size])
}

/// Makes a disk (qcow2) that reads as another file until it is written.
pub fn create_on(path: &Path, base: &Path, base_format: Format, size_bytes: u64) -> Tool {
    let (path, base, size) = (text(path), text(base), size_bytes.to_string());
    let words =
        ["create", "-q", "-f", "qcow2", "-b", &base, "-F", base_format.name(), &path, &size];
    Tool::new("qemu-img", words)
}

/// Copies all that a disk reads as, its backing files too; holes stay holes.
pub fn convert(from: &Path, from_format: Format, to: &Path, format: Format, bytes: u64) -> Tool {
    let (from, to) = (text(from), text(to));
    let words = ["convert", "-q", "-f", from_format.name(), "-O", format.name(), &from, &to];
    Tool::new("qemu-img", words).limit(copy_limit(bytes))
}

/// Makes a qcow2 of a stranger's disk of another program, with a bound on memory (4 GiB).
pub fn convert_foreign(from: &Path, is: Foreign, to: &Path, bytes: u64) -> Tool {
    let (from, to) = (is.open(from), text(to));
    let words =
        ["--as=4294967296", "qemu-img", "convert", "-q", "-O", Format::Qcow2.name(), &from, &to];
    Tool::new("prlimit", words).limit(copy_limit(bytes))
}

/// Copies all that a disk (qcow2) read as at a snapshot.
pub fn convert_snapshot(
    from: &Path,
    snapshot: Uuid,
    to: &Path,
    format: Format,
    bytes: u64,
) -> Tool {
    let (from, to, name) = (text(from), text(to), format!("snapshot.name={snapshot}"));
    let words = ["convert", "-q", "-f", "qcow2", "-l", &name, "-O", format.name(), &from, &to];
    Tool::new("qemu-img", words).limit(copy_limit(bytes))
}

/// Copies all that a disk reads as, or read as at a snapshot, onto a device that is there, is as large or
/// larger, and is all zeroes.
pub fn convert_onto(
    (from, format, snapshot): (&Path, Format, Option<Uuid>),
    device: &Path,
    bytes: u64,
) -> Tool {
    let (from, device) = (text(from), text(device));
    let name = snapshot.map(|snapshot| format!("snapshot.name={snapshot}"));
    let mut words = vec!["convert", "-q", "-n", "--target-is-zero", "-f", format.name()];
    words.extend(name.iter().flat_map(|name| ["-l", name]));
    words.extend(["-O", Format::Raw.name(), &from, &device]);
    Tool::new("qemu-img", words).limit(copy_limit(bytes))
}

/// What is done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is taken.
    Take,
    /// The disk becomes what it was then.
    RollBack,
    /// It goes.
    Delete,
}

/// Takes, goes back to or removes a snapshot of a disk (qcow2) that no server uses.
pub fn snapshot(path: &Path, change: Change, snapshot: Uuid) -> Tool {
    // This one takes no format but in this way. A comma ends an option.
    let path = text(path).replace(',', ",,");
    let image = format!("driver=qcow2,file.driver=file,file.filename={path}");
    let change = match change {
        Change::Take => "-c",
        Change::RollBack => "-a",
        Change::Delete => "-d",
    };
    let name = snapshot.to_string();
    let words = ["snapshot", "-q", "--image-opts", change, &name, &image];
    Tool::new("qemu-img", words).limit(copy_limit(0) * 10)
}

/// Removes what QEMU wrote down of changes of a disk (qcow2) that no server uses.
pub fn remove_bitmap(path: &Path, name: &str) -> Tool {
    let path = text(path);
    let words = ["bitmap", "--remove", "-f", Format::Qcow2.name(), &path, name];
    Tool::new("qemu-img", words).limit(copy_limit(0))
}

/// Gives a disk that no server uses another size.
pub fn resize(path: &Path, format: Format, size_bytes: u64) -> Tool {
    let (path, size) = (text(path), size_bytes.to_string());
    Tool::new("qemu-img", ["resize", "-q", "-f", format.name(), &path, &size])
}

/// Looks for errors in a qcow2's own bookkeeping. The exit code says what was found.
pub fn check(path: &Path) -> Tool {
    Tool::new("qemu-img", ["check", "-q", "-f", "qcow2", &text(path)]).limit(copy_limit(0) * 10)
}

/// Looks at a disk, also while a server uses it. With `chain`, at its backing files too.
pub fn info(path: &Path, format: Format, chain: bool) -> Tool {
    let path = text(path);
    let mut words = vec!["info", "-U", "--output=json", "-f", format.name()];
    if chain {
        words.push("--backing-chain");
    }
    words.push(&path);
    Tool::new("qemu-img", words)
}

/// Looks at a file of a stranger, and tells its format: with bounds on memory (1 GiB) and processor
/// time (30 s), which a made-up header can ask for without end.
pub fn probe(path: &Path) -> Tool {
    let path = text(path);
    let words = ["--as=1073741824", "--cpu=30", "qemu-img", "info", "-U", "--output=json", &path];
    Tool::new("prlimit", words)
}

/// Looks at a stranger's disk of another program, with the bounds of [`probe`].
pub fn look_foreign(path: &Path, is: Foreign) -> Tool {
    let path = is.open(path);
    let words = ["--as=1073741824", "--cpu=30", "qemu-img", "info", "-U", "--output=json", &path];
    Tool::new("prlimit", words)
}

/// What a file is, as `qemu-img info` sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Its path.
    pub filename: String,
    /// QEMU's name of its format.
    pub format: String,
    /// What a server sees, in bytes.
    #[serde(rename = "virtual-size")]
    pub virtual_size_bytes: u64,
    /// What it takes of the medium, in bytes.
    #[serde(rename = "actual-size")]
    pub actual_size_bytes: u64,
    /// Its backing file, as its header names it.
    #[serde(default, rename = "backing-filename")]
    pub backing: Option<String>,
    /// The format of its backing file.
    #[serde(default, rename = "backing-filename-format")]
    pub backing_format: Option<String>,
    /// Whether all of it is encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether its bookkeeping was left unfinished.
    #[serde(default)]
    pub dirty_flag: bool,
    #[serde(default)]
    format_specific: FormatSpecific,
    #[serde(default)]
    snapshots: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct FormatSpecific {
    #[serde(default)]
    data: SpecificData,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    #[serde(default)]
    bitmaps: Vec<Named>,
    #[serde(default)]
    data_file: Option<String>,
    #[serde(default)]
    corrupt: bool,
    #[serde(default)]
    extents: Vec<Value>,
}

impl Info {
    /// Another file that holds its data, as its header names it.
    pub fn data_file(&self) -> Option<&str> {
        self.format_specific.data.data_file.as_deref()
    }

    /// The names of its snapshots.
    pub fn snapshots(&self) -> impl Iterator<Item = &str> {
        self.snapshots.iter().map(|one| one.name.as_str())
    }

    /// The names of what is written down in it of its changes.
    pub fn bitmaps(&self) -> impl Iterator<Item = &str> {
        self.format_specific.data.bitmaps.iter().map(|one| one.name.as_str())
    }

    /// In how many files its data is, where its format knows of several.
    pub fn extents(&self) -> usize {
        self.format_specific.data.extents.len()
    }

    /// Whether QEMU found its bookkeeping broken.
    pub fn corrupt(&self) -> bool {
        self.format_specific.data.corrupt
    }
}

/// Reads the answer about one file.
///
/// # Errors
/// What `qemu-img` wrote is something else.
pub fn read_info(tool: &Tool, answer: &[u8]) -> Result<Info, ToolFault> {
    serde_json::from_slice(answer).map_err(|error| tool.nonsense(error))
}

/// Reads the answer about a file and its backing files, the file first.
///
/// # Errors
/// What `qemu-img` wrote is something else.
pub fn read_chain(tool: &Tool, answer: &[u8]) -> Result<Vec<Info>, ToolFault> {
    serde_json::from_slice(answer).map_err(|error| tool.nonsense(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_names_the_format() {
        let (disk, image) = (Path::new("/s/disks/a.qcow2"), Path::new("/s/images/b.raw"));
        let lines = [
            create(disk, Format::Qcow2, 1 << 30),
            create_on(disk, image, Format::Raw, 1 << 30),
            convert(image, Format::Raw, disk, Format::Qcow2, 1 << 30),
            convert_snapshot(disk, Uuid::nil(), image, Format::Raw, 1 << 30),
            convert_onto((image, Format::Raw, None), Path::new("/dev/v/a"), 1 << 30),
            convert_onto((disk, Format::Qcow2, Some(Uuid::nil())), Path::new("/dev/v/a"), 1 << 30),
            snapshot(Path::new("/s,/a"), Change::Take, Uuid::nil()),
            resize(disk, Format::Qcow2, 2 << 30),
            check(disk),
            info(disk, Format::Qcow2, false),
            info(disk, Format::Qcow2, true),
            probe(image),
            look_foreign(Path::new("/s/i.part"), Foreign::Vmdk),
            convert_foreign(Path::new("/s/i.part"), Foreign::Vmdk, disk, 1 << 30),
            convert_foreign(Path::new("/s/\"i"), Foreign::Vhd, disk, 1 << 30),
            convert_foreign(Path::new("/s/i.part"), Foreign::Vhdx, disk, 1 << 30),
        ]
        .map(|tool| tool.line());
        assert_eq!(
            lines,
            [
                "qemu-img create -q -f qcow2 /s/disks/a.qcow2 1073741824",
                "qemu-img create -q -f qcow2 -b /s/images/b.raw -F raw /s/disks/a.qcow2 1073741824",
                "qemu-img convert -q -f raw -O qcow2 /s/images/b.raw /s/disks/a.qcow2",
                "qemu-img convert -q -f qcow2 -l snapshot.name=00000000-0000-0000-0000-000000000000 \
                 -O raw /s/disks/a.qcow2 /s/images/b.raw",
                "qemu-img convert -q -n --target-is-zero -f raw -O raw /s/images/b.raw /dev/v/a",
                "qemu-img convert -q -n --target-is-zero -f qcow2 -l \
                 snapshot.name=00000000-0000-0000-0000-000000000000 -O raw /s/disks/a.qcow2 /dev/v/a",
                "qemu-img snapshot -q --image-opts -c 00000000-0000-0000-0000-000000000000 \
                 driver=qcow2,file.driver=file,file.filename=/s,,/a",
                "qemu-img resize -q -f qcow2 /s/disks/a.qcow2 2147483648",
                "qemu-img check -q -f qcow2 /s/disks/a.qcow2",
                "qemu-img info -U --output=json -f qcow2 /s/disks/a.qcow2",
                "qemu-img info -U --output=json -f qcow2 --backing-chain /s/disks/a.qcow2",
                "prlimit --as=1073741824 --cpu=30 qemu-img info -U --output=json /s/images/b.raw",
                "prlimit --as=1073741824 --cpu=30 qemu-img info -U --output=json \
                 'json:{\"backing\":null,\"driver\":\"vmdk\",\"file\":{\"driver\":\"file\",\"filename\":\"/s/i.part\"}}'",
                "prlimit --as=4294967296 qemu-img convert -q -O qcow2 \
                 'json:{\"backing\":null,\"driver\":\"vmdk\",\"file\":{\"driver\":\"file\",\"filename\":\"/s/i.part\"}}' \
                 /s/disks/a.qcow2",
                "prlimit --as=4294967296 qemu-img convert -q -O qcow2 \
                 'json:{\"driver\":\"vpc\",\"file\":{\"driver\":\"file\",\"filename\":\"/s/\\\"i\"},\
                 \"force_size_calc\":\"current_size\"}' /s/disks/a.qcow2",
                "prlimit --as=4294967296 qemu-img convert -q -O qcow2 \
                 'json:{\"driver\":\"vhdx\",\"file\":{\"driver\":\"file\",\"filename\":\"/s/i.part\"}}' \
                 /s/disks/a.qcow2",
            ]
        );
    }

    #[test]
    fn a_copy_has_time_by_its_size() {
        assert_eq!(copy_limit(0), Duration::from_mins(1));
        assert_eq!(copy_limit(1 << 40), Duration::from_secs(60 + 262_144));
    }
}
