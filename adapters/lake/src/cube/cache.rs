//! What of cubes is in memory, and how it comes there.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use commands::ports::BillFault;
use domain::finops::{
    amount::Amount,
    bill::{ByCurrency, Segment, Sums},
    cost::{Basis, TooLarge},
};

use parquet::file::metadata::ParquetMetaData;

use super::{
    Builder, Limits,
    column::{CodeColumn, CostColumn, TagColumn},
    file::{Directory, Reader, Unfit},
};
use crate::{Lake, LakeFault, Options};

/// What a segment's file looked like when it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Which part of which cube.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    digest: Arc<str>,
    part: Part,
}

/// A part of a cube; its slab, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Directory,
    Plain(usize, usize),
    Tag(usize, usize),
    Others(usize),
    Costs(usize, usize),
    /// Where lines lie in the segment itself.
    Layout,
}

/// It, in memory.
#[derive(Clone, Debug)]
enum Held {
    Directory(Arc<Directory>),
    Codes(Arc<CodeColumn>),
    Others(Arc<TagColumn>),
    Costs(Arc<CostColumn>),
    Layout(Arc<ParquetMetaData>),
}

/// What was used last stays.
#[derive(Debug, Default)]
struct Cache {
    held: HashMap<Key, (Held, usize, u64)>,
    /// By when they were used.
    used: BTreeMap<u64, Key>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    fn get(&mut self, key: &Key) -> Option<Held> {
        let (held, _, when) = self.held.get_mut(key)?;
        self.clock += 1;
        self.used.remove(when);
        *when = self.clock;
        self.used.insert(self.clock, key.clone());
        Some(held.clone())
    }

    fn put(&mut self, key: Key, held: Held, bytes: usize, most: usize) {
        self.forget(&key);
        self.clock += 1;
        self.used.insert(self.clock, key.clone());
        self.held.insert(key, (held, bytes, self.clock));
        self.bytes += bytes;
        while self.bytes > most
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some((_, bytes, when)) = self.held.remove(key) {
            self.used.remove(&when);
            self.bytes -= bytes;
        }
    }

    fn forget_all(&mut self, digest: &str) {
        let gone: Vec<Key> =
            self.held.keys().filter(|key| *key.digest == *digest).cloned().collect();
        for key in &gone {
            self.forget(key);
        }
    }
}

/// The cubes of a lake.
#[derive(Debug)]
pub(crate) struct Cubes {
    cache: Mutex<Cache>,
    /// The segments whose bytes have been compared with their digest, and what they looked like.
    verified: Mutex<HashMap<String, Stamp>>,
    /// Held while a cube is made, so that nobody makes it twice.
    making: Mutex<()>,
    /// Most bytes of columns that are kept in memory.
    most: usize,
    pub(crate) limits: Limits,
}

/// What is left of a lock's content is right: nothing here is changed half.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cubes {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            cache: Mutex::default(),
            verified: Mutex::default(),
            making: Mutex::default(),
            most: options.cache_bytes,
            limits: Limits { promoted: options.promoted_tags, ..Limits::default() },
        }
    }

    /// Bytes of columns in memory.
    pub(crate) fn bytes(&self) -> usize {
        locked(&self.cache).bytes
    }

    fn get(&self, key: &Key) -> Option<Held> {
        locked(&self.cache).get(key)
    }

    fn put(&self, key: Key, held: Held, bytes: usize) {
        locked(&self.cache).put(key, held, bytes, self.most);
    }

    pub(super) fn forget(&self, digest: &str) {
        locked(&self.cache).forget_all(digest);
    }
}

/// Why a cube does not answer.
#[derive(Debug)]
pub(super) enum CubeFault {
    /// It is to be made anew.
    Unfit(Unfit),
    /// It is not its fault.
    Bills(BillFault),
}

impl From<Unfit> for CubeFault {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

impl From<BillFault> for CubeFault {
    fn from(fault: BillFault) -> Self {
        Self::Bills(fault)
    }
}

impl From<LakeFault> for CubeFault {
    fn from(fault: LakeFault) -> Self {
        Self::Bills(fault.into())
    }
}

impl From<TooLarge> for CubeFault {
    fn from(fault: TooLarge) -> Self {
        Self::Bills(fault.into())
    }
}

/// A cube that may be asked: its segment is what its digest says, and it comes to what the import
/// said.
#[derive(Clone, Debug)]
pub(super) struct Cube<'a> {
    lake: &'a Lake,
    pub(super) digest: Arc<str>,
    pub(super) directory: Arc<Directory>,
}

impl Lake {
    pub(crate) fn cube_path(&self, digest: &str) -> Result<PathBuf, LakeFault> {
        Ok(self.path(digest)?.with_extension("cube"))
    }

