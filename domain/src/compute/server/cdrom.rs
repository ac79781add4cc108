//! A server's drive, and the disc in it.
//!
//! A server has a drive from its first start with a disc on, for good: it is empty or has a disc, an image
//! of the format `iso`. A disc is put in and taken out while the server runs as well, if it was started with
//! its drive.
//!
//! ```text
//!                       change-cdrom               confirm
//!  stopped, running ────────────────► changing-cdrom ──────► as before, with the disc
//!                                         │ abandon
//!                                         └──────────► as before: the next start has what it had
//! ```
//!
//! By default it is tried after the first disk: an empty disk is started from the disc, and what was
//! installed on it from then on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Event, Order, Power, Server,
    parts::{Image, Parts},
};
use crate::{
    compute::{
        image::{Definition, Format},
        placement::Architecture,
    },
    kernel::{Decider as _, Refusal, codes},
};

/// A server's drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerCdrom")]
pub struct Cdrom {
    /// The disc in it; none when it is empty.
    #[serde(default)]
    pub image: Option<Image>,
}

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Cdrom {
    /// A drive with a disc that was named.
    ///
    /// # Errors
    /// `invalid-field`: the image is no disc, or is for another architecture.
    pub fn with(
        id: Uuid,
        definition: Definition,
        architecture: Architecture,
    ) -> Result<Self, Refusal> {
        let name = &definition.name;
        if definition.format != Format::Iso {
            return Err(no(format!("cdrom: {name} is no disc: an image of the format iso is one")));
        }
        if definition.architecture != architecture {
            return Err(no(format!("cdrom: {name} is for another architecture")));
        }
        Ok(Self { image: Some(Image::of(id, definition)) })
    }
}

/// Whether a disk can be made from an image.
///
/// # Errors
/// `invalid-field`: it is a disc.
pub(super) fn holds_disk(image: &Definition) -> Result<(), Refusal> {
    let name = &image.name;
    match image.format {
        Format::Iso => Err(no(format!("image: {name} is a disc: name it as `cdrom`"))),
        Format::Qcow2 | Format::Raw | Format::Vhd | Format::Vhdx | Format::Vmdk => Ok(()),
    }
}

impl Parts {
    /// The disc in its drive.
    pub fn disc(&self) -> Option<&Image> {
        self.cdrom.as_ref()?.image.as_ref()
    }
}

impl Server {
    /// Whether the disc in its drive can be changed now.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud and one that was adopted, `wrong-state` for one that runs
    /// without a drive, `order-outstanding` and `order-parked`.
    pub fn check_change_cdrom(&self) -> Result<(), Refusal> {
        let home = self.ours("change-cdrom")?;
        match self.free("change-cdrom")?.power {
            Power::Stopped => Ok(()),
            Power::Running if home.parts.cdrom.is_some() => Ok(()),
            Power::Running => {
                let detail =
                    "it was started without a drive: stop it, put the disc in, and start it";
                Err(Refusal::new(&codes::WRONG_STATE, detail))
            }
            _ => Err(Refusal::wrong_state("change-cdrom", self.status())),
        }
    }

    pub(super) fn change_cdrom(
        &self,
        named: Option<Uuid>,
        found: Option<Box<Image>>,
    ) -> Result<Vec<Event>, Refusal> {
        if named.is_none() && self.home.as_ref().is_some_and(|home| home.parts.cdrom.is_none()) {
            self.free("change-cdrom")?;
            return Ok(vec![]);
        }
        self.check_change_cdrom()?;
        if named != found.as_ref().map(|image| image.id) {
            return Err(no("found: nobody looked for the image"));
        }
        let has = self.home.as_ref().and_then(|home| home.parts.cdrom.as_ref());
        if has.is_some_and(|has| has.image.as_ref().map(|image| image.id) == named) {
            return Ok(vec![]);
        }
        Ok(vec![Event::CdromChangeOrdered { image: found }])
    }

    /// The disc is in, or out.
    pub(super) fn cdrom_changed(&mut self, image: Option<Box<Image>>) {
        let image = image.map(|image| *image);
        self.at_home(|home| home.parts.cdrom = Some(Cdrom { image }));
    }

    pub(super) fn order_cdrom(&mut self, image: Option<Box<Image>>) {
        self.orders.issue(Order::ChangeCdrom { image });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kernel::{Decider, Stamp};

    fn image(format: &str) -> Definition {
        serde_json::from_value(json!({
            "name": "installer", "source": "upload", "sha256": "0".repeat(64), "format": format,
            "size_mib": 700, "architecture": "x86_64", "os": "linux", "firmware": "bios",
            "min_disk_gib": 10,
        }))
        .unwrap()
    }

    #[test]
    fn a_disc_is_an_iso_of_the_servers_architecture_and_no_disk() {
        let id = Uuid::from_u128(1);
        let with = |format, architecture| Cdrom::with(id, image(format), architecture);
        assert_eq!(with("iso", Architecture::X86_64).unwrap().image.unwrap().id, id);
        for (format, architecture) in
            [("raw", Architecture::X86_64), ("iso", Architecture::Aarch64)]
        {
            let no = with(format, architecture).unwrap_err();
            assert_eq!(no.code.code, "invalid-field");
            assert!(no.detail.starts_with("cdrom: installer is "), "{}", no.detail);
        }
        holds_disk(&image("qcow2")).unwrap();
        assert!(holds_disk(&image("iso")).unwrap_err().detail.contains("name it as `cdrom`"));
    }

    #[test]
    fn nothing_is_put_into_a_server_that_is_not_there() {
        let stamp = Stamp { now: chrono::DateTime::UNIX_EPOCH, actor: "test".into() };
        let command: super::super::Command =
            serde_json::from_value(json!({"type": "change-cdrom", "data": {"image": null}}))
                .unwrap();
        let no = Server::default().decide(command, &stamp).unwrap_err();
        assert_eq!(no.code.code, "unsupported");
    }
}
