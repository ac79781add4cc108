//! Commands on a store without a server: check, export, import, replay, rebuild.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    time::Instant,
};

use adapters_console::{exit::Exit, format, progress::Progress, show, style::Style};
use adapters_keys::{read_verifier_key, verify_signature};
use anyhow::Context;
use commands::{
    ports::{LogFault, Verified, ViewFault},
    transfer::{self, Lines, TransferFault, Writer},
};
use domain::log::hex;
use projections::views::VIEWS;

use super::{
    Failure,
    grammar::{Export, Import, Place, Rebuild, Replay},
};
use crate::{compose, config::Config, store};

/// A server's configuration, with what the command line says instead.
fn config_of(place: &Place) -> Result<Config, Failure> {
    let mut config = match &place.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config.data = place.data.clone().unwrap_or(config.data);
    config.store = place.store.clone().unwrap_or(config.store);
    config.check()?;
    Ok(config)
}

/// As [`config_of`], for a data folder that must be there: upkeep makes none.
pub(super) fn existing(place: &Place) -> Result<Config, Failure> {
    let config = config_of(place)?;
    if !config.data.join("keys").is_dir() {
        let text = format!(
            "{} is not a server's data folder: it has no keys\n  \
             hint: name it with --data, or with --config a file that does",
            config.data.display()
        );
        return Err(Failure::new(Exit::NotFound, text));
    }
    Ok(config)
}

fn damaged(fault: LogFault) -> Failure {
    let exit =
        if matches!(fault, LogFault::Corrupt { .. }) { Exit::Unverified } else { Exit::Fault };
    Failure::new(exit, fault.to_string())
}

pub(super) async fn check(place: Place) -> Result<Exit, Failure> {
    let config = existing(&place)?;
    let store = match store::open(&config).await {
        Ok(store) => store,
        Err(error) => {
            return Err(match error.downcast_ref::<LogFault>() {
                Some(LogFault::Corrupt { .. }) => {
                    Failure::new(Exit::Unverified, format!("{error:#}"))
                }
                _ => error.into(),
            });
        }
    };
    let total = store.log().head().await.map_err(damaged)?.position;
    let (began, bar) = (Instant::now(), Progress::bar("checking records", total));
    let head = store.check(&|position| bar.at(position)).await.map_err(damaged)?;
    bar.done();
    println!(
        "{} {} records, root {}, in {:.1?}",
        Style::stdout().green("sound:"),
        head.position,
        hex(&head.frontier.root()),
        began.elapsed()
    );
    Ok(Exit::Ok)
}

pub(super) async fn export(export: Export) -> Result<Exit, Failure> {
    let config = existing(&export.place)?;
    let keys =
        adapters_keys::Keys::open_or_create(&config.data.join("keys")).context("the keys")?;
    let store = store::open(&config).await?;
    let total = store.log().head().await.map_err(damaged)?.position;
    let bar = Progress::bar("exporting records", total);
    let progress = |done, _| bar.at(done);
    let log = store.log();
    let written = match &export.output {
        None => {
            let mut sink = Writer(std::io::stdout());
            transfer::export(log.as_ref(), &keys.signer, &mut sink, &progress).await
        }
        Some(path) => {
            // Whole or not at all: what was half written never has the name.
            let half = path.with_extension("part");
            let file = File::create(&half).with_context(|| half.display().to_string())?;
            let mut sink = Writer(BufWriter::new(file));
            let head = transfer::export(log.as_ref(), &keys.signer, &mut sink, &progress).await;
            if head.is_ok() {
                sink.0.flush()?;
                sink.0.get_ref().sync_all()?;
                std::fs::rename(&half, path)?;
            }
            head
        }
    };
    let head = written.map_err(transferred)?;
    bar.done();
    eprintln!("exported {} records, root {}", head.head.size, hex(&head.head.root));
    Ok(Exit::Ok)
}

fn transferred(fault: TransferFault) -> Failure {
    let exit = match &fault {
        TransferFault::Refused(_) | TransferFault::Changed(_) => Exit::Unverified,
        TransferFault::Log(LogFault::Corrupt { .. }) => Exit::Unverified,
        TransferFault::NotEmpty(_) => Exit::Stale,
        _ => Exit::Fault,
    };
    Failure::new(exit, format!("{:#}", anyhow::Error::from(fault)))
}

