use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Any JSON, biased towards the names patches use.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..5).prop_map(Value::from),
        "[a-c~/]{0,3}".prop_map(Value::from),
        prop::sample::select(vec!["delete", "replace", "merge"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let name = prop::sample::select(vec![
            "spec",
            "metadata",
            "containers",
            "name",
            "ports",
            "containerPort",
            "finalizers",
            "$patch",
            "$retainKeys",
            "$setElementOrder/containers",
            "$setElementOrder/finalizers",
            "$deleteFromPrimitiveList/finalizers",
            "a",
            "status",
            "conditions",
            "type",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|f| Value::Object(
                f.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
            )),
        ]
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let pointer = prop_oneof![
        Just(String::new()),
        prop::collection::vec("(a|spec|containers|name|0|1|-|~0|~1|~2|)", 1..4)
            .prop_map(|steps| format!("/{}", steps.join("/"))),
        "[/a~]{0,4}",
    ];
    let op = prop::sample::select(vec![
        "add", "remove", "replace", "move", "copy", "test", "x",
    ]);
    (op, pointer.clone(), pointer, any_json()).prop_map(
        |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
    )
}

proptest! {
    #[test]
    fn no_patch_panics(kind in "(Pod|Node|Service)", a in any_json(), b in any_json(), ops in prop::collection::vec(operation(), 0..5)) {
        let _ = apply_strategic(&kind, &a, &b);
        let _ = apply_merge(&a, &b);
        let _ = apply_json(&a, &Value::from(ops));
        let _ = apply_json(&a, &b);
    }

    #[test]
    fn a_merge_patch_applied_twice_changes_nothing_more(a in any_json(), b in any_json()) {
        if let Ok(once) = apply_merge(&a, &b) {
            prop_assert_eq!(apply_merge(&once, &b).unwrap(), once);
        }
    }
}

/// The examples of RFC 7386 appendix A whose patch is an object.
#[test]
fn merge_patch_follows_the_examples_of_its_rfc() {
    for (target, patch, want) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (
            json!({"a": "b", "b": "c"}),
            json!({"a": null}),
            json!({"b": "c"}),
        ),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [{"b": "c"}]}),
            json!({"a": [1]}),
            json!({"a": [1]}),
        ),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!([1, 2]),
            json!({"a": "b", "c": null}),
            json!({"a": "b"}),
        ),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ] {
        assert_eq!(
            apply_merge(&target, &patch).unwrap(),
            want,
            "{target} + {patch}"
        );
    }
    assert!(apply_merge(&json!({}), &json!(["a"])).is_err());
}

#[test]
fn json_patch_follows_the_examples_of_its_rfc() {
    for (target, patch, want) in [
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            json!({"foo": "bar", "baz": "qux"}),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            json!({"foo": ["bar", "qux", "baz"]}),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "remove", "path": "/baz"}]),
            json!({"foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            json!({"foo": ["bar", "baz"]}),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
            json!({"baz": "boo", "foo": "bar"}),
        ),
        (
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
            json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
            json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
        ),
        (
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            json!({"foo": ["all", "cows", "eat", "grass"]}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
            json!({"foo": "bar", "child": {"grandchild": {}}}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
            json!({"foo": "bar", "baz": "qux"}),
        ),
        (
            json!({"/": 9, "~1": 10}),
            json!([{"op": "test", "path": "/~01", "value": 10}]),
            json!({"/": 9, "~1": 10}),
        ),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
            json!({"foo": ["bar", ["abc", "def"]]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "replace", "path": "", "value": {"b": 2}}]),
            json!({"b": 2}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!([{"op": "copy", "from": "/a", "path": "/c"}]),
            json!({"a": {"b": 1}, "c": {"b": 1}}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "test", "path": "/a", "value": 1.0}]),
            json!({"a": 1}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "move", "from": "/a", "path": "/a"}]),
            json!({"a": 1}),
        ),
    ] {
        assert_eq!(
            apply_json(&target, &patch).unwrap(),
            want,
            "{target} + {patch}"
        );
    }
}