    /// The segment is what its digest says: once for each file, for it never changes.
    pub(super) fn intact(&self, digest: &str) -> Result<u64, LakeFault> {
        let stamp = |file: &File| {
            let metadata = file.metadata();
            let unreadable = |source| LakeFault::Unreadable { digest: digest.to_owned(), source };
            metadata.map(|metadata| Stamp::of(&metadata)).map_err(unreadable)
        };
        let now = stamp(&self.file(digest)?)?;
        let known = locked(&self.cubes.verified).get(digest).copied();
        if known == Some(now) {
            return Ok(now.bytes);
        }
        let verified = stamp(&self.verified(digest)?)?;
        locked(&self.cubes.verified).insert(digest.to_owned(), verified);
        Ok(verified.bytes)
    }

    /// Notes that a segment was written just now, and hashed as it was.
    pub(crate) fn written(&self, digest: &str) -> Result<u64, LakeFault> {
        let metadata = fs::metadata(self.path(digest)?)
            .map_err(|source| LakeFault::Unreadable { digest: digest.to_owned(), source })?;
        let stamp = Stamp::of(&metadata);
        locked(&self.cubes.verified).insert(digest.to_owned(), stamp);
        Ok(stamp.bytes)
    }

    /// What of a segment's cube is in the file.
    fn directory(&self, digest: &Arc<str>, bytes: u64) -> Result<Arc<Directory>, CubeFault> {
        let key = Key { digest: Arc::clone(digest), part: Part::Directory };
        if let Some(Held::Directory(directory)) = self.cubes.get(&key) {
            return Ok(directory);
        }
        let (_, directory) = Reader::open(self.cube_file(digest)?)?;
        if directory.segment_bytes != bytes || !comes_to(&directory) {
            return Err(Unfit::new("it is of another segment").into());
        }
        let directory = Arc::new(directory);
        let columns = |slab: &super::file::Slab| {
            (slab.plain.len() + slab.tags.len() + slab.costs.len() + 1)
                * (100 + 48 * slab.rows.div_ceil(directory.chunk_rows.max(1)) as usize)
        };
        let size = directory.slabs.iter().map(columns).sum();
        self.cubes.put(key, Held::Directory(Arc::clone(&directory)), size);
        Ok(directory)
    }

    /// Where lines lie in a segment, which must have been verified.
    pub(super) fn layout_of(&self, digest: &str) -> Result<Arc<ParquetMetaData>, LakeFault> {
        let key = Key { digest: digest.into(), part: Part::Layout };
        if let Some(Held::Layout(layout)) = self.cubes.get(&key) {
            return Ok(layout);
        }
        let layout = Arc::new(self.layout(digest)?);
        let size = layout.memory_size();
        self.cubes.put(key, Held::Layout(Arc::clone(&layout)), size);
        Ok(layout)
    }

    fn cube_file(&self, digest: &str) -> Result<File, CubeFault> {
        Ok(File::open(self.cube_path(digest)?).map_err(Unfit::new)?)
    }

    /// Makes a segment's cube from its lines.
    fn make_cube(&self, digest: &str) -> Result<(), BillFault> {
        let unwritten = |error: io::Error| BillFault::Unavailable(error.to_string());
        let path = self.cube_path(digest)?;
        let mut cube = Builder::new(self.folder(), self.cubes.limits).map_err(unwritten)?;
        let mut sums = ByCurrency::new();
        for line in self.lines(digest)? {
            let line = line?;
            let sum = sums.entry(line.currency.clone()).or_default();
            *sum = sum.checked_add(Sums::of(&line)).ok_or(TooLarge)?;
            cube.push(&line).map_err(unwritten)?;
        }
        let bytes = self.written(digest)?;
        cube.finish(&path, bytes, &sums).map_err(unwritten)
    }

    /// Asks a segment's cube; one that is missing or unfit is made before, and what it answers then
    /// holds.
    pub(super) fn ask_cube<T>(
        &self,
        segment: &Segment,
        ask: impl Fn(&Cube<'_>) -> Result<T, CubeFault>,
    ) -> Result<T, BillFault> {
        let bytes = self.intact(&segment.digest)?;
        let digest: Arc<str> = segment.digest.as_str().into();
        let ask = || {
            let directory = self.directory(&digest, bytes)?;
            let cube = Cube { lake: self, digest: Arc::clone(&digest), directory };
            cube.check(segment)?;
            ask(&cube)
        };
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(CubeFault::Bills(fault)) => return Err(fault),
            Err(CubeFault::Unfit(_)) => self.cubes.forget(&segment.digest),
        }
        let _making = locked(&self.cubes.making);
        // Somebody else may have made it meanwhile.
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(CubeFault::Bills(fault)) => return Err(fault),
            Err(CubeFault::Unfit(_)) => self.cubes.forget(&segment.digest),
        }
        self.make_cube(&segment.digest)?;
        ask().map_err(|fault| match fault {
            CubeFault::Bills(fault) => fault,
            CubeFault::Unfit(unfit) => BillFault::Unavailable(format!(
                "the cube of segment {digest} cannot be read although it was just made: {unfit}"
            )),
        })
    }
}

