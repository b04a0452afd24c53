//! The file: opened, one transaction, closed. Every error is told apart by what can be done about it.

use super::record::Record;
use crate::kind::{Bounds, Stamp};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long another process may keep the file: each of ours does for one transaction.
const LOCK_WAIT: Duration = Duration::from_millis(300);
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// Memory for pages of the file, while it is open.
const PAGE_CACHE_BYTES: usize = 1 << 20;
/// A file that grew beyond this holds no more than its tables may; it isn't ours, or its free space ran away.
const FILE_BYTES_MAX: u64 = 256 << 20;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A table of one entry, so that a commit has something to write.
const SECOND_COMMIT: &str = "second-commit";

type Table<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// Why the store can't be used.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is not what we wrote.
    Corrupt(String),
    /// Another process has it.
    Locked,
    /// The file system says no.
    Unusable(String),
}

impl Trouble {
    /// What happened, to which file, and what mends it.
    pub(super) fn explain(&self, path: &Path, aside: Option<&Path>) -> String {
        let file = path.display();
        match (self, aside) {
            (Self::Corrupt(why), Some(aside)) => format!(
                "the cache file {file} was unusable ({why}) and is begun anew: nothing but time is lost; to have a look: ls -l {aside}, then rm {aside}",
                aside = aside.display()
            ),
            (Self::Corrupt(why), None) => format!(
                "the cache file {file} is unusable ({why}) and can't be moved out of the way: caches live in memory only; run: rm {file}"
            ),
            (Self::Locked, _) => format!(
                "the cache file {file} is in another process's hands: caches live in memory only; see whose: fuser -v {file}, or give another --state-dir"
            ),
            (Self::Unusable(why), _) => {
                let directory = path.parent().unwrap_or(path).display();
                format!(
                    "the cache file {file} can't be used ({why}): caches live in memory only; run: mkdir -p -m 700 {directory} && ls -ld {directory}, or give another --state-dir"
                )
            }
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match &error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            redb::Error::Io(io) if !matches!(io.kind(), InvalidData | UnexpectedEof) => {
                Self::Unusable(error.to_string())
            }
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

macro_rules! trouble_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
trouble_from!(DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// Runs `work`; redb asserts where a file makes no sense, which is as good as an error to us.
pub(super) fn guarded<R>(work: impl FnOnce() -> Result<R, Trouble>) -> Result<R, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|&text| text.to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Trouble::Corrupt(said.unwrap_or_else(|| "the store panicked".to_owned())))
    })
}

/// The file, and the sizes of its tables when they were last looked at.
pub(crate) struct Store {
    path: PathBuf,
    sizes: HashMap<String, (u64, u64)>,
}

/// One change of a batch.
pub(super) enum Change<'a> {
    Put { table: &'a str, key: &'a [u8], record: &'a Record, bounds: Bounds },
    Remove { table: &'a str, key: &'a [u8] },
}

