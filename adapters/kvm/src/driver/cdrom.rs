//! A server's drive, and the disc in it.
//!
//! ```text
//! <folder>/cdroms/<server id>.<sha-256>.iso     what lies in a server's drive
//! ```
//!
//! A disc is a second name of its file in the cache of images: it takes no room, and stays when the cache
//! lets its own name go. Another disc has another name, so a machine that runs is told of another file when
//! it is given another disc.

use std::path::{Path, PathBuf};

use adapters_libvirt::description::{self, DiskDevice, Source};
use commands::ports::DriverFault;
use domain::compute::{
    image::header,
    server::{cdrom::Cdrom, parts},
};
use tokio::{fs, io::AsyncReadExt as _};
use uuid::Uuid;

use super::{
    Affects, Connection, Inner, Layout, Step, Work, disks::described, fault::libvirt, find, names,
    state,
};
use crate::storage::{StorageFault, files, qemu_img};

/// What a server calls its drive.
const TARGET: &str = "sda";

impl Layout {
    /// The file of a disc that is in a server's drive.
    pub(super) fn cdrom(&self, server: Uuid, image: &parts::Image) -> PathBuf {
        self.cdroms.join(format!("{server}.{}.iso", image.sha256))
    }
}

/// A server's drive, as libvirt is told of it.
pub(super) fn drive(server: Uuid, cdrom: &Cdrom, layout: &Layout) -> DiskDevice {
    let path = cdrom.image.as_ref().map(|image| layout.cdrom(server, image).display().to_string());
    DiskDevice {
        target: TARGET.to_owned(),
        source: path.map(Source::File),
        format: description::Format::Raw,
        is_cdrom: true,
        is_readonly: true,
        is_shared: false,
        serial: None,
        limits: adapters_libvirt::Limits::new(),
        boot: None,
    }
}

impl Inner {
    /// Puts another disc into a server's drive, or leaves it empty.
    pub(super) async fn change_cdrom(
        &self,
        work: &Work<'_>,
        image: Option<&parts::Image>,
    ) -> Result<(), DriverFault> {
        let server = work.server;
        let cdrom = Cdrom { image: image.cloned() };
        self.lay_disc(server, &cdrom).await?;
        let wire = self.wire.get().await?;
        let drive = drive(server, &cdrom, &self.layout);
        let change = self.tell_of_disc(&wire, server, &drive);
        self.step(Step::Cdrom, server, change).await?;
        self.take_discs(server, Some(&cdrom)).await
    }

    /// The disc is where the server's drive is to find it.
    pub(super) async fn lay_disc(&self, server: Uuid, cdrom: &Cdrom) -> Result<(), DriverFault> {
        let Some(image) = &cdrom.image else { return Ok(()) };
        let path = self.layout.cdrom(server, image);
        let lay = async {
            if files::exists(&path).await? {
                return Ok(());
            }
            // It is not removed from the cache before it has its second name.
            // No disk is made from it.
            let taken = self.take(image, 0).await?;
            let origin = taken.origin();
            if origin.format != qemu_img::Format::Raw || !is_disc(origin.path).await? {
                let why = format!("image {} is no disc (ISO 9660)", image.id);
                return Err(DriverFault::Rejected(why));
            }
            let part = files::part(&path);
            files::remove(&part).await?;
            let fault = StorageFault::file("cannot make", &part);
            fs::hard_link(origin.path, &part).await.map_err(fault)?;
            Ok(files::put_in_place(&part, &path).await?)
        };
        self.step(Step::Image, server, lay).await
    }

    /// What runs and what is started next time is told of it, where there is a drive.
    async fn tell_of_disc(
        &self,
        wire: &Connection,
        server: Uuid,
        wanted: &DiskDevice,
    ) -> Result<(), DriverFault> {
        let Some(domain) = find(wire, server).await? else { return Ok(()) };
        let runs = state(wire, &domain).await?.is_active();
        for of in [Affects::Live, Affects::Config] {
            if of == Affects::Live && !runs {
                continue;
            }
            let is = described(wire, &domain, of).await?;
            match is.disks.iter().find(|disk| disk.is_cdrom) {
                Some(drive) if drive.source == wanted.source => {}
                Some(drive) => {
                    let target = drive.target.clone();
                    let xml = DiskDevice { target, ..wanted.clone() }.xml();
                    wire.update(&domain, &xml, of).await.map_err(libvirt)?;
                }
                None if of == Affects::Live => {
                    let why = "it was started without a drive".to_owned();
                    return Err(DriverFault::Rejected(why));
                }
                // Its next start describes it anew.
                None => {}
            }
        }
        Ok(())
    }

    /// No disc is left of a server but the one in its drive.
    pub(super) async fn take_discs(
        &self,
        server: Uuid,
        but: Option<&Cdrom>,
    ) -> Result<(), DriverFault> {
        let image = but.and_then(|cdrom| cdrom.image.as_ref());
        let stays = image.map(|image| self.layout.cdrom(server, image));
        let of = format!("{server}.");
        for name in names(&self.layout.cdroms).await? {
            let path = self.layout.cdroms.join(&name);
            if name.starts_with(&of) && stays.as_ref() != Some(&path) {
                files::remove(&path).await?;
            }
        }
        Ok(())
    }
}

/// Whether a file says that it is a disc.
async fn is_disc(path: &Path) -> Result<bool, DriverFault> {
    let fault = || StorageFault::file("cannot read", path);
    let file = fs::File::open(path).await.map_err(fault())?;
    let mut begin = Vec::new();
    let read = file.take(header::DISC_LENGTH as u64).read_to_end(&mut begin).await;
    read.map_err(fault())?;
    Ok(header::is_disc(&begin))
}
