//! XML as vCenter speaks it: elements with a type, and text.

use std::fmt::Write;

use commands::ports::DriverFault;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

/// Deepest nesting that is read: a tree of snapshots is the deepest that there is, at 32.
const DEPTH_MAX: usize = 128;

/// An element and what is in it; names are without their prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    name: String,
    /// Its `type`, of a reference, or its `xsi:type`.
    kind: String,
    text: String,
    inner: Vec<Node>,
}

fn odd(what: impl std::fmt::Display) -> DriverFault {
    DriverFault::Unexpected(format!("an answer does not read: {what}"))
}

impl Node {
    fn begin(start: &BytesStart<'_>) -> Result<Self, DriverFault> {
        let mut node = Self { name: start.local_name().as_ref().to_owned(), ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(odd)?;
            let key: &str = attribute.key.as_ref();
            if key == "type" || key.ends_with(":type") {
                let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(odd)?;
                let value = value.rsplit(':').next().unwrap_or_default();
                value.clone_into(&mut node.kind);
            }
        }
        Ok(node)
    }

    /// A whole document.
    pub(super) fn parse(xml: &[u8]) -> Result<Self, DriverFault> {
        let xml = std::str::from_utf8(xml).map_err(odd)?;
        let mut reader = Reader::from_str(xml);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().map_err(odd)? {
                Event::Start(_) if open.len() > DEPTH_MAX => {
                    return Err(odd("it is nested too deeply"));
                }
                Event::Start(start) => open.push(Self::begin(&start)?),
                Event::Empty(start) => {
                    let node = Self::begin(&start)?;
                    open.last_mut().ok_or_else(|| odd("it ends too early"))?.inner.push(node);
                }
                Event::End(_) => {
                    let node = open.pop().ok_or_else(|| odd("it ends too early"))?;
                    open.last_mut().ok_or_else(|| odd("it ends too early"))?.inner.push(node);
                }
                Event::Text(text) => {
                    if let Some(node) = open.last_mut() {
                        node.text.push_str(&text);
                    }
                }
                Event::GeneralRef(reference) => {
                    let name: &str = &reference;
                    let meant = match reference.resolve_char_ref().map_err(odd)? {
                        Some(character) => character.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(name)
                            .ok_or_else(|| odd(format!("&{name}; is nothing")))?
                            .to_owned(),
                    };
                    if let Some(node) = open.last_mut() {
                        node.text.push_str(&meant);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let root = open.pop().filter(|_| open.is_empty());
        root.and_then(|root| root.inner.into_iter().next()).ok_or_else(|| odd("it is cut off"))
    }

    /// The first element on this path.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |node, name| node.inner.iter().find(|one| one.name == name))
    }

    /// What is said there; empty when nothing is.
    pub(super) fn said(&self, path: &str) -> &str {
        self.at(path).map_or("", Self::text)
    }

    /// The number there; none when there is none.
    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.said(path).parse().ok()
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.inner.iter().filter(move |one| one.name == name)
    }

    /// Everything in it.
    pub(super) fn inner(&self) -> &[Self] {
        &self.inner
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn text(&self) -> &str {
        self.text.trim()
    }
}

/// A text as it stands in an element.
pub(super) fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

/// One element with a text.
pub(super) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// A reference to something there.
pub(super) fn reference(name: &str, kind: &str, id: &str) -> String {
    format!("<{name} type=\"{}\">{}</{name}>", escape(kind), escape(id))
}

/// A text as it stands in a path of a URL.
pub(super) fn in_path(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_their_types_and_without_their_prefixes() {
        let xml = b"<?xml version=\"1.0\"?><e:Envelope xmlns:e=\"u\"><e:Body>\
            <val xsi:type=\"ns:Disk\"><key>7</key><file>[ds] a&amp;b &#x41;.vmdk</file></val>\
            <val type=\"Folder\">group-1</val></e:Body></e:Envelope>";
        let root = Node::parse(xml).unwrap();
        let body = root.at("Body").unwrap();
        assert_eq!((root.name(), body.all("val").count()), ("Envelope", 2));
        assert_eq!((body.at("val").unwrap().kind(), body.number("val/key")), ("Disk", Some(7)));
        assert_eq!(body.said("val/file"), "[ds] a&b A.vmdk");
        for broken in ["", "<a>", "<a></b>", "<a>&nothing;</a>"] {
            assert!(Node::parse(broken.as_bytes()).is_err(), "{broken}");
        }
        let deep = "<a>".repeat(DEPTH_MAX + 2);
        assert!(Node::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn names_stand_in_elements_and_in_paths() {
        assert_eq!(element("name", "a<b"), "<name>a&lt;b</name>");
        assert_eq!(in_path("web 1/ü+.vmdk"), "web%201/%C3%BC%2B.vmdk");
    }
}
