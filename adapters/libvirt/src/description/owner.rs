//! As whom the daemon runs guests.

use super::{NotADescription, read::Node};

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// Its group.
    pub group: u32,
}

impl Owner {
    /// Whom a host's capabilities name; none where the daemon runs guests as itself.
    ///
    /// # Errors
    /// When it is no host's XML.
    pub fn of_guests(capabilities: &str) -> Result<Option<Self>, NotADescription> {
        let capabilities = Node::parse_as("capabilities", capabilities)?;
        let Some(host) = capabilities.at("host") else { return Ok(None) };
        let is_dac = |model: &&Node| model.at("model").is_some_and(|name| name.text() == "dac");
        let label = host.all("secmodel").find(is_dac).and_then(|dac| dac.at("baselabel"));
        Ok(label.and_then(|label| {
            let (user, group) = label.text().split_once(':')?;
            let number = |text: &str| text.trim_start_matches('+').parse().ok();
            Some(Self { user: number(user)?, group: number(group)? })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_guests_is_among_the_models_of_security() {
        let host = |models: &str| format!("<capabilities><host>{models}</host></capabilities>");
        let read = |models: &str| Owner::of_guests(&host(models)).unwrap();
        let dac = "<secmodel><model>apparmor</model><doi>0</doi></secmodel>\
                   <secmodel><model>dac</model><doi>0</doi>\
                   <baselabel type='kvm'>+64055:+109</baselabel>\
                   <baselabel type='qemu'>+64055:+109</baselabel></secmodel>";
        assert_eq!(read(dac), Some(Owner { user: 64_055, group: 109 }));
        assert_eq!(read("<secmodel><model>none</model></secmodel>"), None);
        assert!(Owner::of_guests("<domain/>").is_err());
    }
}
