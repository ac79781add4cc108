//! Folders that several hosts reach, each known by the id that lies in it.
//!
//! ```text
//! <root>/skyledger-storage              its id, one line: written once, by whoever makes the storage
//! <root>/disks/<disk id>.qcow2          as in a folder of one host
//! ```
//!
//! The id is read each time: a folder that is not mounted any more has none, and nothing is written
//! where it was.

//!
//! A file server that is away keeps whoever asks for a file, for as long as it is away: that is what a mount is
//! for that loses nothing. So a folder is asked on a thread of its own and has some seconds to answer. One that has
//! not is not there for the host, and is not asked again until it has: what the host does for servers on other
//! storage goes on.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::compute::storage::StorageId;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::StorageFault;

/// The file that holds the id of a storage.
pub const MARKER: &str = "skyledger-storage";
/// The folder of its disks.
const DISKS: &str = "disks";
/// How long a folder has to answer: a file server that is there takes a thousandth of that.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folders that a host was told of.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    roots: Arc<[Root]>,
}

/// A folder that others reach as well.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    patience: Duration,
    /// The last question that had no answer in time.
    waiting: Mutex<Option<JoinHandle<()>>>,
}

impl Root {
    /// Asks for something that lies in it.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, StorageFault> {
        let silent = || StorageFault::Silent(self.path.clone());
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.as_ref().is_some_and(|task| !task.is_finished()) {
                return Err(silent());
            }
            *waiting = None;
        }
        let (say, said) = oneshot::channel();
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || drop(say.send(question(&path))));
        match timeout(self.patience, said).await {
            Ok(answer) => answer.map_err(|_| silent()),
            Err(_) => {
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
                Err(silent())
            }
        }
    }
}

impl Shared {
    /// These folders; they need not be there yet.
    ///
    /// # Errors
    /// One is not an absolute path.
    pub fn new(roots: Vec<PathBuf>) -> Result<Self, StorageFault> {
        Self::with(roots, PATIENCE)
    }

    fn with(roots: Vec<PathBuf>, patience: Duration) -> Result<Self, StorageFault> {
        if let Some(root) = roots.iter().find(|root| !root.is_absolute() || root.to_str().is_none())
        {
            let what = format!("{}: storage needs an absolute path in UTF-8", root.display());
            return Err(StorageFault::Unfit(what));
        }
        let root = |path| Root { path, patience, waiting: Mutex::default() };
        Ok(Self { roots: roots.into_iter().map(root).collect() })
    }

    /// The storages that are there now, with where they are mounted. Of two folders with one id only
    /// the first counts.
    pub async fn there(&self) -> BTreeMap<StorageId, PathBuf> {
        let mut there = BTreeMap::new();
        for root in self.roots.iter() {
            match root.ask(read).await.flatten() {
                Ok(id) => drop(there.entry(id).or_insert_with(|| root.path.clone())),
                Err(fault) => tracing::warn!(%fault, "a storage is left out"),
            }
        }
        there
    }

    /// Where a storage is mounted.
    ///
    /// # Errors
    /// It is not, now.
    pub async fn root(&self, storage: StorageId) -> Result<PathBuf, StorageFault> {
        if let Some(root) = self.there().await.remove(&storage) {
            return Ok(root);
        }
        // Which storage a folder is that does not answer, nobody knows.
        match self.roots.iter().find(|root| root.is_silent()) {
            Some(root) => Err(StorageFault::Silent(root.path.clone())),
            None => Err(StorageFault::Missing(format!("the storage {storage}"))),
        }
    }

    /// The folders of disks of all of them, mounted or not.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().map(|root| root.path.join(DISKS))
    }

    /// Which of these names there are among the disks of all of them; and a folder that does not answer, where
    /// one does not.
    pub(super) async fn find(&self, names: &[String]) -> (Vec<PathBuf>, Option<StorageFault>) {
        let (mut found, mut fault) = (Vec::new(), None);
        for root in self.roots.iter() {
            let names = names.to_vec();
            let look = move |root: &Path| {
                let paths = names.iter().map(|name| root.join(DISKS).join(name));
                let is_there = |path: PathBuf| match path.try_exists() {
                    Ok(there) => there.then_some(Ok(path)),
                    Err(error) => Some(Err(StorageFault::file("cannot look at", path)(error))),
                };
                paths.filter_map(is_there).collect::<Result<Vec<_>, _>>()
            };
            match root.ask(look).await.flatten() {
                Ok(paths) => found.extend(paths),
                Err(no) => fault = Some(no),
            }
        }
        (found, fault)
    }
}

