//! PostgreSQL is stopped as by a crash and started again, under load: writers wait or are told,
//! and what was acknowledged is there, once.

use std::{collections::HashMap, path::Path, process::Command, sync::Arc, time::Duration};

use commands::ports::{AppendFault, LogFault};
use tokio::sync::Notify;

use crate::support::{key, open_patient, request, whole};

fn server(verb: &str, folder: &Path, port: u16) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postgres.sh");
    let mut command = Command::new(script);
    command.arg(verb).arg(folder);
    if verb == "start" {
        command.arg(port.to_string());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Stops the server, whatever becomes of the test.
struct Stopped<'a>(&'a Path);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postgres.sh");
        let _ = Command::new(script).arg("stop").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_and_restarted_server_loses_and_doubles_nothing() {
    const WRITERS: usize = 8;
    const RESTARTS: u32 = 3;
    let folder = tempfile::tempdir().unwrap();
    // The server's user must be able to get there.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = folder.path().join("server");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = server("start", &place, port);
    let _stopped = Stopped(&place);
    // Half of the writers wait for as long as it takes, the others are told at once.
    let log = open_patient(&url, "restarts", Duration::from_mins(2)).await;
    let hasty = open_patient(&url, "restarts", Duration::from_millis(50)).await;

    let enough = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let progress = Arc::new(Notify::new());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let log = if writer % 2 == 0 { log.clone() } else { hasty.clone() };
        let (enough, progress) = (enough.clone(), progress.clone());
        writers.spawn(async move {
            let mut acked = HashMap::new();
            let mut refused = 0_u64;
            let mut number = 1;
            while !enough.load(std::sync::atomic::Ordering::SeqCst) {
                match log.append(request(writer, number)).await {
                    Ok(appended) => {
                        acked.insert(key(writer, number), appended.last);
                        number += 1;
                    }
                    // Told that it was done after all.
                    Err(AppendFault::Repeated(answered)) => {
                        acked.insert(key(writer, number), answered.last);
                        number += 1;
                    }
                    Err(AppendFault::Fault(LogFault::Unavailable(_))) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
                progress.notify_waiters();
            }
            (writer, acked, refused)
        });
    }
    for _ in 0..RESTARTS {
        let before = log.head().await.map(|head| head.position).unwrap_or_default();
        // Until there is load again.
        loop {
            progress.notified().await;
            if log.head().await.is_ok_and(|head| head.position > before + 50) {
                break;
            }
        }
        let place = place.clone();
        tokio::task::spawn_blocking(move || {
            server("stop-now", &place, port);
            server("start", &place, port);
        })
        .await
        .unwrap();
    }
    let before = log.head().await.unwrap().position;
    loop {
        progress.notified().await;
        if log.head().await.is_ok_and(|head| head.position > before + 50) {
            break;
        }
    }
    enough.store(true, std::sync::atomic::Ordering::SeqCst);
    let written = writers.join_all().await;
    let records = whole(log.as_ref()).await;
    let mut found: HashMap<String, u64> = HashMap::new();
    for record in &records {
        let key = record.request().unwrap().key;
        assert_eq!(found.insert(key.clone(), record.position()), None, "{key} is there twice");
    }
    let mut count = 0;
    for (writer, acked, refused) in &written {
        match writer % 2 {
            0 => assert_eq!(*refused, 0, "writer {writer} waits, and is not told"),
            _ => assert!(*refused > 0, "writer {writer} does not wait, and is told"),
        }
        for (key, position) in acked {
            assert_eq!(found.get(key), Some(position), "{key} was acknowledged");
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}
