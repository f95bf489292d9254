//! The ordered store: one revision counter over all objects, and per kind the objects in key order and the
//! latest events, so that a watch can start at any recent revision.
//!
//! Every change takes the lock once, gets the next revision, is serialised once and, if there is a log, is
//! written to it before anyone sees it. Watchers do not queue: each remembers the revision it has reached and
//! fetches what came after, so a slow one costs nothing.

mod log;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use tokio::sync::watch;

use self::log::{Log, Record};

/// Where an object is inside its kind. Cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// One version of an object.
#[derive(Debug)]
pub struct Object {
    /// The object, its resourceVersion set.
    pub value: Value,
    /// The same as JSON text.
    pub json: Bytes,
    /// The revision at which it became so.
    pub revision: u64,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It came into being (or into view).
    Added,
    /// It changed.
    Modified,
    /// It went away (or out of view).
    Deleted,
}

impl Change {
    /// The `type` of a watch event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change, kept for watchers.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// Where.
    pub key: Key,
    /// The object after the change; for a deletion its last state, at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Event {
    /// The watch line of this event, made once however many watchers there are.
    pub fn line(&self) -> Bytes {
        self.line
            .get_or_init(|| watch_line(self.change.name(), &self.object.json))
            .clone()
    }
}

/// `{"type":…,"object":…}` and a newline.
pub fn watch_line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A create met an object of the same key.
    #[error("the object exists")]
    Exists,
    /// The object is gone or not at the expected revision.
    #[error("the object has changed")]
    Conflict,
    /// The log could not be written, so nothing changed.
    #[error("cannot write the log: {0}")]
    Log(#[from] io::Error),
}

/// The events asked for are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version, the oldest kept follows {oldest}")]
pub struct TooOld {
    /// The lowest revision from which a watch can start.
    pub oldest: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    /// Revision before which no kind has events (that of the log's snapshot).
    floor: u64,
    history: usize,
    collections: HashMap<String, Collection>,
    log: Option<Log>,
}

#[derive(Debug)]
struct Collection {
    objects: BTreeMap<Key, Arc<Object>>,
    events: VecDeque<Arc<Event>>,
    /// The revision of the last event dropped: a watch may start here or later.
    compacted: u64,
    latest: watch::Sender<u64>,
}

impl Collection {
    fn new(compacted: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            compacted,
            latest: watch::Sender::new(0),
        }
    }

    fn after(&self, revision: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, TooOld> {
        if revision < self.compacted {
            return Err(TooOld {
                oldest: self.compacted,
            });
        }
        let first = self
            .events
            .partition_point(|event| event.object.revision <= revision);
        Ok(self.events.range(first..))
    }
}