pub(super) async fn import(import: Import) -> Result<Exit, Failure> {
    let config = config_of(&import.place)?;
    let key = match &import.key {
        Some(path) => Some((
            read_verifier_key(path).map_err(|fault| Failure::usage(fault.to_string()))?,
            verify_signature as domain::log::Check,
        )),
        None => None,
    };
    let file = File::open(&import.file)
        .map_err(|error| Failure::usage(format!("{}: {error}", import.file.display())))?;
    let store = store::open(&config).await?;
    let bar = Progress::count("verifying the export");
    let mut source = Lines(BufReader::new(file));
    let progress = |done, total| {
        if let Some(total) = total {
            bar.to("importing records", total);
        }
        bar.at(done);
    };
    let done = transfer::import(store.log().as_ref(), &mut source, key, &progress)
        .await
        .map_err(transferred)?;
    bar.done();
    println!("imported up to position {}, root {}", done.position, done.root);
    Ok(Exit::Ok)
}

fn view_fault(fault: ViewFault) -> Failure {
    match fault {
        ViewFault::Query(text) => Failure::usage(text),
        other => Failure::new(Exit::Fault, format!("{:#}", anyhow::Error::from(other))),
    }
}

/// The views have seen everything; after an import that takes as long as to build them.
async fn caught_up(opened: &compose::Opened) -> Result<u64, Failure> {
    let bar = Progress::count("views follow the log");
    let progress = |done, total| {
        bar.to("views follow the log", total);
        bar.at(done);
    };
    let head = compose::caught_up(opened, &progress).await?;
    bar.done();
    Ok(head)
}

pub(super) async fn replay(replay: Replay) -> Result<Exit, Failure> {
    let config = existing(&replay.place)?;
    let opened = compose::open(&config).await?;
    let head = caught_up(&opened).await?;
    let mut all: Vec<Verified> = Vec::new();
    let began = Instant::now();
    for view in VIEWS {
        let bar = Progress::bar(&format!("replaying {}", view.name()), head);
        let views = opened.views.views.as_ref();
        let verified =
            views.verify(view.name(), replay.threads.into(), &|position| bar.at(position)).await;
        all.push(verified.map_err(view_fault)?);
    }
    let took = began.elapsed();
    opened.views.running.stop().await;
    let same = |one: &Verified| one.live == one.replayed;
    let out = &mut std::io::stdout();
    if replay.output.output.is_for_people() {
        let style = Style::stdout();
        let rows = all.iter().map(|one| {
            let verdict = match &one.first_difference {
                _ if same(one) => "identical".to_owned(),
                Some(key) => format!("DIFFERS at row {key}"),
                None => "DIFFERS".to_owned(),
            };
            let digest = one.live.chars().take(16).collect();
            vec![one.view.clone(), one.rows.to_string(), digest, verdict]
        });
        let table = show::grid(&["view", "rows", "digest", "replay"], rows.collect(), style);
        writeln!(out, "{}", table.trim_fmt())?;
        writeln!(out, "{head} records, {} threads, {took:.1?}", replay.threads)?;
    } else {
        let value = serde_json::to_value(&all).map_err(anyhow::Error::from)?;
        format::document(out, replay.output.output, &value)?;
    }
    Ok(if all.iter().all(same) { Exit::Ok } else { Exit::Unverified })
}

pub(super) async fn rebuild(rebuild: Rebuild) -> Result<Exit, Failure> {
    let names: Vec<&str> = VIEWS.iter().map(|view| view.name()).collect();
    let wanted = rebuild.view.replace('-', "_");
    let chosen: Vec<&str> =
        names.iter().copied().filter(|name| wanted == "all" || *name == wanted).collect();
    if chosen.is_empty() {
        let near = adapters_console::suggest::nearest(&wanted, names.iter().copied());
        let tip = near.map(|near| format!("\n\n  tip: did you mean `{near}`?")).unwrap_or_default();
        let text = format!("no view `{}`; there are {}, all{tip}", rebuild.view, names.join(", "));
        return Err(Failure::usage(text));
    }
    let opened = compose::open(&existing(&rebuild.place)?).await?;
    let head = caught_up(&opened).await?;
    for name in chosen {
        let (began, bar) = (Instant::now(), Progress::bar(&format!("building {name}"), head));
        let views = opened.views.views.as_ref();
        views.rebuild(name, &|position| bar.at(position)).await.map_err(view_fault)?;
        bar.done();
        println!("{name}: built anew from {head} records in {:.1?}", began.elapsed());
    }
    opened.views.running.stop().await;
    Ok(Exit::Ok)
}
