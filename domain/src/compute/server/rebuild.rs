//! A server whose root disk is made from an image again: what was on it is gone, and id, addresses and
//! other disks stay.
//!
//! ```text
//!                      rebuild               confirm
//!  stopped, running ───────────► rebuilding ─────────► as it was before: stopped, running
//!                                    │ abandon
//!                                    └─────────► stopped, with the old root disk or the new one
//! ```

use uuid::Uuid;

use super::{
    Event, Power, Server,
    cdrom::holds_disk,
    parts::{Image, Parts},
};
use crate::{
    compute::image::{Definition, Firmware},
    kernel::{Decider, Refusal, codes},
};

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Image {
    /// An image as servers know it.
    pub fn of(id: Uuid, definition: Definition) -> Self {
        let source = definition.lies();
        let Definition { sha256, format, size_mib, os, .. } = definition;
        Self { id, sha256, format, source, size_mib, os }
    }
}

impl Parts {
    /// What its root disk was made from last has become this.
    pub(super) fn rebuilt(&mut self, image: Image) {
        self.image = Some(image);
        if let Some(root) = self.disks.first_mut() {
            root.from_image = true;
        }
    }
}

impl Server {
    /// Whether its root disk can be made again now.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state` for one that runs and is not to be stopped,
    /// `invalid-field` for one without disks, `order-outstanding` and `order-parked`.
    pub fn check_rebuild(&self, stop: bool) -> Result<(), Refusal> {
        let home = self.ours("rebuild")?;
        match self.free("rebuild")?.power {
            Power::Stopped => {}
            Power::Running if stop => {}
            Power::Running => {
                let detail = "it runs: stop it first, or say `stop`";
                return Err(Refusal::new(&codes::WRONG_STATE, detail));
            }
            _ => return Err(Refusal::wrong_state("rebuild", self.status())),
        }
        if home.parts.disks.is_empty() {
            return Err(no("it has no disk that could be made again"));
        }
        Ok(())
    }

    /// What its root disk is made from: the image that is named, or the one that it was made from.
    ///
    /// # Errors
    /// `invalid-field`: the image is not one for this server.
    pub fn image_again(&self, named: Option<(Uuid, Definition)>) -> Result<Image, Refusal> {
        let home = self.ours("rebuild")?;
        let own = home.parts.image.as_ref();
        let Some((id, definition)) = named else {
            return own.cloned().ok_or_else(|| no("image: it was made from none, so name one"));
        };
        holds_disk(&definition)?;
        let name = &definition.name;
        if definition.architecture != home.spec.architecture {
            return Err(no(format!("image: {name} is for another architecture")));
        }
        if home.parts.firmware.unwrap_or(Firmware::Bios) != definition.firmware {
            return Err(no(format!(
                "image: {name} is started by another firmware than the server"
            )));
        }
        if own.is_some_and(|own| own.os != definition.os) {
            return Err(no(format!(
                "image: {name} is another system than the server was made for"
            )));
        }
        let least = definition.min_disk_gib;
        if home.parts.disks.first().is_some_and(|root| root.size_gib < least) {
            return Err(no(format!("image: {name} needs {least} GiB: grow the root disk first")));
        }
        Ok(Image::of(id, definition))
    }

    pub(super) fn rebuild(
        &self,
        stop: bool,
        found: Option<Box<Image>>,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_rebuild(stop)?;
        let image = found.ok_or_else(|| no("found: nobody looked for the image"))?;
        let start = self.free("rebuild")?.power == Power::Running;
        Ok(vec![Event::RebuildOrdered { image, start }])
    }
}