impl Store {
    /// A store that keeps `history` events per kind and, if `file` is given, writes every change there and
    /// starts with what is there.
    pub fn open(file: Option<&Path>, history: usize) -> io::Result<Self> {
        // The counter starts above 0, as 0 means "any version" in requests.
        let mut inner = Inner {
            revision: 1,
            floor: 0,
            history: history.max(1),
            collections: HashMap::new(),
            log: None,
        };
        if let Some(path) = file {
            let (log, records) = Log::open(path)?;
            for record in records {
                inner.replay(record)?;
            }
            inner.log = Some(log);
        }
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// One object.
    pub fn get(&self, collection: &str, key: &Key) -> Option<Arc<Object>> {
        self.lock()
            .collections
            .get(collection)?
            .objects
            .get(key)
            .cloned()
    }

    /// The objects of a kind, of one namespace or all, in key order, and the revision of that view.
    pub fn list(&self, collection: &str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let inner = self.lock();
        let objects = inner
            .collections
            .get(collection)
            .map(|kind| select(&kind.objects, namespace));
        (objects.unwrap_or_default(), inner.revision)
    }

    /// The same as it was at `revision`, as long as the events since then are kept.
    pub fn list_at(
        &self,
        collection: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<Arc<Object>>, TooOld> {
        let inner = self.lock();
        let Some(kind) = inner.collections.get(collection) else {
            return Ok(Vec::new());
        };
        let mut since = kind.after(revision)?.rev().peekable();
        if since.peek().is_none() {
            return Ok(select(&kind.objects, namespace));
        }
        let mut objects = kind.objects.clone();
        for event in since {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), Arc::clone(previous)),
                None => objects.remove(&event.key),
            };
        }
        Ok(select(&objects, namespace))
    }

    /// The events of a kind after `revision`, at most `limit`, and the revision the caller has then reached.
    pub fn events_after(
        &self,
        collection: &str,
        revision: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), TooOld> {
        let inner = self.lock();
        let Some(kind) = inner.collections.get(collection) else {
            return if revision < inner.floor {
                Err(TooOld {
                    oldest: inner.floor,
                })
            } else {
                Ok((Vec::new(), inner.revision.max(revision)))
            };
        };
        let events: Vec<Arc<Event>> = kind.after(revision)?.take(limit).cloned().collect();
        let reached = match events.last() {
            Some(last) if events.len() == limit => last.object.revision,
            _ => inner.revision.max(revision),
        };
        Ok((events, reached))
    }

    /// Tells of every change of a kind (by the value changing; see [`Store::events_after`]).
    pub fn subscribe(&self, collection: &str) -> watch::Receiver<u64> {
        self.lock().collection(collection).latest.subscribe()
    }

    /// Adds an object.
    pub fn create(
        &self,
        collection: &str,
        key: &Key,
        value: Value,
    ) -> Result<Arc<Object>, StoreError> {
        let mut inner = self.lock();
        if inner.collection(collection).objects.contains_key(key) {
            return Err(StoreError::Exists);
        }
        inner.commit(collection, key, Change::Added, value)
    }

    /// Replaces the object that is at revision `expected`.
    pub fn replace(
        &self,
        collection: &str,
        key: &Key,
        expected: u64,
        value: Value,
    ) -> Result<Arc<Object>, StoreError> {
        let mut inner = self.lock();
        inner.expect(collection, key, expected)?;
        inner.commit(collection, key, Change::Modified, value)
    }

    /// Removes the object that is at revision `expected`; `last` is the state to tell watchers.
    pub fn remove(
        &self,
        collection: &str,
        key: &Key,
        expected: u64,
        last: Value,
    ) -> Result<Arc<Object>, StoreError> {
        let mut inner = self.lock();
        inner.expect(collection, key, expected)?;
        inner.commit(collection, key, Change::Deleted, last)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No invariant spans a panic: a change is applied after everything that can fail.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn collection(&mut self, name: &str) -> &mut Collection {
        if !self.collections.contains_key(name) {
            self.collections
                .insert(name.to_owned(), Collection::new(self.floor));
        }
        self.collections.get_mut(name).expect("just inserted")
    }

    fn expect(&mut self, collection: &str, key: &Key, revision: u64) -> Result<(), StoreError> {
        match self.collection(collection).objects.get(key) {
            Some(object) if object.revision == revision => Ok(()),
            _ => Err(StoreError::Conflict),
        }
    }

    fn commit(
        &mut self,
        collection: &str,
        key: &Key,
        change: Change,
        mut value: Value,
    ) -> Result<Arc<Object>, StoreError> {
        let revision = self.revision + 1;
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let json = Bytes::from(value.to_string());
        if let Some(log) = &mut self.log {
            log.append(
                revision,
                collection,
                key,
                (change != Change::Deleted).then_some(&json),
            )?;
        }
        let object = Arc::new(Object {
            value,
            json,
            revision,
        });
        self.apply(collection, key, change, Arc::clone(&object));
        if self.log.as_ref().is_some_and(Log::is_due) {
            self.compact()?;
        }
        Ok(object)
    }

    fn apply(&mut self, collection: &str, key: &Key, change: Change, object: Arc<Object>) {
        self.revision = object.revision;
        let history = self.history;
        let kind = self.collection(collection);
        let previous = match change {
            Change::Deleted => kind.objects.remove(key),
            Change::Added | Change::Modified => {
                kind.objects.insert(key.clone(), Arc::clone(&object))
            }
        };
        if kind.events.len() >= history
            && let Some(dropped) = kind.events.pop_front()
        {
            kind.compacted = dropped.object.revision;
        }
        let revision = object.revision;
        kind.events.push_back(Arc::new(Event {
            change,
            key: key.clone(),
            object,
            previous,
            line: OnceLock::new(),
        }));
        kind.latest.send_replace(revision);
    }

    fn replay(&mut self, record: Record) -> io::Result<()> {
        match record {
            Record::Snapshot { revision } => {
                self.revision = revision;
                self.floor = revision;
            }
            Record::Change {
                revision,
                collection,
                key,
                object,
            } => {
                let old = self.collection(&collection).objects.get(&key).cloned();
                let (change, value) = match (object, old) {
                    (Some(value), None) => (Change::Added, value),
                    (Some(value), Some(_)) => (Change::Modified, value),
                    (None, Some(old)) => {
                        let mut value = old.value.clone();
                        value["metadata"]["resourceVersion"] = revision.to_string().into();
                        (Change::Deleted, value)
                    }
                    (None, None) => {
                        return Err(io::Error::other("the log deletes an object it never made"));
                    }
                };
                let json = Bytes::from(value.to_string());
                let object = Arc::new(Object {
                    value,
                    json,
                    revision,
                });
                if revision <= self.floor {
                    self.collection(&collection).objects.insert(key, object);
                } else {
                    self.apply(&collection, &key, change, object);
                }
            }
        }
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let live = self.collections.iter().flat_map(|(name, kind)| {
            kind.objects
                .iter()
                .map(move |(key, object)| (object.revision, name.as_str(), key, &object.json))
        });
        log.rewrite(self.revision, live)
    }
}

fn select(objects: &BTreeMap<Key, Arc<Object>>, namespace: Option<&str>) -> Vec<Arc<Object>> {
    match namespace {
        None => objects.values().cloned().collect(),
        Some(namespace) => objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
