//! Watches: the state of one stream of events, which fetches from the store what happened since it last looked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::request::{Options, Target};
use crate::status::ApiError;
use crate::store::{Change, Event, Object, TooOld, watch_line};
use crate::view::View;

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(15);
/// How long a watch lives whose client names no time.
const DEFAULT_LIFE: Duration = Duration::from_secs(1800);
/// Events fetched from the store at once.
const BATCH: usize = 500;

/// Answers a watch request.
pub fn respond(app: Arc<App>, target: Target, options: Options, view: View) -> Response<Body> {
    let watcher = Watcher::new(app, target, options, view);
    let body = Body::from_stream(stream::unfold(watcher, async |mut watcher| {
        let chunk = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watcher))
    }));
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

struct Watcher {
    app: Arc<App>,
    target: Target,
    options: Options,
    view: View,
    collection: String,
    changes: Receiver<u64>,
    catalog: Receiver<u64>,
    /// All events up to this revision are told.
    reached: u64,
    /// What to tell before the first event.
    first: Option<Bytes>,
    ends: Instant,
    next_bookmark: Instant,
    over: bool,
}

impl Watcher {
    fn new(app: Arc<App>, target: Target, options: Options, view: View) -> Self {
        let collection = target.resource.collection();
        let (changes, catalog) = (app.store.subscribe(&collection), app.registry.subscribe());
        let now = Instant::now();
        let life = options
            .timeout_seconds
            .map_or(DEFAULT_LIFE, Duration::from_secs);
        let mut watcher = Self {
            app,
            target,
            options,
            view,
            collection,
            changes,
            catalog,
            reached: 0,
            first: None,
            ends: now + life,
            next_bookmark: now + BOOKMARK_EVERY.min(life),
            over: false,
        };
        watcher.start();
        watcher
    }

    fn start(&mut self) {
        let asked = self.options.resource_version.unwrap_or(0);
        let initial = self.options.initial_events.unwrap_or(asked == 0);
        let current = self.app.store.revision();
        // A revision of the future comes from a store that is gone. Saying so at once makes clients list anew;
        // they would wait for ever otherwise.
        if asked > current {
            self.end_with(&ApiError::expired(format!(
                "too large resource version: {asked} ({current})"
            )));
        } else if initial {
            let (objects, revision) = self
                .app
                .store
                .list(&self.collection, self.target.namespace.as_deref());
            let mut lines = BytesMut::new();
            for object in objects.iter().filter(|object| self.sees(object)) {
                lines.extend_from_slice(&watch_line(
                    Change::Added.name(),
                    &self.view.object(object),
                ));
            }
            if self.options.initial_events == Some(true) && self.options.bookmarks {
                lines.extend_from_slice(&self.view.bookmark(revision, true));
            }
            self.reached = revision;
            self.first = Some(lines.freeze());
        } else {
            self.reached = if asked == 0 { current } else { asked };
        }
    }

    /// The next lines to send; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first);
        }
        while !self.over {
            self.changes.borrow_and_update();
            match self
                .app
                .store
                .events_after(&self.collection, self.reached, BATCH)
            {
                Err(TooOld { oldest }) => {
                    let message = format!("too old resource version: {} ({oldest})", self.reached);
                    self.end_with(&ApiError::expired(message));
                    return self.first.take();
                }
                Ok((events, reached)) => {
                    let is_full = events.len() == BATCH;
                    self.reached = reached;
                    let mut lines = BytesMut::new();
                    for event in &events {
                        self.tell(event, &mut lines);
                    }
                    if !lines.is_empty() {
                        return Some(lines.freeze());
                    }
                    if is_full {
                        continue;
                    }
                }
            }
            let now = Instant::now();
            if now >= self.ends {
                self.over = true;
                return self
                    .options
                    .bookmarks
                    .then(|| self.view.bookmark(self.reached, false));
            }
            if self.options.bookmarks && now >= self.next_bookmark {
                self.next_bookmark = now + BOOKMARK_EVERY;
                return Some(self.view.bookmark(self.reached, false));
            }
            tokio::select! {
                changed = self.changes.changed() => self.over = changed.is_err(),
                changed = self.catalog.changed() => {
                    self.over = changed.is_err();
                    if !self.is_served() {
                        // The kind is gone; the deletions of its objects are still to be told.
                        self.ends = now;
                    }
                }
                () = self.app.stopping.cancelled() => self.over = true,
                () = sleep_until(self.ends.min(self.next_bookmark)) => {
                    if !self.options.bookmarks {
                        self.next_bookmark = self.ends;
                    }
                }
            }
        }
        None
    }

    fn end_with(&mut self, error: &ApiError) {
        self.over = true;
        self.first = Some(watch_line("ERROR", error.to_value().to_string().as_bytes()));
    }

    fn is_served(&self) -> bool {
        let resource = &self.target.resource;
        self.app
            .registry
            .catalog()
            .find(&resource.group, &resource.version, &resource.plural)
            .is_some()
    }

    fn sees(&self, object: &Object) -> bool {
        self.options.labels.matches(&object.value) && self.options.fields.matches(&object.value)
    }

    /// Tells an event as this watcher sees it: an object that no longer fits the selectors is gone, one that
    /// fits them now is new.
    fn tell(&self, event: &Event, lines: &mut BytesMut) {
        if self
            .target
            .namespace
            .as_deref()
            .is_some_and(|namespace| namespace != event.key.namespace)
        {
            return;
        }
        if self.options.labels.is_empty() && self.options.fields.is_empty() {
            lines.extend_from_slice(&self.view.event(event));
            return;
        }
        let is_seen = event.change != Change::Deleted && self.sees(&event.object);
        let before = event
            .previous
            .as_ref()
            .filter(|previous| self.sees(previous));
        let change = match (is_seen, before) {
            (true, None) => Change::Added,
            (true, Some(_)) => Change::Modified,
            (false, Some(_)) => Change::Deleted,
            (false, None) => return,
        };
        if change == event.change {
            lines.extend_from_slice(&self.view.event(event));
        } else if let (Change::Deleted, Some(before)) = (change, before) {
            let mut last = before.value.clone();
            last["metadata"]["resourceVersion"] = event.object.revision.to_string().into();
            lines.extend_from_slice(&watch_line(change.name(), &self.view.value(&last)));
        } else {
            lines.extend_from_slice(&watch_line(change.name(), &self.view.object(&event.object)));
        }
    }
}
