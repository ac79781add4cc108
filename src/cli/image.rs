//! Images whose files are uploaded, and such as are made from disks and backups.
//!
//! A file that is uploaded is read twice: once for what it is and its digest, by which the image is described, and once
//! to be sent. So the server knows what is to come before it does, and a file that was sent half, or whose
//! answer was lost, is sent under the same image again.

use std::{io::Read, path::Path};

use adapters_console::{
    client::{Client, Command},
    exit::Exit,
    format,
    names::resolve,
    progress::Progress,
    style::Style,
};
use domain::compute::image::{
    Format,
    header::{self, Claim, Ends},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Failure,
    grammar::{Image, SaveImage, UploadImage},
};
use crate::connection::Connection;

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1 << 20;

pub(super) async fn run(command: Image, connection: &Connection) -> Result<Exit, Failure> {
    let upload = match command {
        Image::Save(save) => return self::save(save, connection).await,
        Image::Upload(upload) => upload,
    };
    let path = upload.file.display().to_string();
    let file = {
        let (path, progress) = (upload.file.clone(), Progress::count("reading"));
        let read = tokio::task::spawn_blocking(move || look(&path, &progress));
        read.await.map_err(|error| Failure::new(Exit::Fault, error.to_string()))??
    };
    let client = connection.client()?;
    let project = match &upload.project {
        Some(name) => Some(resolve(&client, "project", "projects", name, None).await?),
        None => None,
    };
    let (id, there) = match known(&client, &file.sha256, project.as_deref()).await? {
        Some((id, Known::Awaiting)) => (id, false),
        Some((id, Known::There)) => (id, true),
        Some((id, Known::Retired)) => {
            (define(&client, &upload, &file, project, Some(id)).await?, false)
        }
        None => (define(&client, &upload, &file, project, None).await?, false),
    };
    if !there {
        let cannot = |error| Failure::usage(format!("{path}: {error}"));
        let sent = tokio::fs::File::open(&upload.file).await.map_err(cannot)?;
        let progress = Progress::bar("uploading", file.size_bytes);
        let at = progress.clone();
        let uploaded = client
            .upload(&format!("/v1/images/{id}/file"), &[], sent, move |bytes| at.at(bytes))
            .await;
        progress.done();
        uploaded?;
    }
    let row = client.get(&format!("/v1/images/{id}"), &[]).await?.body;
    if upload.output.output.is_for_people() {
        let name = row["name"].as_str().unwrap_or_default();
        let what = if there { "was there already" } else { "is there" };
        println!("image {} {what}: {id}", Style::stdout().bold(name));
    } else {
        format::document(&mut std::io::stdout().lock(), upload.output.output, &row)?;
    }
    Ok(Exit::Ok)
}

/// Has an image made from a disk or a backup; what is not said of it is what its server is.
async fn save(save: SaveImage, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let row = async |kind: &str, plural: &str, name: &str| {
        let id = resolve(&client, kind, plural, name, None).await?;
        Ok::<_, Failure>(client.get(&format!("/v1/{plural}/{id}"), &[]).await?.body)
    };
    let (mut source, server) = if let Some(name) = &save.backup {
        let backup = row("backup", "backups", name).await?;
        (json!({"backup": backup["id"]}), backup["state"]["source"]["server"].clone())
    } else if let Some(name) = &save.disk {
        let disk = row("disk", "disks", name).await?;
        (json!({"disk": {"disk": disk["id"]}}), disk["state"]["home"]["server"].clone())
    } else {
        let server = row("server", "servers", save.server.as_deref().unwrap_or_default()).await?;
        let first = &server["state"]["home"]["parts"]["disks"][0]["id"];
        if first.is_null() {
            return Err(Failure::usage("the server has no disk on a host of ours"));
        }
        (json!({"disk": {"disk": first}}), server["id"].clone())
    };
    if let Some(disk) = source.get_mut("disk") {
        disk["store"] = json!(match &save.store {
            Some(name) => resolve(&client, "backup-store", "backup-stores", name, None).await?,
            None => only_store(&client).await?,
        });
    }
    let home = match server.as_str() {
        // One that is gone by now says nothing.
        Some(id) => client.get(&format!("/v1/servers/{id}"), &[]).await.map(|row| row.body),
        None => Ok(Value::Null),
    };
    let home = home.map(|row| row["state"]["home"].clone()).unwrap_or_default();
    let of =
        |said: Option<String>, known: &Value| said.or_else(|| known.as_str().map(str::to_owned));
    let architecture = of(save.architecture, &home["spec"]["architecture"]);
    let architecture = architecture.unwrap_or_else(|| "x86_64".to_owned());
    let os = of(save.os, &home["parts"]["image"]["os"]).unwrap_or_else(|| "linux".to_owned());
    let firmware = of(save.firmware, &home["parts"]["firmware"])
        .unwrap_or_else(|| usual_firmware(&architecture).to_owned());
    let body = json!({
        "name": save.name, "source": source, "architecture": architecture, "os": os,
        "firmware": firmware,
    });
    let body = body.as_object().cloned().unwrap_or_default();
    super::command::create("image", body, save.manner, connection).await
}