#[test]
fn a_json_patch_that_does_not_fit_says_which_operation() {
    for (patch, words) in [
        (json!({"op": "add"}), "must be a list"),
        (
            json!([{"op": "add", "path": "/a"}]),
            "operation 0 has no member \"value\"",
        ),
        (json!([{"path": "/a"}]), "no string member \"op\""),
        (json!([{"op": "jump", "path": "/a"}]), "none of add"),
        (json!([{"op": "add", "path": "a", "value": 1}]), "slash"),
        (
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            "there is no \"x\"",
        ),
        (json!([{"op": "remove", "path": "/x"}]), "there is no \"x\""),
        (
            json!([{"op": "replace", "path": "/x", "value": 1}]),
            "there is no \"x\"",
        ),
        (
            json!([{"op": "add", "path": "/list/3", "value": 1}]),
            "beyond the list",
        ),
        (
            json!([{"op": "add", "path": "/list/01", "value": 1}]),
            "not an index",
        ),
        (json!([{"op": "remove", "path": "/list/-"}]), "not an index"),
        (
            json!([{"op": "test", "path": "/a", "value": "2"}]),
            "the value is 1, not \"2\"",
        ),
        (
            json!([{"op": "move", "from": "/m", "path": "/m/n"}]),
            "into itself",
        ),
        (
            json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/a"}]),
            "operation 1",
        ),
        (json!([{"op": "remove", "path": "/~2"}]), "~0 or ~1"),
    ] {
        let target = json!({"a": 1, "list": [1, 2], "m": {"n": 1}});
        let error = apply_json(&target, &patch).unwrap_err();
        assert!(error.contains(words), "{patch}: {error}");
    }
}

fn strategic(kind: &str, target: Value, patch: Value) -> Value {
    apply_strategic(kind, &target, &patch).unwrap_or_else(|e| panic!("{patch}: {e}"))
}

#[test]
fn containers_merge_by_name_and_their_lists_by_their_own_keys() {
    let pod = json!({"spec": {"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "args": ["1", "2"],
         "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "b", "image": "b:1"},
    ]}});
    let patch = json!({"spec": {"containers": [
        {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "$patch": "delete"}],
         "args": ["3"], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
        {"name": "c", "image": "c:1"},
    ]}});
    assert_eq!(
        strategic("Pod", pod, patch),
        json!({"spec": {"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}], "args": ["3"],
             "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}]},
            {"name": "b", "image": "b:1"},
            {"name": "c", "image": "c:1"},
        ]}})
    );
}

#[test]
fn maps_merge_and_null_deletes() {
    let pod =
        json!({"metadata": {"labels": {"app": "web", "tier": "x"}}, "spec": {"nodeName": "n1"}});
    let patch = json!({"metadata": {"labels": {"tier": null, "new": "1", "gone": null}}, "spec": {"nodeName": null}});
    assert_eq!(
        strategic("Pod", pod, patch),
        json!({"metadata": {"labels": {"app": "web", "new": "1"}}, "spec": {}})
    );
}

#[test]
fn directives_replace_and_delete() {
    for (target, patch, want) in [
        // a map is replaced
        (
            json!({"spec": {"nodeSelector": {"a": "1", "b": "2"}}}),
            json!({"spec": {"nodeSelector": {"$patch": "replace", "c": "3"}}}),
            json!({"spec": {"nodeSelector": {"c": "3"}}}),
        ),
        // a map is deleted
        (
            json!({"spec": {"nodeSelector": {"a": "1"}, "nodeName": "n"}}),
            json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
            json!({"spec": {"nodeName": "n"}}),
        ),
        // a keyed list is replaced
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c", "image": null}]}}),
            json!({"spec": {"containers": [{"name": "c"}]}}),
        ),
        // an element is deleted
        (
            json!({"spec": {"volumes": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"volumes": [{"$patch": "delete", "name": "a"}]}}),
            json!({"spec": {"volumes": [{"name": "b"}]}}),
        ),
        // $retainKeys: a union changes its member
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        ),
        // plain values
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["b", "c"]}}),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
            json!({"metadata": {"finalizers": ["a"]}}),
        ),
        // an unknown list is replaced
        (
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        ),
        // a new map drops its nulls
        (
            json!({}),
            json!({"spec": {"securityContext": {"runAsUser": null, "fsGroup": 1}}}),
            json!({"spec": {"securityContext": {"fsGroup": 1}}}),
        ),
    ] {
        assert_eq!(
            strategic("Pod", target.clone(), patch.clone()),
            want,
            "{target} + {patch}"
        );
    }
}

