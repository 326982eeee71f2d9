//! One open store for the many verbs of a process that lives on: to open it takes longer than most
//! of what is done with it, and the last to close it folds its log.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Store, StoreError, file_of};

/// The store of a directory: opened when it is first needed, and kept open between its users.
#[derive(Debug)]
pub struct KeptStore {
    directory: PathBuf,
    idle: RefCell<Option<(FileId, Store)>>,
}

/// Device and inode.
type FileId = (u64, u64);

/// The open store, for one user at a time; another one meanwhile opens it once more.
#[derive(Debug)]
pub struct OpenStore<'k> {
    kept: &'k KeptStore,
    file: FileId,
    /// `None` only while it is dropped.
    store: Option<Store>,
}

impl KeptStore {
    pub fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            idle: RefCell::new(None),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The store, made first if need be.
    pub fn open(&self) -> Result<OpenStore<'_>, StoreError> {
        match self.open_existing()? {
            Some(store) => Ok(store),
            None => {
                let store = Store::open(&self.directory)?;
                let file = self.file()?.ok_or_else(|| {
                    StoreError::Corrupt("its file was removed as soon as it was made".into())
                })?;
                Ok(self.lend(file, store))
            }
        }
    }

    /// The store, if there is one.
    pub fn open_existing(&self) -> Result<Option<OpenStore<'_>>, StoreError> {
        let Some(file) = self.file()? else {
            return Ok(None);
        };
        let idle = self.idle.borrow_mut().take();
        // Its directory may have been removed and made anew, or a newer version have changed it.
        let store = match idle.filter(|(of, _)| *of == file) {
            Some((_, mut store)) => {
                store.migrate(&file_of(&self.directory))?;
                Some(store)
            }
            None => Store::open_existing(&self.directory)?,
        };
        Ok(store.map(|store| self.lend(file, store)))
    }

    fn lend(&self, file: FileId, store: Store) -> OpenStore<'_> {
        OpenStore {
            kept: self,
            file,
            store: Some(store),
        }
    }

    fn file(&self) -> Result<Option<FileId>, StoreError> {
        let path = file_of(&self.directory);
        match fs::metadata(&path) {
            Ok(file) => Ok(Some((file.dev(), file.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Proc { path, source }),
        }
    }
}

impl Deref for OpenStore<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store.as_ref().expect("it is there until dropped")
    }
}

impl DerefMut for OpenStore<'_> {
    fn deref_mut(&mut self) -> &mut Store {
        self.store.as_mut().expect("it is there until dropped")
    }
}

impl Drop for OpenStore<'_> {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            self.kept.idle.replace(Some((self.file, store)));
        }
    }
}