impl Store {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), sizes: HashMap::new() }
    }

    pub(super) fn size(&self, table: &str) -> (u64, u64) {
        self.sizes.get(table).copied().unwrap_or_default()
    }

    pub(super) fn read(&self, table: &str, key: &[u8]) -> Result<Option<Record>, Trouble> {
        let Some(database) = self.open_existing()? else { return Ok(None) };
        let transaction = database.begin_read()?;
        let open = match transaction.open_table(Table::new(table)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            open => open?,
        };
        let stored = open.get(key)?;
        Ok(stored.and_then(|bytes| Record::from_bytes(table, key, bytes.value())))
    }

    pub(super) fn read_all(&mut self, table: &str) -> Result<Vec<(Vec<u8>, Record)>, Trouble> {
        let Some(database) = self.open_existing()? else { return Ok(Vec::new()) };
        let transaction = database.begin_read()?;
        let open = match transaction.open_table(Table::new(table)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            open => open?,
        };
        let records = all_of(&open, table)?;
        self.sizes.insert(table.to_owned(), (open.len()?, open.stats()?.stored_bytes()));
        Ok(records)
    }

    pub(super) fn take_all(&mut self, table: &str) -> Result<Vec<(Vec<u8>, Record)>, Trouble> {
        self.take_some(table, &[], usize::MAX)
    }

    /// Takes the longest-lived entries of a prefix out. What isn't whole is taken out, too.
    pub(super) fn take_some(
        &mut self,
        table: &str,
        prefix: &[u8],
        at_most: usize,
    ) -> Result<Vec<(Vec<u8>, Record)>, Trouble> {
        let Some(database) = self.open_existing()? else { return Ok(Vec::new()) };
        let transaction = database.begin_write()?;
        let mut taken = Vec::new();
        let size = {
            let mut open = transaction.open_table(Table::new(table))?;
            let mut broken = Vec::new();
            for entry in open.range(prefix..)? {
                let (key, bytes) = entry?;
                let key = key.value();
                match Record::from_bytes(table, key, bytes.value()) {
                    _ if !key.starts_with(prefix) => break,
                    Some(record) => taken.push((key.to_vec(), record)),
                    None => broken.push(key.to_vec()),
                }
            }
            taken.sort_by_key(|(_, record)| std::cmp::Reverse(record.expires));
            taken.truncate(at_most);
            for key in broken.iter().chain(taken.iter().map(|(key, _)| key)) {
                open.remove(key.as_slice())?;
            }
            (open.len()?, open.stats()?.stored_bytes())
        };
        // Each commit is durable when it returns. The second one overwrites the root that still knew the records, so
        // that no repair can ever go back to it.
        transaction.commit()?;
        let transaction = database.begin_write()?;
        transaction.open_table(Table::new(SECOND_COMMIT))?.insert(&[][..], &[][..])?;
        transaction.commit()?;
        self.sizes.insert(table.to_owned(), size);
        Ok(taken)
    }

    pub(super) fn add_all(
        &mut self,
        table: &str,
        records: &[(Vec<u8>, Record)],
        bounds: Bounds,
        now: Stamp,
    ) -> Result<(), Trouble> {
        let put = |(key, record)| Change::Put { table, key, record, bounds };
        let changes: Vec<_> = records.iter().map(|(key, record)| put((key, record))).collect();
        self.apply(&changes, now).map(|_| ())
    }

    /// Applies a batch in one durable transaction. Returns how many entries made room, by table.
    pub(super) fn apply(
        &mut self,
        changes: &[Change<'_>],
        now: Stamp,
    ) -> Result<HashMap<String, u64>, Trouble> {
        let database = self.open()?;
        let transaction = database.begin_write()?;
        let mut tables: HashMap<&str, Bounds> = HashMap::new();
        for change in changes {
            match *change {
                Change::Put { table, key, record, bounds } => {
                    tables.insert(table, bounds);
                    let bytes = record.to_bytes(table, key);
                    transaction.open_table(Table::new(table))?.insert(key, bytes.as_slice())?;
                }
                Change::Remove { table, key } => {
                    transaction.open_table(Table::new(table))?.remove(key)?;
                }
            }
        }
        let mut evicted = HashMap::new();
        let mut sizes = Vec::new();
        for (table, bounds) in tables {
            let mut open = transaction.open_table(Table::new(table))?;
            evicted.insert(table.to_owned(), make_room(&mut open, table, bounds, now)?);
            sizes.push((table.to_owned(), (open.len()?, open.stats()?.stored_bytes())));
        }
        transaction.commit()?;
        self.sizes.extend(sizes);
        Ok(evicted)
    }

    /// Moves the file out of the way; says where to.
    pub(super) fn set_aside(&mut self) -> Option<PathBuf> {
        self.sizes.clear();
        let mut name = self.path.file_name()?.to_owned();
        name.push(".corrupt");
        let aside = self.path.with_file_name(name);
        fs::rename(&self.path, &aside).ok()?;
        self.path.parent().and_then(|directory| File::open(directory).ok()?.sync_all().ok());
        Some(aside)
    }

    /// `None` where there is no file: a reader makes none.
    fn open_existing(&self) -> Result<Option<Database>, Trouble> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => self.open().map(Some),
        }
    }

    fn open(&self) -> Result<Database, Trouble> {
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match self.try_open() {
                Err(Trouble::Locked) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
                outcome => return outcome,
            }
        }
    }

    fn try_open(&self) -> Result<Database, Trouble> {
        let file = self.open_file().map_err(|error| Trouble::Unusable(error.to_string()))?;
        let length = file.metadata().map_or(0, |meta| meta.len());
        if length > FILE_BYTES_MAX {
            return Err(Trouble::Corrupt(format!("{length} bytes, {FILE_BYTES_MAX} at most")));
        }
        let backend = redb::backends::FileBackend::new(file)?;
        let mut builder = Database::builder();
        // A file that was altered is then an error and no panic, and what redb trusts has been checked.
        builder.set_cache_size(PAGE_CACHE_BYTES).set_check_integrity_on_open(true);
        Ok(builder.create_with_backend(backend)?)
    }

    /// Opens or makes the file for us alone; a link is not followed.
    fn open_file(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
            narrow(directory, DIRECTORY_MODE)?;
        }
        const NO_FOLLOW: i32 = 0o400_000;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(NO_FOLLOW)
            .open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        narrow(&self.path, FILE_MODE)?;
        Ok(file)
    }
}

/// Takes from others what they may do to it.
fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let now = fs::metadata(path)?.permissions().mode() & 0o777;
    if now & 0o077 == 0 { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(now & mode)) }
}

/// The records of a table that are whole.
fn all_of(
    open: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: &str,
) -> Result<Vec<(Vec<u8>, Record)>, Trouble> {
    let mut records = Vec::new();
    for entry in open.iter()? {
        let (key, bytes) = entry?;
        if let Some(record) = Record::from_bytes(table, key.value(), bytes.value()) {
            records.push((key.value().to_vec(), record));
        }
    }
    Ok(records)
}

/// Brings a table under its bounds, an eighth below, by what ends soonest; what has ended goes first.
fn make_room(
    open: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    table: &str,
    bounds: Bounds,
    now: Stamp,
) -> Result<u64, Trouble> {
    if open.len()? <= bounds.entries_max as u64 && open.stats()?.stored_bytes() <= bounds.bytes_max as u64 {
        return Ok(0);
    }
    let mut left_bytes = 0;
    let mut by_end = Vec::new();
    for entry in open.iter()? {
        let (key, bytes) = entry?;
        let size = key.value().len() + bytes.value().len();
        let record = Record::from_bytes(table, key.value(), bytes.value());
        let end = record.map(|record| record.expires).filter(|&end| end > now).unwrap_or_default();
        left_bytes += size;
        by_end.push((end, size, key.value().to_vec()));
    }
    by_end.sort_unstable();
    let (mut left, mut evicted) = (by_end.len(), 0);
    for (end, size, key) in by_end {
        let fits = left <= bounds.entries_max * 7 / 8 && left_bytes <= bounds.bytes_max * 7 / 8;
        if fits && end > Stamp::default() {
            break;
        }
        open.remove(key.as_slice())?;
        (left, left_bytes, evicted) = (left - 1, left_bytes - size, evicted + 1);
    }
    Ok(evicted)
}
