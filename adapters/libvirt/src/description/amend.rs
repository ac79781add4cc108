//! A domain's XML of somebody's with a few things of it as we want them, and everything else as it is.

use std::collections::BTreeMap;

use quick_xml::{
    Reader, Writer,
    events::{BytesEnd, BytesStart, BytesText, Event},
};

use super::{Description, NotADescription};

/// What is to be otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    /// Processors; as many as there are when it is none.
    pub vcpus: Option<u32>,
    /// Memory, in KiB; as much as there is when it is none.
    pub memory_kib: Option<u64>,
    /// What the host calls interfaces, by their hardware addresses in lower case.
    pub ports: BTreeMap<String, String>,
    /// How far the server's orders had come.
    pub position: u64,
}

fn no(what: impl std::fmt::Display) -> NotADescription {
    NotADescription(what.to_string())
}

impl Amendment {
    /// The XML with this.
    ///
    /// # Errors
    /// When it is no domain's XML.
    pub fn of(&self, xml: &str) -> Result<String, NotADescription> {
        let mut reader = Reader::from_str(xml);
        let mut writer = Writer::new(Vec::new());
        let mut path: Vec<String> = Vec::new();
        // What is within an interface is looked at as a whole.
        let mut interface: Option<Vec<Event<'static>>> = None;
        let mut skipped = 0_usize;
        let mut has_metadata = false;
        loop {
            let event = reader.read_event().map_err(no)?.into_owned();
            let name = match &event {
                Event::Start(start) | Event::Empty(start) => local(start),
                _ => String::new(),
            };
            if skipped > 0 {
                match &event {
                    Event::Start(_) => skipped += 1,
                    Event::End(_) => skipped -= 1,
                    Event::Eof => return Err(no("it ends too early")),
                    _ => {}
                }
                continue;
            }
            let opens = matches!(event, Event::Start(_));
            let is_element = opens || matches!(event, Event::Empty(_));
            if opens {
                path.push(name.clone());
            }
            let mut at: Vec<&str> = path.iter().map(String::as_str).collect();
            if is_element && !opens {
                at.push(&name);
            }
            let mut write = |event: Event<'_>| writer.write_event(event).map_err(no);
            if let Some(within) = &mut interface {
                let ends = matches!(event, Event::End(_)) && path.len() == 3;
                within.push(event.clone());
                if ends {
                    for event in self.plugged(interface.take().unwrap_or_default()) {
                        write(event)?;
                    }
                }
                if matches!(event, Event::End(_)) {
                    path.pop();
                }
                continue;
            }
            if is_element {
                match at[..] {
                    ["domain", "devices", "interface"] if opens => {
                        interface = Some(vec![event]);
                        continue;
                    }
                    ["domain", "metadata", "server"] if is_ours(&event) => {
                        if opens {
                            path.pop();
                            skipped = 1;
                        }
                        continue;
                    }
                    ["domain", "metadata"] => {
                        has_metadata = true;
                        if let Event::Empty(start) = &event {
                            write(Event::Start(start.borrow()))?;
                            write(self.own())?;
                            write(Event::End(start.to_end()))?;
                        } else {
                            write(event)?;
                            write(self.own())?;
                        }
                        continue;
                    }
                    ["domain", "vcpu"] if opens && self.vcpus.is_some() => {
                        let mut start = BytesStart::new("vcpu");
                        let Event::Start(was) = &event else { continue };
                        // All that there are run.
                        let kept = was.attributes().filter_map(Result::ok);
                        start.extend_attributes(kept.filter(|one| one.key.as_ref() != "current"));
                        write(Event::Start(start.borrow()))?;
                        let count = self.vcpus.unwrap_or_default().to_string();
                        write(Event::Text(BytesText::new(&count)))?;
                        write(Event::End(BytesEnd::new("vcpu")))?;
                        path.pop();
                        skipped = 1;
                        continue;
                    }
                    ["domain", "vcpus"] if opens && self.vcpus.is_some() => {
                        path.pop();
                        skipped = 1;
                        continue;
                    }
                    ["domain", "memory" | "currentMemory"]
                        if opens && self.memory_kib.is_some() =>
                    {
                        let start = BytesStart::new(&*name).with_attributes([("unit", "KiB")]);
                        write(Event::Start(start.borrow()))?;
                        let kib = self.memory_kib.unwrap_or_default().to_string();
                        write(Event::Text(BytesText::new(&kib)))?;
                        write(Event::End(start.to_end()))?;
                        path.pop();
                        skipped = 1;
                        continue;
                    }
                    _ => {}
                }
            }
            match event {
                Event::Eof => break,
                Event::End(end) => {
                    let closes = path.pop();
                    if path.is_empty() && closes.as_deref() == Some("domain") && !has_metadata {
                        let metadata = BytesStart::new("metadata");
                        write(Event::Start(metadata.borrow()))?;
                        write(self.own())?;
                        write(Event::End(metadata.to_end()))?;
                    }
                    write(Event::End(end))?;
                }
                event => write(event)?,
            }
        }
        String::from_utf8(writer.into_inner()).map_err(no)
    }

