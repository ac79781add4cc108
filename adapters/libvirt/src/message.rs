//! Frames: a length, a header of six words, and what is said.

use crate::{
    fault::{Code, Fault},
    xdr::Reader,
};

/// Longest frame that is taken (`VIR_NET_MESSAGE_MAX`).
pub(crate) const FRAME_MAX: usize = 32 << 20;
/// The length and the header, in bytes.
pub(crate) const HEAD: usize = 28;
/// Every program is at its first version.
const VERSION: u32 = 1;

/// What a procedure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program(u32);

impl Program {
    /// What every driver does.
    pub(crate) const REMOTE: Self = Self(0x2000_8086);
    /// What QEMU alone does.
    pub(crate) const QEMU: Self = Self(0x2000_8087);
    /// Whether the other side is still there.
    pub(crate) const KEEPALIVE: Self = Self(0x6b65_6570);
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Reply,
    Event,
    Other(u32),
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Call => 0,
            Self::Reply => 1,
            Self::Event => 2,
            Self::Other(number) => number,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) program: Program,
    pub(crate) procedure: i32,
    pub(crate) kind: Kind,
    pub(crate) serial: u32,
    pub(crate) failed: bool,
}

impl Header {
    /// A frame with this header.
    pub(crate) fn frame(self, said: &[u8]) -> Vec<u8> {
        let words = [
            (HEAD + said.len()) as u32,
            self.program.0,
            VERSION,
            self.procedure as u32,
            self.kind.number(),
            self.serial,
            u32::from(self.failed),
        ];
        let mut frame = Vec::with_capacity(HEAD + said.len());
        frame.extend(words.into_iter().flat_map(u32::to_be_bytes));
        frame.extend(said);
        frame
    }

    /// The header of a frame, its length left out, and what is said.
    pub(crate) fn read(frame: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let short = || Fault::Malformed("a frame is shorter than its header");
        let (head, said) = frame.split_at_checked(HEAD - 4).ok_or_else(short)?;
        let mut reader = Reader::new(head);
        let (program, _version) = (Program(reader.uint()?), reader.uint()?);
        let procedure = reader.int()?;
        let kind = match reader.uint()? {
            0 => Kind::Call,
            1 => Kind::Reply,
            2 => Kind::Event,
            other => Kind::Other(other),
        };
        let (serial, status) = (reader.uint()?, reader.uint()?);
        Ok((Self { program, procedure, kind, serial, failed: status != 0 }, said))
    }
}

/// The error that a failed reply is.
pub(crate) fn refusal(said: &[u8]) -> Fault {
    let read = |mut reader: Reader<'_>| {
        let (code, origin) = (Code(reader.int()?), reader.int()?);
        let message = reader.optional()?.unwrap_or_default();
        Ok(Fault::Refused { code, origin, message })
    };
    read(Reader::new(said)).unwrap_or_else(|fault: Fault| fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_a_short_one_is_refused() {
        let header = Header {
            program: Program::QEMU,
            procedure: 3,
            kind: Kind::Reply,
            serial: 7,
            failed: true,
        };
        let frame = header.frame(b"abcd");
        assert_eq!(frame[..4], [0, 0, 0, 32]);
        assert_eq!(Header::read(&frame[4..]).unwrap(), (header, &b"abcd"[..]));
        assert!(Header::read(&frame[4..20]).is_err());
        assert!(matches!(refusal(b"ab"), Fault::Malformed(_)));
    }
}
