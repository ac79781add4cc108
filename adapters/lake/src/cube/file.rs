//! How a cube lies on the disk.
//!
//! Blocks, one after the other, then the directory, which says where each is and has its checksum,
//! then the directory's length and checksum, and what kind of file it is. A file whose end is not
//! so is none, whoever wrote it or broke off.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use domain::finops::{amount::Amount, bill::ByCurrency, cost::Basis};
use serde::{Deserialize, Serialize};

use super::{
    packed::{Codes, Costs, PackedCosts},
    texts::Texts,
};

/// The last bytes of a cube. Another format has another number, and is made anew.
const MAGIC: &[u8; 8] = b"SKYCUBE1";
/// The directory's length and checksum, and the magic.
const TAIL: usize = 16;

/// Some bytes of the file.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Block {
    at: u64,
    length: u64,
    crc: u32,
}

/// Some texts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct TextBlocks {
    bytes: Block,
    ends: Block,
}

/// The codes of the lines of a chunk.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct CodeBlock {
    /// Bytes of each; 0 when they are all the same.
    width: u8,
    /// The code they all are then.
    one: u32,
    block: Block,
}

/// A column of texts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct CodeBlocks {
    pub(super) texts: TextBlocks,
    pub(super) chunks: Vec<CodeBlock>,
}

/// The costs of the lines of a chunk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct CostBlock {
    exponent: u8,
    width: u8,
    one: Amount,
    block: Block,
}

/// A column of costs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct CostBlocks {
    pub(super) chunks: Vec<CostBlock>,
    /// What all of them come to, without what is beyond an amount.
    pub(super) total: Amount,
}

/// Tags that have no column of their own: for each line which pairs of key and value it has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct TagBlocks {
    /// The keys.
    pub(super) keys: TextBlocks,
    /// The values.
    pub(super) values: TextBlocks,
    /// The key and the value of each pair, as codes.
    pub(super) pairs: Block,
    /// Of each set the place behind its last pair,
    pub(super) ends: Block,
    /// and the pairs of all sets.
    pub(super) sets: Block,
    /// The set of each line.
    pub(super) chunks: Vec<CodeBlock>,
}

/// Lines that share their texts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Slab {
    pub(super) rows: u32,
    /// As [`super::DIMENSIONS`].
    pub(super) plain: Vec<CodeBlocks>,
    /// By key; a line without has the empty text.
    pub(super) tags: Vec<(String, CodeBlocks)>,
    /// The keys that are in neither.
    pub(super) others: Option<TagBlocks>,
    /// As [`Basis::ALL`].
    pub(super) costs: [CostBlocks; Basis::ALL.len()],
}

/// What is in a cube, and where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Directory {
    /// How long the segment's file is.
    pub(super) segment_bytes: u64,
    /// Lines of a chunk; the last of a slab may have fewer.
    pub(super) chunk_rows: u32,
    pub(super) rows: u64,
    /// What all lines come to.
    pub(super) sums: ByCurrency,
    pub(super) slabs: Vec<Slab>,
}

/// Writes blocks, and in the end where they are.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    at: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    pub(super) fn block(&mut self, bytes: &[u8]) -> io::Result<Block> {
        self.out.write_all(bytes)?;
        let length = bytes.len() as u64;
        let block = Block { at: self.at, length, crc: crc32fast::hash(bytes) };
        self.at += length;
        Ok(block)
    }

    pub(super) fn numbers(&mut self, numbers: &[u32]) -> io::Result<Block> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.block(&bytes)
    }

    pub(super) fn texts(&mut self, texts: &Texts) -> io::Result<TextBlocks> {
        Ok(TextBlocks { bytes: self.block(texts.bytes())?, ends: self.numbers(texts.ends())? })
    }

    pub(super) fn codes(&mut self, codes: &[u32]) -> io::Result<CodeBlock> {
        let (width, bytes) = Codes::pack(codes);
        let one = codes.first().copied().unwrap_or(0);
        Ok(CodeBlock { width, one, block: self.block(&bytes)? })
    }

    pub(super) fn costs(&mut self, amounts: &[i128]) -> io::Result<CostBlock> {
        let PackedCosts { exponent, width, one, bytes } = Costs::pack(amounts);
        Ok(CostBlock { exponent, width, one, block: self.block(&bytes)? })
    }

    /// Ends the file.
    pub(super) fn finish(mut self, directory: &Directory) -> io::Result<W> {
        let bytes = serde_json::to_vec(directory)?;
        self.out.write_all(&bytes)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
        self.out.write_all(MAGIC)?;
        Ok(self.out)
    }
}

/// Why a cube cannot be used: it is made anew.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(String);

impl Unfit {
    pub(super) fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Reads blocks.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
}

impl Reader {
    /// A file whose directory is known.
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }

    /// A file and what is in it.
    pub(super) fn open(file: File) -> Result<(Self, Directory), Unfit> {
        let length = file.metadata().map_err(Unfit::new)?.len();
        let mut tail = [0; TAIL];
        let end = length.checked_sub(TAIL as u64).ok_or_else(|| Unfit::new("it is too short"))?;
        file.read_exact_at(&mut tail, end).map_err(Unfit::new)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, magic @ ..] = tail;
        if magic != *MAGIC {
            return Err(Unfit::new("it is no cube of this format"));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]).into();
        let at = end.checked_sub(length).ok_or_else(|| Unfit::new("it is cut short"))?;
        let reader = Self { file };
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        let bytes = reader.block(Block { at, length, crc })?;
        let directory = serde_json::from_slice(&bytes).map_err(Unfit::new)?;
        Ok((reader, directory))
    }

    pub(super) fn block(&self, block: Block) -> Result<Vec<u8>, Unfit> {
        let mut bytes = vec![0; usize::try_from(block.length).map_err(Unfit::new)?];
        self.file.read_exact_at(&mut bytes, block.at).map_err(Unfit::new)?;
        if crc32fast::hash(&bytes) == block.crc {
            Ok(bytes)
        } else {
            Err(Unfit::new("a block has another checksum"))
        }
    }

    pub(super) fn numbers(&self, block: Block) -> Result<Vec<u32>, Unfit> {
        let bytes = self.block(block)?;
        Ok(bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect())
    }

    pub(super) fn texts(&self, blocks: TextBlocks) -> Result<Texts, Unfit> {
        let (bytes, ends) = (self.block(blocks.bytes)?, self.numbers(blocks.ends)?);
        Texts::of(bytes, ends).ok_or_else(|| Unfit::new("its texts are none"))
    }

    /// The codes of so many lines, each below the limit.
    pub(super) fn codes(
        &self,
        chunk: CodeBlock,
        rows: usize,
        limit: usize,
    ) -> Result<Codes, Unfit> {
        let bytes = self.block(chunk.block)?;
        Codes::unpack(chunk.width, chunk.one, bytes, rows, limit)
            .ok_or_else(|| Unfit::new("its codes are none"))
    }

    pub(super) fn costs(&self, chunk: CostBlock, rows: usize) -> Result<Costs, Unfit> {
        let CostBlock { exponent, width, one, block } = chunk;
        let packed = PackedCosts { exponent, width, one, bytes: self.block(block)? };
        Costs::unpack(packed, rows).ok_or_else(|| Unfit::new("its costs are none"))
    }
}