    fn own(&self) -> Event<'static> {
        let position = self.position.to_string();
        let attributes =
            [("xmlns:skyledger", Description::NAMESPACE), ("position", position.as_str())];
        Event::Empty(BytesStart::new("skyledger:server").with_attributes(attributes).into_owned())
    }

    /// An interface with the host's name that it is to have.
    fn plugged(&self, within: Vec<Event<'static>>) -> Vec<Event<'static>> {
        let attribute = |start: &BytesStart<'_>, name: &str| {
            let found = start.attributes().filter_map(Result::ok);
            let mut found = found.filter(|one| one.key.as_ref() == name);
            found.next().map(|one| one.value.to_string())
        };
        let element = |event: &Event<'static>, name: &str| match event {
            Event::Start(start) | Event::Empty(start) if local(start) == name => {
                Some(start.clone())
            }
            _ => None,
        };
        let mac = within.iter().find_map(|event| attribute(&element(event, "mac")?, "address"));
        let port = mac.and_then(|mac| self.ports.get(&mac.to_lowercase()));
        let Some(port) = port else { return within };
        let target = BytesStart::new("target").with_attributes([("dev", port.as_str())]);
        let target = Event::Empty(target.into_owned());
        let mut out = Vec::with_capacity(within.len() + 1);
        for event in within {
            let is_mac = matches!(&event, Event::Empty(start) if local(start) == "mac");
            if matches!(&event, Event::Empty(start) if local(start) == "target") {
                continue;
            }
            out.push(event);
            if is_mac {
                out.push(target.clone());
            }
        }
        out
    }
}

fn local(start: &BytesStart<'_>) -> String {
    start.local_name().as_ref().to_owned()
}

fn is_ours(event: &Event<'_>) -> bool {
    let (Event::Start(start) | Event::Empty(start)) = event else { return false };
    let mut attributes = start.attributes().filter_map(Result::ok);
    attributes.any(|one| &*one.value == Description::NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
        <name>a &amp; b</name><uuid>8a5c2f0e-6f0a-4d5e-9a40-0d4f4f1f5a01</uuid>\
        <memory unit='MiB'>96</memory><currentMemory unit='MiB'>64</currentMemory>\
        <vcpu placement='static' current='1'>2</vcpu><os><type>hvm</type></os><devices>\
        <interface type='bridge'><mac address='52:54:00:AA:00:01'/><source bridge='br0'/>\
        <target dev='vnet7'/><model type='e1000'/></interface>\
        <interface type='user'><mac address='52:54:00:aa:00:02'/></interface>\
        <disk type='file'><target dev='hda' bus='ide'/></disk></devices>\
        <qemu:commandline><qemu:arg value='-x'/></qemu:commandline></domain>";

    fn amendment() -> Amendment {
        let ports = [("52:54:00:aa:00:01".to_owned(), "sk0123456789ab".to_owned())];
        Amendment { ports: ports.into(), position: 7, ..Amendment::default() }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let amended = amendment().of(XML).unwrap();
        let wanted = XML
            .replace("<source bridge='br0'/><target dev='vnet7'/>", "<source bridge='br0'/>")
            .replace(
                "<mac address='52:54:00:AA:00:01'/>",
                "<mac address='52:54:00:AA:00:01'/><target dev=\"sk0123456789ab\"/>",
            )
            .replace(
                "</domain>",
                "<metadata><skyledger:server xmlns:skyledger=\"urn:skyledger:server:1\" \
                 position=\"7\"/></metadata></domain>",
            );
        assert_eq!(amended, wanted);
        assert_eq!(Description::read(&amended).unwrap().position, 7);
        // Once more: nothing is there twice.
        let again = Amendment { position: 8, ..amendment() }.of(&amended).unwrap();
        assert_eq!(again, amended.replace("position=\"7\"", "position=\"8\""));
    }

    #[test]
    fn another_size_is_all_of_it() {
        let size = Amendment { vcpus: Some(3), memory_kib: Some(131_072), ..amendment() };
        let is = Description::read(&size.of(XML).unwrap()).unwrap();
        assert_eq!((is.vcpus, is.vcpus_max, is.memory_kib), (3, 3, 131_072));
        let amended = size.of(XML).unwrap();
        assert!(
            amended.contains("<currentMemory unit=\"KiB\">131072</currentMemory>"),
            "{amended}"
        );
        assert!(amended.contains("<vcpu placement=\"static\">3</vcpu>"), "{amended}");
        // What others wrote beside it stays.
        let noted = XML.replace("<os>", "<metadata><a:b xmlns:a='urn:a'/></metadata><os>");
        let amended = size.of(&noted).unwrap();
        assert!(amended.contains("<a:b xmlns:a='urn:a'/>"), "{amended}");
        assert_eq!(Description::read(&amended).unwrap().position, 7);
    }
}
