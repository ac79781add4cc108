//! A serializer that writes canonical JSON directly: no tree of values between.
//!
//! Members are written as they come, and put in order at the end of their object when they did not
//! come so. What it writes is defined by `serde_json::to_value`: [`super::canonical`] tests that.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser};
use serde_json::{Error, Value};

/// Adds what is serialised to some bytes.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

fn unfit(what: &str) -> Error {
    ser::Error::custom(what)
}

/// Strings and numbers as serde_json writes them.
fn scalar<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    serde_json::to_writer(out, value)
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Members<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_char(self, value: char) -> Result<(), Error> {
        scalar(self.0, &value)
    }
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        scalar(self.0, value)
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        scalar(self.0, value)
    }
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.begin_variant(variant)?;
        value.serialize(Writer(self.0))?;
        self.0.push(b'}');
        Ok(())
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, false))
    }
    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, false))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, false))
    }
    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        self.begin_variant(variant)?;
        Ok(Items::begin(self.0, true))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        Ok(Members::begin(self.0, 0, false))
    }
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Members<'a>, Error> {
        Ok(Members::begin(self.0, length, false))
    }
    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Members<'a>, Error> {
        self.begin_variant(variant)?;
        Ok(Members::begin(self.0, length, true))
    }
}

impl Writer<'_> {
    /// `{"variant":`
    fn begin_variant(&mut self, variant: &'static str) -> Result<(), Error> {
        self.0.push(b'{');
        scalar(self.0, variant)?;
        self.0.push(b':');
        Ok(())
    }
}

/// An array.
pub(super) struct Items<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    in_variant: bool,
}

impl<'a> Items<'a> {
    fn begin(out: &'a mut Vec<u8>, in_variant: bool) -> Self {
        out.push(b'[');
        Self { out, first: true, in_variant }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        value.serialize(Writer(self.out))
    }

    fn finish(self) {
        self.out.extend_from_slice(if self.in_variant { b"]}" } else { b"]" });
    }
}

/// One member: its name, and where `"name":value` begins in the bytes.
type Member = (Cow<'static, str>, usize);

/// An object.
pub(super) struct Members<'a> {
    out: &'a mut Vec<u8>,
    /// Each is followed by one byte, a comma or nothing yet.
    seen: Vec<Member>,
    sorted: bool,
    in_variant: bool,
}

impl<'a> Members<'a> {
    fn begin(out: &'a mut Vec<u8>, length: usize, in_variant: bool) -> Self {
        out.push(b'{');
        Self { out, seen: Vec::with_capacity(length), sorted: true, in_variant }
    }

    fn name(&mut self, name: Cow<'static, str>) -> Result<(), Error> {
        if let Some((last, _)) = self.seen.last() {
            self.out.push(b',');
            self.sorted &= **last < *name;
        }
        let begin = self.out.len();
        scalar(self.out, &*name)?;
        self.out.push(b':');
        self.seen.push((name, begin));
        Ok(())
    }

    fn finish(mut self) {
        if !self.sorted {
            self.sort();
        }
        self.out.extend_from_slice(if self.in_variant { b"}}" } else { b"}" });
    }

    fn sort(&mut self) {
        let Some(begin) = self.seen.first().map(|(_, begin)| *begin) else { return };
        let mut places: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
        for (index, (name, from)) in self.seen.iter().enumerate() {
            let to = self.seen.get(index + 1).map_or(self.out.len(), |(_, next)| next - 1);
            places.push((name, *from..to));
        }
        // Stable: of one name the last comes last, and counts.
        places.sort_by(|a, b| a.0.cmp(b.0));
        let mut ordered = Vec::with_capacity(self.out.len() - begin);
        for (index, (name, place)) in places.iter().enumerate() {
            if places.get(index + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            if !ordered.is_empty() {
                ordered.push(b',');
            }
            ordered.extend_from_slice(&self.out[place.clone()]);
        }
        self.out.truncate(begin);
        self.out.extend_from_slice(&ordered);
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Items<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let name = match key.serialize(serde_json::value::Serializer)? {
            Value::String(name) => name,
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => return Err(unfit("a member's name must be a string")),
        };
        self.name(Cow::Owned(name))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer(self.out))
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.name(Cow::Borrowed(name))?;
        value.serialize(Writer(self.out))
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeStructVariant for Members<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        ser::SerializeStruct::serialize_field(self, name, value)
    }
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}