impl Root {
    fn is_silent(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_ref().is_some_and(|task| !task.is_finished())
    }
}

/// The id of the storage that is mounted here.
///
/// # Errors
/// None is, or its id does not read.
pub fn read(root: &Path) -> Result<StorageId, StorageFault> {
    let marker = root.join(MARKER);
    let text = match std::fs::read_to_string(&marker) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StorageFault::Missing(marker.display().to_string()));
        }
        text => text.map_err(StorageFault::file("cannot read", &marker))?,
    };
    let id = text.trim().parse();
    id.map_err(|_| StorageFault::Unfit(format!("{}: is no id, one UUID", marker.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_what_the_id_in_it_says_and_nothing_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let shared = Shared::new(vec![one.clone(), other.clone()]).unwrap();
        assert!(shared.there().await.is_empty(), "neither is mounted");
        for root in [&one, &other] {
            std::fs::create_dir(root).unwrap();
        }
        assert!(shared.there().await.is_empty(), "neither is a storage");
        let id = "01990000-0000-7000-8000-0000000000aa";
        std::fs::write(one.join(MARKER), format!("{id}\n")).unwrap();
        std::fs::write(other.join(MARKER), "not an id").unwrap();
        let storage: StorageId = id.parse().unwrap();
        assert_eq!(shared.there().await, [(storage, one.clone())].into());
        assert_eq!(shared.root(storage).await.unwrap(), one);
        std::fs::write(other.join(MARKER), id).unwrap();
        assert_eq!(shared.there().await, [(storage, one.clone())].into(), "it is the same");
        std::fs::remove_file(one.join(MARKER)).unwrap();
        assert_eq!(shared.root(storage).await.unwrap(), other);
        std::fs::remove_file(other.join(MARKER)).unwrap();
        let fault = shared.root(storage).await.unwrap_err();
        assert_eq!(fault.to_string(), format!("the storage {id} is not there"));
        assert!(Shared::new(vec!["nfs".into()]).is_err());
    }

    #[tokio::test]
    async fn one_that_does_not_answer_keeps_nobody_and_is_there_again_when_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let [dead, alive] = ["dead", "alive"].map(|name| folder.path().join(name));
        let ids: [StorageId; 2] = [1, 2].map(|id| StorageId::new(uuid::Uuid::from_u128(id)));
        for root in [&dead, &alive] {
            std::fs::create_dir(root).unwrap();
        }
        std::fs::write(alive.join(MARKER), ids[1].to_string()).unwrap();
        // Who reads a pipe waits for who writes it, as who asks a file server that is away.
        let pipe = dead.join(MARKER);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let patience = Duration::from_millis(200);
        let shared = Shared::with(vec![dead.clone(), alive.clone()], patience).unwrap();
        assert_eq!(shared.there().await, [(ids[1], alive.clone())].into());
        let again = std::time::Instant::now();
        assert_eq!(shared.there().await, [(ids[1], alive.clone())].into());
        let fault = shared.root(ids[0]).await.unwrap_err();
        assert!(again.elapsed() < patience, "it is not asked a second time");
        assert!(matches!(fault, StorageFault::Silent(_)), "{fault}");
        assert_eq!(shared.find(&["x".to_owned()]).await.1.unwrap().to_string(), fault.to_string());

        // It answers what was asked before; then it is what it was.
        std::fs::rename(&pipe, pipe.with_extension("old")).unwrap();
        std::fs::write(&pipe, ids[0].to_string()).unwrap();
        std::fs::write(pipe.with_extension("old"), ids[0].to_string()).unwrap();
        while shared.there().await.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shared.root(ids[0]).await.unwrap(), dead);
    }
}