#[test]
fn set_element_order_orders_and_leaves_the_servers_own_items_in_place() {
    for (have, change, order, want) in [
        (
            json!(["a", "b", "c"]),
            json!([]),
            json!(["c", "a"]),
            vec!["b", "c", "a"],
        ),
        (
            json!(["a", "b", "c"]),
            json!(["d"]),
            json!(["c", "d", "a"]),
            vec!["b", "c", "d", "a"],
        ),
        (
            json!(["x", "a", "b"]),
            json!(["c"]),
            json!(["b", "a", "c"]),
            vec!["x", "b", "a", "c"],
        ),
        (
            json!(["a", "x", "b"]),
            json!(["n"]),
            json!(["a", "b", "n"]),
            vec!["a", "x", "b", "n"],
        ),
    ] {
        let objects = |names: &Value| -> Vec<Value> {
            names
                .as_array()
                .unwrap()
                .iter()
                .map(|n| json!({"name": n}))
                .collect()
        };
        let patch = json!({"spec": {"$setElementOrder/containers": objects(&order), "containers": objects(&change)}});
        let result = strategic(
            "Pod",
            json!({"spec": {"containers": objects(&have)}}),
            patch,
        );
        let names: Vec<&str> = result["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, want, "{have} + {change} by {order}");
    }
    // without items in the patch, the order alone
    let result = strategic(
        "Pod",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"]}}),
    );
    assert_eq!(result, json!({"metadata": {"finalizers": ["b", "a"]}}));
}

#[test]
fn other_kinds_have_their_keys() {
    for (kind, target, patch, want) in [
        (
            "Service",
            json!({"spec": {"ports": [{"port": 80, "name": "a"}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "a", "targetPort": 8080}, {"port": 81}]}}),
        ),
        (
            "Node",
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "1"}, {"type": "Hostname", "address": "n"}]}}),
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "2"}]}}),
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "2"}, {"type": "Hostname", "address": "n"}]}}),
        ),
        (
            "Pod",
            json!({"status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"status": {"podIPs": [{"ip": "fd00::1"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
        (
            "NetworkPolicy",
            json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}}),
            json!({"spec": {"ingress": [{}]}}),
            json!({"spec": {"ingress": [{}]}}),
        ),
        (
            "ConfigMap",
            json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}]}}),
            json!({"metadata": {"ownerReferences": [{"uid": "2"}]}}),
            json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}, {"uid": "2"}]}}),
        ),
    ] {
        assert_eq!(
            strategic(kind, target.clone(), patch.clone()),
            want,
            "{kind}: {target} + {patch}"
        );
    }
}

#[test]
fn a_wrong_strategic_patch_names_the_place() {
    for (patch, words) in [
        (json!([]), "must be a JSON object"),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "spec.containers: {\"image\":\"x\"} does not contain the merge key \"name\"",
        ),
        (
            json!({"spec": {"$patch": "shake"}}),
            "spec: unknown patch directive \"shake\"",
        ),
        (
            json!({"spec": {"$odd": 1}}),
            "spec: unknown patch directive \"$odd\"",
        ),
        (json!({"spec": {"containers": ["x"]}}), "is not an object"),
        (json!({"spec": {"$retainKeys": 1}}), "must be a list"),
    ] {
        let error =
            apply_strategic("Pod", &json!({"spec": {"containers": []}}), &patch).unwrap_err();
        assert!(error.contains(words), "{patch}: {error}");
    }
}
