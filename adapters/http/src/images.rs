//! Files of images, as they come.

use std::{io, sync::PoisonError, time::Duration};

use ::commands::{
    images::{Taken, UploadFault},
    ports::DriverFault,
};
use axum::{
    body::Body,
    http::{StatusCode, header},
};
use futures::{StreamExt, stream};
use serde_json::json;

use crate::{
    call::{Answer, Call, answer, at_position},
    problem::{INTERNAL, INVALID_PARAMETER, Problem, REQUEST_TIMEOUT, STORE_UNAVAILABLE},
};

/// The next piece of a file must have come by then.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);
/// How a piece that did not come in time is told.
const LATE: &str = "no more of the file came in time";

impl From<UploadFault> for Problem {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::Refused(refusal) => refusal.into(),
            UploadFault::CutOff(why) if why == LATE => Self::new(&REQUEST_TIMEOUT, LATE),
            UploadFault::CutOff(why) => {
                Self::new(&INVALID_PARAMETER, format!("the file was cut off: {why}"))
            }
            UploadFault::Store(DriverFault::Denied(why)) => {
                Self::new(&STORE_UNAVAILABLE, format!("the store does not let us: {why}"))
            }
            UploadFault::Store(fault) => Self::new(&STORE_UNAVAILABLE, fault.to_string()),
            UploadFault::Load(fault) => fault.into(),
            UploadFault::Submit(fault) => fault.into(),
        }
    }
}

/// Takes an image's file in.
pub(crate) async fn upload(mut call: Call) -> Answer {
    let id = call.id()?;
    let service = call.service.clone();
    // Each has a part of its file in memory.
    let slot = service.uploads.clone().try_acquire_owned().map_err(|_| Problem::overloaded())?;
    let size = call.headers.get(header::CONTENT_LENGTH);
    let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
    let body = std::mem::take(call.body.get_mut().unwrap_or_else(PoisonError::into_inner));
    let by = call.principal.clone();
    // Apart: when the sender is gone nobody waits for this any more, and what it has begun is still to
    // be cleared up.
    let upload = tokio::spawn(async move {
        let _slot = slot;
        service.ledger.upload_image(&by, id, size, pieces(body).boxed()).await
    });
    let Taken { file, outcome } =
        upload.await.map_err(|error| Problem::new(&INTERNAL, error.to_string()))??;
    let repeated = outcome.is_none();
    let status = outcome.as_ref().map_or("defined", |outcome| outcome.status);
    let body = json!({
        "kind": "image", "id": id, "status": status, "file": file, "repeated": repeated,
        "position": outcome.as_ref().map(|outcome| outcome.position),
        "revision": outcome.as_ref().map(|outcome| outcome.revision),
    });
    let response = answer(StatusCode::OK, &body);
    Ok(match outcome {
        Some(outcome) => at_position(response, outcome.position),
        None => response,
    })
}

/// What comes of a body, until it ends, breaks off, or nothing comes for too long. No more of it is read
/// than is asked for.
fn pieces(body: Body) -> impl stream::Stream<Item = io::Result<Vec<u8>>> + Send {
    stream::unfold(Some(body.into_data_stream()), |body| async {
        let mut body = body?;
        match tokio::time::timeout(PIECE_PATIENCE, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece.into()), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, LATE)), None)),
        }
    })
}
