use std::fs;
use std::io::Write;

use serde_json::json;

use super::*;

fn object(name: &str, data: u64) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn names(objects: &[Arc<Object>]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object.value["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[test]
fn orders_all_changes_by_one_counter() {
    let store = Store::open(None, 100).unwrap();
    let (a, b) = (Key::new("x", "a"), Key::new("y", "b"));
    let first = store.create("pods", &a, object("a", 1)).unwrap();
    let second = store.create("nodes", &b, object("b", 1)).unwrap();
    let third = store
        .replace("pods", &a, first.revision, object("a", 2))
        .unwrap();
    assert!(first.revision < second.revision && second.revision < third.revision);
    assert!(matches!(
        store.create("pods", &a, object("a", 3)),
        Err(StoreError::Exists)
    ));
    assert!(matches!(
        store.replace("pods", &a, first.revision, object("a", 3)),
        Err(StoreError::Conflict)
    ));
    assert_eq!(store.revision(), third.revision);
    assert_eq!(
        third.value["metadata"]["resourceVersion"],
        third.revision.to_string()
    );
    let (events, reached) = store.events_after("pods", first.revision, 100).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].change, reached),
        (Change::Modified, third.revision)
    );
    assert_eq!(
        events[0].previous.as_ref().unwrap().revision,
        first.revision
    );
}

#[test]
fn lists_the_past_while_it_is_kept() {
    let store = Store::open(None, 3).unwrap();
    let a = Key::new("x", "a");
    let made = store.create("pods", &a, object("a", 1)).unwrap();
    store
        .create("pods", &Key::new("y", "b"), object("b", 1))
        .unwrap();
    let at = store.revision();
    store
        .remove("pods", &a, made.revision, object("a", 1))
        .unwrap();
    store
        .create("pods", &Key::new("x", "c"), object("c", 1))
        .unwrap();
    assert_eq!(names(&store.list("pods", None).0), ["c", "b"]);
    assert_eq!(names(&store.list("pods", Some("x")).0), ["c"]);
    assert_eq!(names(&store.list_at("pods", None, at).unwrap()), ["a", "b"]);
    assert!(store.list_at("pods", None, made.revision - 1).is_err());
    assert!(store.events_after("pods", made.revision - 1, 10).is_err());
    assert_eq!(
        store
            .events_after("pods", made.revision, 10)
            .unwrap()
            .0
            .len(),
        3
    );
}

#[test]
fn limited_events_go_on_where_they_ended() {
    let store = Store::open(None, 100).unwrap();
    for n in 0..10 {
        store
            .create("pods", &Key::new("x", format!("p{n}")), object("p", n))
            .unwrap();
    }
    let (mut reached, mut seen) = (0, 0);
    loop {
        let (events, next) = store.events_after("pods", reached, 4).unwrap();
        if events.is_empty() {
            break;
        }
        seen += events.len();
        reached = next;
    }
    assert_eq!((seen, reached), (10, store.revision()));
}

#[test]
fn a_killed_store_comes_back_with_everything_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = Store::open(Some(&path), 100).unwrap();
    let a = Key::new("x", "a");
    let made = store.create("pods", &a, object("a", 1)).unwrap();
    let changed = store
        .replace("pods", &a, made.revision, object("a", 2))
        .unwrap();
    let b = Key::new("", "b");
    let gone = store.create("nodes", &b, object("b", 1)).unwrap();
    store
        .remove("nodes", &b, gone.revision, object("b", 1))
        .unwrap();
    let end = store.revision();
    drop(store);
    // What a kill in the middle of a write leaves.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"rev\":99,\"in\":\"po").unwrap();

    let store = Store::open(Some(&path), 100).unwrap();
    assert_eq!(store.revision(), end);
    assert_eq!(store.get("pods", &a).unwrap().json, changed.json);
    assert!(store.get("nodes", &b).is_none());
    let (events, _) = store.events_after("pods", made.revision, 10).unwrap();
    assert_eq!(events.len(), 1, "a watch goes on over the restart");
    let next = store.create("nodes", &b, object("b", 3)).unwrap();
    assert_eq!(next.revision, end + 1);
    drop(store);
    let store = Store::open(Some(&path), 100).unwrap();
    assert_eq!(
        store.get("nodes", &b).unwrap().revision,
        end + 1,
        "the torn line is cut off"
    );
}

#[test]
fn a_rewritten_log_keeps_objects_and_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = Store::open(Some(&path), 100).unwrap();
    let a = Key::new("x", "a");
    let filler = "x".repeat(1 << 16);
    let mut at = store.create("pods", &a, object("a", 0)).unwrap().revision;
    for _ in 0..200 {
        let value = json!({"metadata": {"name": "a"}, "data": filler});
        at = store.replace("pods", &a, at, value).unwrap().revision;
    }
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 6 << 20, "{size} bytes for one object");
    drop(store);
    let store = Store::open(Some(&path), 100).unwrap();
    assert_eq!(store.revision(), at);
    assert_eq!(store.get("pods", &a).unwrap().revision, at);
    assert!(
        store.events_after("pods", 2, 10).is_err(),
        "what the snapshot swallowed is gone"
    );
    assert!(store.events_after("nodes", 2, 10).is_err());
}

#[test]
fn refuses_a_damaged_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::write(&path, "{\"rev\":2,\"in\":\"pods\n{}\n").unwrap();
    let error = Store::open(Some(&path), 100).unwrap_err();
    assert!(error.to_string().contains("damaged at byte 0"), "{error}");
}
