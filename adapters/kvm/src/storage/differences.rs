//! A device or file becomes what another one is, by writing what differs and nothing else.
//!
//! What is the same is only read: a volume's snapshots keep a copy of everything that is written on it, also
//! of what is written as it was.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::StorageFault;

/// What is read at once, in bytes.
const PART_BYTES: usize = 4 << 20;
/// What is compared at once, and written where it differs, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Nobody waits any more: nothing is written from then on.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Writes over one what differs in the other, which is no longer, and waits until it is on the medium. Both
/// are used by nobody else.
///
/// # Errors
/// One of them cannot be read or written.
pub async fn write(from: &Path, to: &Path) -> Result<(), StorageFault> {
    let left = Arc::new(AtomicBool::new(false));
    let _waiting = Waiting(Arc::clone(&left));
    let (source, target) = (from.to_owned(), to.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        let fault = StorageFault::file("cannot read", &source);
        let from = File::open(&source).map_err(fault)?;
        let fault = || StorageFault::file("cannot write over", &target);
        let to = File::options().read(true).write(true).open(&target).map_err(fault())?;
        overwrite(&from, &to, &left).map_err(fault())
    });
    let fault = StorageFault::file("cannot write over", to);
    written.await.map_err(io::Error::other).map_err(fault)?
}

fn overwrite(from: &File, to: &File, left: &AtomicBool) -> io::Result<()> {
    let (mut new, mut old) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let mut at = 0;
    loop {
        let count = from.read_at(&mut new, at)?;
        if count == 0 {
            return to.sync_all();
        }
        to.read_exact_at(&mut old[..count], at)?;
        for (new, old) in new[..count].chunks(CHUNK_BYTES).zip(old.chunks(CHUNK_BYTES)) {
            if left.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if *new != old[..new.len()] {
                to.write_all_at(new, at)?;
            }
            at += new.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> [std::path::PathBuf; 2] {
        let [from, to] = ["from", "to"].map(|name| folder.join(name));
        let mut bytes = vec![1; PART_BYTES + CHUNK_BYTES + 512];
        std::fs::write(&to, &bytes).unwrap();
        for at in [0, CHUNK_BYTES + 3, PART_BYTES - 1, PART_BYTES, bytes.len() - 1] {
            bytes[at] = 2;
        }
        std::fs::write(&from, bytes).unwrap();
        [from, to]
    }

    #[tokio::test]
    async fn what_differs_is_written_and_what_is_longer_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = files(folder.path());
        let longer = [std::fs::read(&to).unwrap(), vec![3; 9]].concat();
        std::fs::write(&to, longer).unwrap();
        write(&from, &to).await.unwrap();
        let (is, wanted) = (std::fs::read(&to).unwrap(), std::fs::read(&from).unwrap());
        assert!(is[..wanted.len()] == wanted && is[wanted.len()..] == [3; 9]);
        std::fs::write(&to, b"short").unwrap();
        let fault = write(&from, &to).await.unwrap_err();
        assert!(fault.to_string().contains("cannot write over"), "{fault}");
    }

    #[test]
    fn nothing_is_written_when_nobody_waits_any_more_or_nothing_differs() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = files(folder.path());
        let before = std::fs::read(&to).unwrap();
        let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
        let fault = overwrite(&open(&from), &open(&to), &AtomicBool::new(true)).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::Interrupted);
        assert!(std::fs::read(&to).unwrap() == before);
        // One that cannot be written need not be.
        let same = File::open(&to).unwrap();
        overwrite(&open(&to), &same, &AtomicBool::new(false)).unwrap();
    }
}
