//! Where a domain that runs can be looked at, as its own XML says.

use super::{NotADescription, read::Node};

/// Where a screen is served, as RFB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// At this port of the host itself.
    Port(u16),
    /// At this socket of the host.
    Socket(String),
}

/// What of a domain can be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consoles {
    /// Its screen.
    pub screen: Option<Screen>,
    /// The socket of its first serial line.
    pub serial: Option<String>,
}

impl Consoles {
    /// What the XML of a domain that runs says.
    ///
    /// # Errors
    /// When it is no domain's XML.
    pub fn read(xml: &str) -> Result<Self, NotADescription> {
        let domain = Node::parse(xml)?;
        let is = |node: &&Node, kind: &str| node.attribute("type") == Some(kind);
        let screen = domain.at("devices/graphics").filter(|one| is(one, "vnc"));
        let socket = screen.and_then(|screen| {
            let listen = screen.at("listen").and_then(|listen| listen.attribute("socket"));
            screen.attribute("socket").or(listen)
        });
        let port = screen.and_then(|screen| screen.attribute("port")?.parse().ok());
        let screen = match socket {
            Some(socket) => Some(Screen::Socket(socket.to_owned())),
            None => port.map(Screen::Port),
        };
        let serial = domain.at("devices/serial").filter(|one| is(one, "unix"));
        let serial = serial.and_then(|serial| serial.at("source")?.attribute("path"));
        Ok(Self { screen, serial: serial.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(devices: &str) -> Consoles {
        Consoles::read(&format!("<domain><devices>{devices}</devices></domain>")).unwrap()
    }

    #[test]
    fn a_screen_is_at_a_socket_or_at_a_port() {
        let socket = "<graphics type='vnc' socket='/a/vnc.sock'><listen type='socket' \
                      socket='/a/vnc.sock'/></graphics>";
        let at = Some(Screen::Socket("/a/vnc.sock".to_owned()));
        assert_eq!(read(socket), Consoles { screen: at, serial: None });
        let port = "<graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1'/>";
        assert_eq!(read(port).screen, Some(Screen::Port(5901)));
        // One that does not run has no port yet.
        assert_eq!(read("<graphics type='vnc' port='-1' autoport='yes'/>"), Consoles::default());
        assert_eq!(read("<graphics type='spice' port='5901'/>"), Consoles::default());
    }

    #[test]
    fn a_serial_line_is_at_a_socket_or_not_to_be_had() {
        let unix = "<serial type='unix'><source mode='bind' path='/b.serial'/></serial>";
        assert_eq!(read(unix).serial.as_deref(), Some("/b.serial"));
        assert_eq!(read("<serial type='pty'><source path='/dev/pts/3'/></serial>").serial, None);
    }
}
