//! What a change of each field of the file, or of the custom resource with the same field, costs a session: tested here
//! field by field, and shown as a table in docs/bgp.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{Cost, PeerChange, diff};
use crate::config::Config;
use crate::config::file::{parse, schema};

/// What a row of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Costs {
    /// To the session with the peer.
    Of(Cost),
    /// It is another peer then.
    OtherPeer,
}

const NOTHING: Costs = Costs::Of(Cost::Nothing);
const ROUTES: Costs = Costs::Of(Cost::Routes);
const SESSION: Costs = Costs::Of(Cost::Session);

/// A field, what it is before (null: not there) and after, and what the change costs.
type Row = (&'static str, Value, Value, Costs);

fn speaker_rows() -> Vec<Row> {
    let none = || Value::Null;
    vec![
        ("asNumber", json!(65001), json!(65003), SESSION),
        ("routerID", json!("192.0.2.1"), json!("192.0.2.9"), SESSION),
        ("clusterID", none(), json!("244.0.0.1"), ROUTES),
        ("listenPort", none(), json!(1179), NOTHING),
        ("holdTimeSeconds", none(), json!(30), SESSION),
        ("keepaliveSeconds", none(), json!(5), SESSION),
        ("import", none(), json!({"ranges": ["0.0.0.0/0"]}), ROUTES),
        ("multipath", none(), json!(2), ROUTES),
        ("requirePolicy", none(), json!(true), ROUTES),
        ("selectionDeferralTime", none(), json!("1s"), NOTHING),
        (
            "communities",
            json!([{"name": "a", "value": "1:1"}]),
            json!([{"name": "a", "value": "1:2"}]),
            ROUTES,
        ),
        (
            "prefixAdvertisements",
            none(),
            json!([{"cidr": "10.0.0.0/8", "communities": ["1:1"]}]),
            ROUTES,
        ),
        (
            "bmpStations",
            none(),
            json!([{"name": "a", "address": "192.0.2.8:11019"}]),
            NOTHING,
        ),
        ("pools", none(), json!([{"cidr": "10.0.0.0/8"}]), ROUTES),
        ("origins", none(), json!(["10.0.0.0/24"]), ROUTES),
        (
            "filters",
            none(),
            json!([{"name": "b", "importV4": [{"action": "Reject"}]}]),
            ROUTES,
        ),
        ("drain", none(), json!("Services"), ROUTES),
        ("waitForFelix", none(), json!(true), NOTHING),
    ]
}

fn peer_rows() -> Vec<Row> {
    let none = || Value::Null;
    vec![
        (
            "peerIP",
            json!("192.0.2.2"),
            json!("192.0.2.3"),
            Costs::OtherPeer,
        ),
        ("interface", none(), json!("eth0"), Costs::OtherPeer),
        (
            "peerRange",
            none(),
            json!({"cidr": "10.0.0.0/24"}),
            Costs::OtherPeer,
        ),
        ("name", none(), json!("b"), NOTHING),
        ("asNumber", json!(65002), json!(65004), SESSION),
        ("localASNumber", none(), json!(65005), SESSION),
        ("holdTime", none(), json!(30), SESSION),
        ("keepaliveTime", none(), json!("5s"), SESSION),
        ("localAddress", none(), json!("192.0.2.1"), SESSION),
        ("localPort", none(), json!(1790), SESSION),
        ("families", none(), json!(["ipv4", "ipv6"]), SESSION),
        ("passive", none(), json!(true), NOTHING),
        ("ttlSecurity", none(), json!(1), SESSION),
        ("ebgpMultihop", none(), json!(2), SESSION),
        (
            "password",
            json!({"value": "a"}),
            json!({"value": "b"}),
            NOTHING,
        ),
        ("bfd", none(), json!({}), NOTHING),
        ("maxRestartTime", none(), json!("1m"), SESSION),
        ("gracefulRestart.enabled", none(), json!(false), SESSION),
        ("gracefulRestart.staleTime", none(), json!("1m"), NOTHING),
        (
            "gracefulRestart.longLivedStaleTime",
            none(),
            json!("1h"),
            SESSION,
        ),
        ("maxPrefixes", none(), json!({"ipv4": 10}), NOTHING),
        ("numAllowedLocalASNumbers", none(), json!(1), ROUTES),
        ("nextHopMode", none(), json!("Self"), ROUTES),
        ("keepOriginalNextHop", none(), json!(true), ROUTES),
        ("filters", none(), json!(["a"]), ROUTES),
        ("addPath", none(), json!({"send": 2}), SESSION),
        ("keepRejectedRoutes", none(), json!(true), ROUTES),
        ("shutdown", none(), json!("moving"), SESSION),
        ("reachableBy", none(), json!("192.0.2.254"), NOTHING),
        ("export", none(), json!("transit"), ROUTES),
        ("import", none(), json!("all"), ROUTES),
        ("clusterID", none(), json!("244.0.0.1"), ROUTES),
        ("connect", none(), json!({"retryMaxMillis": 1000}), NOTHING),
    ]
}

/// A document with one peer, that names no filter but could, and advertises what `communities` names.
fn document() -> Value {
    json!({
        "asNumber": 65001, "routerID": "192.0.2.1",
        "peers": [{"peerIP": "192.0.2.2", "asNumber": 65002}],
        "filters": [{"name": "a", "importV4": [{"action": "Accept"}]}],
    })
}

fn config(document: &Value) -> Config {
    parse(&document.to_string())
        .unwrap_or_else(|e| panic!("{document}: {e}"))
        .config
}

/// Sets `a.b` of an object; null removes it.
fn set(object: &mut Value, path: &str, value: &Value) {
    match path.split_once('.') {
        Some((first, rest)) => {
            let mut inner = object.get(first).cloned().unwrap_or_else(|| json!({}));
            set(&mut inner, rest, value);
            object[first] = inner;
        }
        None if value.is_null() => {
            object.as_object_mut().unwrap().remove(path);
        }
        None => object[path] = value.clone(),
    }
}

fn change(old: &Value, new: &Value) -> BTreeMap<String, PeerChange> {
    diff(&config(old), &config(new))
        .into_iter()
        .map(|(key, change)| (key.to_string(), change))
        .collect()
}

#[test]
fn every_field_costs_what_the_table_says() {
    for (field, before, after, costs) in speaker_rows() {
        let mut old = document();
        if field == "communities" {
            old["prefixAdvertisements"] = json!([{"cidr": "10.0.0.0/8", "communities": ["a"]}]);
        }
        let mut new = old.clone();
        set(&mut old, field, &before);
        set(&mut new, field, &after);
        let changed = change(&old, &new);
        let cost = match changed.get("192.0.2.2") {
            None => Cost::Nothing,
            Some(PeerChange::Changed(cost)) => *cost,
            other => panic!("{field}: {other:?}"),
        };
        assert_eq!(Costs::Of(cost), costs, "{field}");
    }
    for (field, before, after, costs) in peer_rows() {
        let (mut old, mut new) = (document(), document());
        set(&mut old["peers"][0], field, &before);
        if matches!(field, "interface" | "peerRange") {
            new["peers"][0] = json!({"asNumber": 65002});
        }
        set(&mut new["peers"][0], field, &after);
        let changed = change(&old, &new);
        let found = match changed.get("192.0.2.2") {
            None => NOTHING,
            Some(PeerChange::Changed(cost)) => Costs::Of(*cost),
            Some(_) => Costs::OtherPeer,
        };
        assert_eq!(found, costs, "peers[].{field}");
    }
}

/// Names of the properties of a schema.
fn properties(schema: &Value) -> BTreeSet<String> {
    let properties = schema["properties"].as_object().unwrap();
    properties.keys().cloned().collect()
}

#[test]
fn every_field_is_in_the_table() {
    let schema: Value = serde_json::from_str(&schema::text().unwrap()).unwrap();
    let rows = |rows: Vec<Row>| -> BTreeSet<String> {
        let first = |(field, ..): Row| field.split('.').next().unwrap_or(field).to_owned();
        rows.into_iter().map(first).collect()
    };
    let mut speaker = properties(&schema);
    assert!(speaker.remove("peers"));
    assert_eq!(rows(speaker_rows()), speaker);
    let peers = &schema["properties"]["peers"]["items"];
    assert_eq!(rows(peer_rows()), properties(peers));
    let restart = properties(&peers["properties"]["gracefulRestart"]);
    let named = peer_rows().into_iter();
    let named: BTreeSet<String> = named
        .filter_map(|(field, ..)| Some(field.strip_prefix("gracefulRestart.")?.to_owned()))
        .collect();
    assert_eq!(named, restart);
}

/// The table of docs/bgp.md.
fn table() -> String {
    let words = |costs: Costs| match costs {
        Costs::Of(Cost::Nothing) => "nothing",
        Costs::Of(Cost::Routes) => "routes are judged again",
        Costs::Of(Cost::Session) => "the session",
        Costs::OtherPeer => "it is another peer",
    };
    let mut text = "| field | a change costs |\n| --- | --- |\n".to_owned();
    for (field, _, _, costs) in speaker_rows() {
        text += &format!("| `{field}` | {} |\n", words(costs));
    }
    for (field, _, _, costs) in peer_rows() {
        text += &format!("| `peers[].{field}` | {} |\n", words(costs));
    }
    text
}

#[test]
fn the_table_in_the_documentation_is_current() {
    const BEGIN: &str = "<!-- costs: written by the tests of bgpd -->\n";
    const END: &str = "<!-- end of costs -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bgp.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", table())).unwrap();
        return;
    }
    assert!(
        found == table(),
        "the table of docs/bgp.md is stale: run the tests of bgpd once with WRITE_DOCS=1"
    );
}
