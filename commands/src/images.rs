//! Images whose files lie in stores: uploaded or made from backups, given to hosts, and removed.
//!
//! ```text
//!   pieces ──► looked at ──► store ── all of it there, and what was described ──► confirm-upload
//!                 │ no                                                                 │ no
//!                 └──► broken off: nothing is kept                                     └──► removed
//! ```
//!
//! A file becomes visible in the store in one step, and only when its digest is right. So one that is
//! there under an image's id is that image, and whoever dies before it is recorded has it recorded by
//! sending the file again. What an upload that died has left is removed when its store is collected, and
//! so is a file that came when its image was retired.

use std::{io, sync::Mutex, sync::PoisonError, time::Duration};

use domain::{
    compute::{
        backup::Backup,
        backup_store::BackupStore,
        image::{Format, Found, Image, Order, Source, Uploaded, file::Inspection},
        server::Server,
    },
    kernel::{Decider, Outstanding, Principal, Refusal, Role, codes},
    kinds,
};
use futures::{StreamExt, stream::BoxStream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    observe::chain,
    ports::{Cell, DriverFault, Filter, HostTask, Op, Query, Report, StoreAccess, ViewFault},
    submit::{Outcome, Submission, SubmitFault},
};

/// How long a host may take from its order to its first byte of an image.
const ADDRESS_VALID: Duration = Duration::from_hours(6);
/// Orders by which a host may fetch an image.
const FETCHING: [&str; 5] = ["arrive", "change-cdrom", "launch", "rebuild", "receive"];
/// What was begun to be uploaded so long ago will not be whole any more.
const UPLOAD_TAKES_MAX: Duration = Duration::from_hours(24);
/// How long the views may take to show what was ordered before a file is removed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an upload came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum UploadFault {
    /// A rule says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The sender has stopped before its end.
    #[error("the file was cut off: {0}")]
    CutOff(String),
    /// The store is not reached, or takes nothing.
    #[error("the store: {0}")]
    Store(DriverFault),
    /// Something cannot be read.
    #[error(transparent)]
    Load(#[from] LoadFault),
    /// It is there, and could not be recorded.
    #[error(transparent)]
    Submit(#[from] SubmitFault),
}

/// What came of an upload.
#[derive(Debug)]
pub struct Taken {
    /// What the file is.
    pub file: Uploaded,
    /// What was recorded; none when it was before.
    pub outcome: Option<Outcome>,
}

impl Ledger {
    /// Takes an image's file in, and records it. Sent again, it is found and not taken again.
    ///
    /// # Errors
    /// See [`UploadFault`]. Nothing of the file is kept, but where it was whole and is not recorded.
    pub async fn upload_image(
        &self,
        by: &Principal,
        id: Uuid,
        size_bytes: Option<u64>,
        pieces: BoxStream<'_, io::Result<Vec<u8>>>,
    ) -> Result<Taken, UploadFault> {
        let (revision, image) = self.typed::<Image>(&id.to_string()).await?;
        let project = image.facets().project;
        // Who does not reach it is not told that it is there.
        if revision == 0 || by.authorise(Role::Viewer, project).is_err() {
            return Err(Refusal::new(&codes::NOT_FOUND, format!("there is no image {id}")).into());
        }
        by.authorise(Role::Operator, project)?;
        let Some((definition, store)) = image.ensure_awaiting()? else {
            let file = image.file.clone().unwrap_or(Uploaded { size_bytes: 0, disk_bytes: 0 });
            return Ok(Taken { file, outcome: None });
        };
        let inspection = Inspection::new(definition.clone());
        if let Some(size) = size_bytes {
            inspection.check_size(size)?;
        }
        let access = self.image_store(store, project).await?;
        let file = self.put(id, &access, inspection, pieces).await?;
        let kind = kinds::by_name(Image::KIND)
            .ok_or_else(|| LoadFault::Missing("images are no kind".to_owned()))?;
        let body = json!({"by": by.name, "file": file});
        let confirm = Submission::new(Self::system("uploads"), kind, id, "confirm-upload", body);
        match self.submit(confirm).await {
            Ok(outcome) => Ok(Taken { file, outcome: Some(outcome) }),
            Err(SubmitFault::Refused(refusal)) => {
                // It was retired meanwhile, or is described otherwise: the file is nobody's.
                if let Err(fault) = self.ports.backups.remove_image(&access, id).await {
                    tracing::warn!(image = %id, %fault, "a file waits for its store's collection");
                }
                Err(refusal.into())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// A store that is usable now.
    async fn image_store(
        &self,
        id: Uuid,
        project: Option<Uuid>,
    ) -> Result<StoreAccess, UploadFault> {
        let (_, store) = self.typed::<BackupStore>(&id.to_string()).await?;
        store.ensure_usable()?;
        if store.project.is_some() && store.project != project {
            let detail = "source: the store is of another project than the image";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
        Ok(self.store_access(id, &store, None)?)
    }

    /// Hands a file on to the store, as it comes, and looks at it on its way.
    async fn put(
        &self,
        id: Uuid,
        access: &StoreAccess,
        inspection: Inspection,
        pieces: BoxStream<'_, io::Result<Vec<u8>>>,
    ) -> Result<Uploaded, UploadFault> {
        /// What is known of the file so far.
        enum Known {
            Coming(Box<Inspection>),
            Whole(Uploaded),
            Broken(UploadFault),
        }
        let known = Mutex::new(Known::Coming(Box::new(inspection)));
        let step = |piece: Option<io::Result<Vec<u8>>>| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let Known::Coming(inspection) = &mut *known else { return None };
            let next = match piece {
                Some(Ok(piece)) => match inspection.take(&piece) {
                    Ok(()) => return Some(Some(piece)),
                    Err(refusal) => Known::Broken(refusal.into()),
                },
                Some(Err(error)) => Known::Broken(UploadFault::CutOff(error.to_string())),
                None => match inspection.as_ref().clone().finish() {
                    Ok(file) => Known::Whole(file),
                    Err(refusal) => Known::Broken(refusal.into()),
                },
            };
            let whole = matches!(next, Known::Whole(_));
            *known = next;
            // The end, or nothing in place of a piece.
            if whole { None } else { Some(None) }
        };
        let ended = futures::stream::once(async { None });
        let pieces = pieces.map(Some).chain(ended);
        let pieces = pieces.map(step).take_while(|piece| {
            let goes_on = piece.is_some();
            async move { goes_on }
        });
        let pieces = pieces.map(Option::flatten).boxed();
        let put = self.ports.backups.put_image(access, id, pieces).await;
        match (put, known.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (_, Known::Broken(fault)) => Err(fault),
            (Ok(true), Known::Whole(file)) => Ok(file),
            (Err(fault), _) => Err(UploadFault::Store(fault)),
            (Ok(_), _) => {
                let why = "the file was put there in part".to_owned();
                Err(UploadFault::Store(DriverFault::Unexpected(why)))
            }
        }
    }

    /// Carries an order of an image out; none while something still needs the file.
    pub(crate) async fn work_image(
        &self,
        id: &str,
        out: &Outstanding<Value>,
    ) -> Result<Option<Report>, DriverFault> {
        let unread = |fault: LoadFault| DriverFault::Transient(chain(&fault));
        let unlisted = |fault: ViewFault| DriverFault::Transient(chain(&fault));
        let order: Order = serde_json::from_value(out.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let (_, image) = self.typed::<Image>(id).await.map_err(unread)?;
        let Some(store) = image.store() else { return Ok(None) };
        let id: Uuid = id.parse().unwrap_or_default();
        if order == (Order::Make {}) {
            let found = image.definition.and_then(|one| one.found);
            let found = found.ok_or_else(|| DriverFault::Unexpected("no backup".to_owned()))?;
            return self.make_image(id, &found, out.number).await;
        }
        let is_disc = image.definition.as_ref().is_some_and(|one| one.format == Format::Iso);
        if self.needs_image(id, is_disc).await.map_err(unlisted)? {
            return Ok(None);
        }
        let (_, state) = self.typed::<BackupStore>(&store.to_string()).await.map_err(unread)?;
        let access = self.store_access(store, &state, None).map_err(unread)?;
        self.ports.backups.remove_image(&access, id).await?;
        Ok(Some(Report { verb: "confirm-removal", body: json!({"number": out.number}) }))
    }

    /// Makes an image's file from its backup; none while that is being taken. Done again, it is the same file.
    async fn make_image(
        &self,
        id: Uuid,
        found: &Found,
        number: u64,
    ) -> Result<Option<Report>, DriverFault> {
        let unread = |fault: LoadFault| DriverFault::Transient(chain(&fault));
        let backup = self.typed::<Backup>(&found.backup.to_string()).await.map_err(unread)?.1;
        // One that is parked is its own to go on with, or to be given up.
        if backup.made.is_none() && !backup.removed {
            return Ok(None);
        }
        let made = backup.ensure_whole().map_err(|no| DriverFault::Rejected(no.detail))?;
        let (_, state) =
            self.typed::<BackupStore>(&found.store.to_string()).await.map_err(unread)?;
        let access = self.store_access(found.store, &state, None).map_err(unread)?;
        let of = (backup.disk, found.backup, made.digest.as_str());
        let (sha256, size_bytes) = self.ports.backups.make_image(&access, id, of).await?;
        let file = Uploaded { size_bytes, disk_bytes: made.size_bytes };
        let body = json!({"number": number, "sha256": sha256, "file": file});
        Ok(Some(Report { verb: "confirm-made", body }))
    }

    /// Whether a server's order that is out, parked or not, may still fetch an image, and of a disc whether
    /// one has it in its drive: it takes the disc along to another host. No further order is given with an
    /// image that is retired.
    async fn needs_image(&self, image: Uuid, is_disc: bool) -> Result<bool, ViewFault> {
        let head = self.ports.log.head().await.map_err(ViewFault::Store)?.position;
        self.ports.views.reach_position(head, PATIENCE).await?;
        let mut query = Query::all().with("kind", Server::KIND);
        if is_disc {
            query = query.with("gone", false);
        } else {
            query.filters.push(Filter {
                column: "order_state".to_owned(),
                op: Op::In,
                values: ["pending", "parked"].map(|state| Cell::Text(state.to_owned())).into(),
            });
        }
        let image = json!(image);
        let (rows, _) = self.rows(query).await?;
        Ok(rows.iter().any(|row| {
            let state = &row.body["state"];
            let parts = &state["home"]["parts"];
            parts["image"]["id"] == image
                || parts["cdrom"]["image"]["id"] == image
                || state["orders"]["out"]["order"]["data"]["image"]["id"] == image
        }))
    }

    /// Lets a host fetch what lies in a store: in place of the store it is told an address that is good for
    /// this file, for some hours.
    pub(crate) async fn address_images(&self, task: &mut HostTask) -> Result<(), LoadFault> {
        let fetches = FETCHING.iter().any(|one| task.order["type"] == **one);
        if !fetches {
            return Ok(());
        }
        let parts = task.state.home.as_mut().map(|home| &mut home.parts);
        let (image, cdrom) = parts.map(|parts| (&mut parts.image, &mut parts.cdrom)).unzip();
        let disc = cdrom.and_then(Option::as_mut).and_then(|cdrom| cdrom.image.as_mut());
        for image in image.and_then(Option::as_mut).into_iter().chain(disc) {
            if let Some(address) = self.image_address(image.id, &image.source).await? {
                image.source = address;
            }
        }
        let Some(named) = task.order.pointer_mut("/data/image") else { return Ok(()) };
        let Ok(source) = serde_json::from_value::<Source>(named["source"].clone()) else {
            return Ok(());
        };
        let id = named["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        if let Some(address) = self.image_address(id, &source).await? {
            named["source"] = json!(address);
        }
        Ok(())
    }

    async fn image_address(&self, id: Uuid, source: &Source) -> Result<Option<Source>, LoadFault> {
        let Source::Store(store) = source else { return Ok(None) };
        let (_, state) = self.typed::<BackupStore>(&store.to_string()).await?;
        let access = self.store_access(*store, &state, None)?;
        let address = self.ports.backups.image_address(&access, id, ADDRESS_VALID);
        let address = address.map_err(|fault| LoadFault::Missing(fault.to_string()))?;
        Ok(Some(Source::Url(address)))
    }

    /// Removes what uploads have left in a store: what was begun long ago, and files of images that are
    /// retired.
    pub(crate) async fn sweep_images(&self, access: &StoreAccess) -> Result<(), DriverFault> {
        let unread = |fault: LoadFault| DriverFault::Transient(chain(&fault));
        for id in self.ports.backups.sweep_images(access, UPLOAD_TAKES_MAX).await? {
            let (revision, image) = self.typed::<Image>(&id.to_string()).await.map_err(unread)?;
            // One that is not known here is another installation's.
            if revision > 0 && image.retired && image.orders.out.is_none() {
                self.ports.backups.remove_image(access, id).await?;
            }
        }
        Ok(())
    }
}
