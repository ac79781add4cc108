//! XDR, as far as libvirt uses it: big-endian words, everything padded to four bytes (RFC 4506).

use uuid::Uuid;

use crate::fault::Fault;

/// Longest text, in bytes (`VIR_NET_MESSAGE_STRING_MAX`).
const TEXT_MAX: usize = 4 << 20;
/// Most members of a list: as many domains as libvirt lists at once.
const LIST_MAX: usize = 16_384;

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

/// Arguments that are being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    too_long: Option<&'static str>,
}

impl Writer {
    pub(crate) fn uint(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn int(mut self, value: i32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn hyper(mut self, value: u64) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len() + padding(bytes.len()), 0);
        self
    }

    /// Bytes with their length.
    pub(crate) fn opaque(mut self, what: &'static str, bytes: &[u8]) -> Self {
        if bytes.len() > TEXT_MAX {
            self.too_long = Some(what);
            return self;
        }
        self.uint(bytes.len() as u32).fixed(bytes)
    }

    pub(crate) fn text(self, what: &'static str, text: &str) -> Self {
        self.opaque(what, text.as_bytes())
    }

    /// A text, or none.
    pub(crate) fn optional(self, what: &'static str, text: Option<&str>) -> Self {
        match text {
            None => self.uint(0),
            Some(text) => self.uint(1).text(what, text),
        }
    }

    pub(crate) fn uuid(self, uuid: Uuid) -> Self {
        self.fixed(uuid.as_bytes())
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, Fault> {
        match self.too_long {
            Some(what) => Err(Fault::TooLong(what)),
            None => Ok(self.bytes),
        }
    }
}

/// An answer that is being read. What is asked for and is not there is an error, and no length that
/// it names makes it ask for more memory than it has bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let short = Fault::Malformed("it ends too early");
        let (taken, _) = self.bytes.split_at_checked(length).ok_or(short.clone())?;
        self.bytes = self.bytes.get(length + padding(length)..).ok_or(short)?;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Malformed("it ends too early"))
    }

    pub(crate) fn uint(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn int(&mut self) -> Result<i32, Fault> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn hyper(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn signed_hyper(&mut self) -> Result<i64, Fault> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn double(&mut self) -> Result<f64, Fault> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    fn length(&mut self, most: usize) -> Result<usize, Fault> {
        let length = self.uint()? as usize;
        if length > most {
            Err(Fault::Malformed("a length is beyond the limit"))
        } else {
            Ok(length)
        }
    }

    pub(crate) fn opaque(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.length(TEXT_MAX)?;
        self.take(length)
    }

    /// A text. Names and messages are UTF-8; what is not is shown as well as it can be.
    pub(crate) fn text(&mut self) -> Result<String, Fault> {
        Ok(String::from_utf8_lossy(self.opaque()?).into_owned())
    }

    pub(crate) fn optional(&mut self) -> Result<Option<String>, Fault> {
        if self.uint()? == 0 { Ok(None) } else { self.text().map(Some) }
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, Fault> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// The characters of a C array, to its first zero; each stands in a word of its own.
    pub(crate) fn characters(&mut self, count: usize) -> Result<String, Fault> {
        let mut characters = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            characters.push(self.uint()? as u8);
        }
        let end = characters.iter().position(|one| *one == 0).unwrap_or(count);
        Ok(String::from_utf8_lossy(&characters[..end]).into_owned())
    }

    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let length = self.length(LIST_MAX)?;
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_padded_to_words() {
        let written = Writer::default().text("a", "abcde").optional("b", None).int(-1);
        let bytes = written.optional("c", Some("")).hyper(1 << 40).finish().unwrap();
        let hex = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!(
            hex,
            "000000056162636465000000\
             00000000ffffffff0000000100000000\
             0000010000000000"
        );
        let long = Writer::default().text("the XML", &"x".repeat(TEXT_MAX + 1));
        assert!(matches!(long.finish(), Err(Fault::TooLong("the XML"))));
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(
            text in ".{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40),
            (signed, plain, long) in any::<(i32, u32, u64)>(), uuid in any::<u128>(),
        ) {
            let uuid = Uuid::from_u128(uuid);
            let written = Writer::default().text("t", &text).opaque("o", &bytes).int(signed)
                .uint(plain).hyper(long).uuid(uuid).optional("s", Some(&text)).finish().unwrap();
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.text().unwrap(), text.clone());
            prop_assert_eq!(reader.opaque().unwrap(), &bytes[..]);
            prop_assert_eq!(reader.int().unwrap(), signed);
            prop_assert_eq!(reader.uint().unwrap(), plain);
            prop_assert_eq!(reader.hyper().unwrap(), long);
            prop_assert_eq!(reader.uuid().unwrap(), uuid);
            prop_assert_eq!(reader.optional().unwrap(), Some(text));
            prop_assert!(reader.uint().is_err());
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let reader = Reader::new(&bytes);
            let _ = reader.clone().text();
            let _ = reader.clone().list(Reader::uuid);
            let _ = reader.clone().list(|one| one.list(Reader::text));
            let _ = reader.clone().characters(32);
        }
    }
}