/// Whether its columns come to what it says itself.
fn comes_to(directory: &Directory) -> bool {
    let of = |sums: &Sums, basis| match basis {
        Basis::Billed => sums.billed,
        Basis::Contracted => sums.contracted,
        Basis::Effective => sums.effective,
        Basis::List => sums.list,
        Basis::Quantity => Amount::ZERO,
    };
    Basis::ALL.into_iter().enumerate().all(|(at, basis)| {
        let slabs = directory.slabs.iter().map(|slab| slab.costs[at].total.0);
        let stated = directory.sums.values().map(|sums| of(sums, basis).0);
        basis == Basis::Quantity
            || slabs.fold(0, i128::wrapping_add) == stated.fold(0, i128::wrapping_add)
    })
}

impl Cube<'_> {
    fn check(&self, segment: &Segment) -> Result<(), BillFault> {
        if self.directory.sums == segment.sums {
            return Ok(());
        }
        let reason = "it does not come to what its import said".to_owned();
        Err(BillFault::Damaged { digest: segment.digest.clone(), reason })
    }

    fn held(
        &self,
        part: Part,
        read: impl FnOnce(&Reader, &Directory) -> Result<(Held, usize), Unfit>,
    ) -> Result<Held, CubeFault> {
        let key = Key { digest: Arc::clone(&self.digest), part };
        if let Some(held) = self.lake.cubes.get(&key) {
            return Ok(held);
        }
        let reader = Reader::of(self.lake.cube_file(&self.digest)?);
        let (held, bytes) = read(&reader, &self.directory)?;
        self.lake.cubes.put(key, held.clone(), bytes);
        Ok(held)
    }

    /// A column of [`super::DIMENSIONS`].
    pub(super) fn plain(&self, slab: usize, at: usize) -> Result<Arc<CodeColumn>, CubeFault> {
        let held = self.held(Part::Plain(slab, at), |reader, directory| {
            let slab = &directory.slabs[slab];
            let blocks = slab.plain.get(at).ok_or_else(|| Unfit::new("it lacks a dimension"))?;
            let column = CodeColumn::read(reader, directory, slab, blocks)?;
            let size = column.size();
            Ok((Held::Codes(column.into()), size))
        })?;
        held.codes()
    }

    /// The column of a tag.
    pub(super) fn tag(&self, slab: usize, at: usize) -> Result<Arc<CodeColumn>, CubeFault> {
        let held = self.held(Part::Tag(slab, at), |reader, directory| {
            let slab = &directory.slabs[slab];
            let column = CodeColumn::read(reader, directory, slab, &slab.tags[at].1)?;
            let size = column.size();
            Ok((Held::Codes(column.into()), size))
        })?;
        held.codes()
    }

    /// The tags without a column of their own, when there are any.
    pub(super) fn others(&self, slab: usize) -> Result<Option<Arc<TagColumn>>, CubeFault> {
        if self.directory.slabs[slab].others.is_none() {
            return Ok(None);
        }
        let held = self.held(Part::Others(slab), |reader, directory| {
            let slab = &directory.slabs[slab];
            let blocks = slab.others.as_ref().ok_or_else(|| Unfit::new("it lacks tags"))?;
            let column = TagColumn::read(reader, directory, slab, blocks)?;
            let size = column.size();
            Ok((Held::Others(column.into()), size))
        })?;
        match held {
            Held::Others(column) => Ok(Some(column)),
            _ => Err(Unfit::new("another part").into()),
        }
    }

    /// The costs of a basis.
    pub(super) fn costs(&self, slab: usize, basis: Basis) -> Result<Arc<CostColumn>, CubeFault> {
        let at = Basis::ALL.iter().position(|one| *one == basis).unwrap_or_default();
        let held = self.held(Part::Costs(slab, at), |reader, directory| {
            let slab = &directory.slabs[slab];
            let column = CostColumn::read(reader, directory, slab, &slab.costs[at])?;
            let size = column.size();
            Ok((Held::Costs(column.into()), size))
        })?;
        match held {
            Held::Costs(column) => Ok(column),
            _ => Err(Unfit::new("another part").into()),
        }
    }
}

impl Held {
    fn codes(self) -> Result<Arc<CodeColumn>, CubeFault> {
        match self {
            Self::Codes(column) => Ok(column),
            _ => Err(Unfit::new("another part").into()),
        }
    }
}