fn usual_firmware(architecture: &str) -> &'static str {
    if architecture == "x86_64" { "bios" } else { "uefi" }
}

/// What a file is.
struct File {
    sha256: String,
    format: Format,
    size_bytes: u64,
    disk_bytes: u64,
}

fn look(path: &Path, progress: &Progress) -> Result<File, Failure> {
    let no = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let cannot = |error: std::io::Error| no(error.to_string());
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    let size_bytes = file.metadata().map_err(cannot)?.len();
    let format_of = |claim: Claim, begin: &[u8]| match claim {
        Claim::Qcow2 => Ok(Format::Qcow2),
        Claim::Vhd => Ok(Format::Vhd),
        Claim::Vhdx => Ok(Format::Vhdx),
        Claim::Vmdk => Ok(Format::Vmdk),
        Claim::Unknown if header::is_disc(begin) => Ok(Format::Iso),
        Claim::Unknown => Ok(Format::Raw),
        Claim::Unsafe(why) => Err(no(format!("it is not taken: {why}"))),
        Claim::Other(name) => {
            let how = "convert it first: qemu-img convert -O qcow2 FILE NEW";
            Err(no(format!("it is {name}: {how}")))
        }
    };
    progress.to("reading", size_bytes);
    let mut ends = Ends::of_at_least(header::DISC_LENGTH);
    let (mut hasher, mut piece, mut done) = (Sha256::new(), vec![0; PIECE_BYTES], 0);
    loop {
        let length = file.read(&mut piece).map_err(cannot)?;
        if length == 0 {
            break;
        }
        let was_known = ends.has_begun();
        ends.take(&piece[..length]);
        if !was_known && ends.has_begun() {
            format_of(header::read(ends.begin()), ends.begin())?;
        }
        hasher.update(&piece[..length]);
        done += length as u64;
        progress.at(done);
    }
    let format = format_of(ends.claim(), ends.begin())?;
    let disk_bytes = ends.disk_bytes().unwrap_or_default();
    let sha256 = format!("{:x}", hasher.finalize());
    Ok(File { sha256, format, size_bytes: done, disk_bytes })
}

/// How far an image is that has a file's digest.
enum Known {
    Awaiting,
    There,
    Retired,
}

/// The image that this file is, if it is described already.
async fn known(
    client: &Client,
    sha256: &str,
    project: Option<&str>,
) -> Result<Option<(String, Known)>, Failure> {
    let rows = client.list("/v1/images", &[], None, |_| {}).await?.rows;
    let same = |row: &&Value| {
        let definition = &row["state"]["definition"];
        definition["sha256"] == sha256 && definition["project"].as_str() == project
    };
    let Some(row) = rows.iter().find(same) else { return Ok(None) };
    let id = row["id"].as_str().unwrap_or_default().to_owned();
    match row["status"].as_str() {
        Some("awaiting") => Ok(Some((id, Known::Awaiting))),
        Some("defined") => Ok(Some((id, Known::There))),
        Some("retired") => Ok(Some((id, Known::Retired))),
        status => {
            let status = status.unwrap_or_default();
            Err(Failure::new(Exit::Stale, format!("image {id} has this file, and is {status}")))
        }
    }
}

async fn define(
    client: &Client,
    upload: &UploadImage,
    file: &File,
    project: Option<String>,
    id: Option<String>,
) -> Result<String, Failure> {
    let store = match &upload.store {
        Some(name) => resolve(client, "backup-store", "backup-stores", name, None).await?,
        None => only_store(client).await?,
    };
    let name = upload.name.clone().unwrap_or_else(|| {
        let stem = upload.file.file_stem().unwrap_or(upload.file.as_os_str());
        stem.to_string_lossy().into_owned()
    });
    let usual = || usual_firmware(&upload.architecture).to_owned();
    let firmware = upload.firmware.clone().unwrap_or_else(usual);
    let least = file.disk_bytes.div_ceil(1 << 30).max(1);
    let body = json!({
        "name": name, "project": project, "source": {"store": store}, "sha256": file.sha256,
        "format": file.format, "size_mib": file.size_bytes.div_ceil(1 << 20),
        "architecture": upload.architecture, "os": upload.os, "firmware": firmware,
        "min_disk_gib": upload.min_disk_gib.unwrap_or(least),
    });
    let command = Command {
        plural: "images".to_owned(),
        id,
        verb: "define".to_owned(),
        body,
        ..Command::default()
    };
    let answer = client.submit(&command).await?;
    let id = answer.body["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::new(Exit::Fault, "the answer has no id"))
}

async fn only_store(client: &Client) -> Result<String, Failure> {
    let query = [("filter", "status = ready".to_owned())];
    let rows = client.list("/v1/backup-stores", &query, None, |_| {}).await?.rows;
    match rows.as_slice() {
        [one] => Ok(one["id"].as_str().unwrap_or_default().to_owned()),
        [] => Err(Failure::usage("--store: no backup store is ready; create one first")),
        _ => Err(Failure::usage("--store: there are several backup stores; name one")),
    }
}
