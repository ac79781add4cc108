//! Bills out as files.

use std::{io, sync::Arc};

use ::commands::{
    allocate::allocate,
    attribute::Placer,
    bill_export::{Shared, export as write, pool_shares},
    bills::Counting,
    ports::BillStore,
};
use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use bytes::Bytes;
use domain::finops::{cost::Basis, focus::Version, line::Line};
use futures::stream;
use tokio::sync::mpsc;

use crate::{
    asked::{self, Asked},
    call::{Answer, Call},
    problem::{INTERNAL, Problem},
    routes::{DRAFT, FOCUS_VERSION, RULE_SET},
};

/// Pieces of a file that wait to be sent.
const PIECES: usize = 8;

/// By which rules an export says whose lines are.
struct By {
    asked: Asked,
    basis: Basis,
    method: String,
}

/// The rules that are asked for, if any are.
async fn by(call: &Call, counting: &Counting) -> Result<Option<By>, Problem> {
    let basis = asked::basis(call)?;
    if call.params.uuid(&RULE_SET).is_none() {
        return Ok(None);
    }
    let asked = asked::whose(call, counting, &[]).await?;
    let method = match &asked.rule_set {
        Some((_, set)) if call.params.flag(&DRAFT) && set.draft.is_some() => {
            format!("{}/draft", set.name)
        }
        Some((_, set)) => format!("{}/{}", set.name, set.revision),
        None => String::new(),
    };
    Ok(Some(By { asked, basis, method }))
}

/// Writes an export to where its pieces are sent from.
fn run(
    store: &dyn BillStore,
    counting: &Counting,
    version: Version,
    by: Option<&By>,
    pieces: &mpsc::Sender<Result<Bytes, Problem>>,
) -> Result<(), Problem> {
    let mut send = |piece: Vec<u8>| pieces.blocking_send(Ok(piece.into())).is_ok();
    let Some(by) = by else {
        write(store, counting, version, None, &mut send)?;
        return Ok(());
    };
    let shares = pool_shares(allocate(store, counting, &by.asked.whose, by.basis)?.moves());
    let placer = Placer::new(&by.asked.whose, vec![])?;
    let place = |line: &Line| placer.place(line).0.centre;
    let shared = Shared { place: &place, shares: &shares, method: &by.method };
    write(store, counting, version, Some(&shared), &mut send)?;
    Ok(())
}

/// Lines as FOCUS writes them, as they are read.
pub(crate) async fn export(call: Call) -> Answer {
    let version = match call.params.text(&FOCUS_VERSION) {
        None => Version::V1_4,
        Some(name) => Version::by_name(name).ok_or_else(|| {
            let known = Version::ALL.map(Version::name).join(", ");
            Problem::parameter(FOCUS_VERSION.name, format!("is one of {known}"))
        })?,
    };
    let counting = asked::counting(&call).await?;
    let by = by(&call, &counting).await?;
    let position = counting.position;
    let store = Arc::clone(&call.service.ledger.ports.bills);
    let (sender, mut pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        if let Err(problem) = run(store.as_ref(), &counting, version, by.as_ref(), &sender) {
            let _ = sender.blocking_send(Err(problem));
        }
    });
    // What goes wrong before the first piece is an answer of its own.
    let gone = || Problem::new(&INTERNAL, "the export ended without a word");
    let first = pieces.recv().await.ok_or_else(gone)??;
    // Whoever reads a file that is cut off in the middle must not take it for the whole: the
    // connection breaks before the end is told.
    let body = stream::unfold((Some(first), pieces), |(first, mut pieces)| async move {
        let piece = match first {
            Some(first) => Ok(first),
            None => pieces.recv().await?.map_err(|problem| io::Error::other(problem.detail)),
        };
        Some((piece, (None, pieces)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("skyledger-position", HeaderValue::from(position));
    Ok(response)
}
