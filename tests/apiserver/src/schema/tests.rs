use proptest::prelude::*;
use serde_json::{Value, json};

use super::Schema;

fn parse(schema: Value) -> Schema {
    Schema::parse(&schema).unwrap_or_else(|e| panic!("{schema}: {e}"))
}

/// A schema with one field `v`.
fn with(v: Value) -> Schema {
    parse(json!({"type": "object", "properties": {"v": v}}))
}

fn errors(schema: &Schema, object: Value) -> Vec<String> {
    schema
        .validate(&object, None)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn values_are_refused_in_the_words_of_a_real_server() {
    for (schema, value, want) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            "v: Invalid value: \"string\": v in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "v: Invalid value: \"number\": v in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "object"}),
            json!(null),
            "v: Invalid value: \"null\": v in body must be of type object: \"null\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "v: Invalid value: \"boolean\": v in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "v: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            json!("A"),
            "v: Invalid value: \"A\": v in body should match '^[a-z]+$'",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "v: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            "v: Invalid value: \"a\": v in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("::1"),
            "v: Invalid value: \"::1\": v in body must be of type ipv4: \"::1\"",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "v: Invalid value: 0: v in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 10}),
            json!(11),
            "v: Invalid value: 11: v in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "v: Invalid value: 1: v in body should be greater than 1",
        ),
        (
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!(1),
            "v: Invalid value: 1: v in body should be less than 1",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "v: Invalid value: 7: v in body should be a multiple of 5",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_u64),
            "v: Invalid value: 3000000000: v in body must be of type int32: 3000000000",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
            json!([1, 2]),
            "v: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
            json!([]),
            "v: Invalid value: 0: v in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}}),
            json!([1, "x"]),
            "v[1]: Invalid value: \"string\": v[1] in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            "v[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": "x"}),
            "v[k]: Invalid value: \"string\": v[k] in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1}),
            json!({"k": 1, "l": 1}),
            "v: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
            json!({}),
            "v.a: Required value",
        ),
        (
            json!({"type": "string", "oneOf": [{"pattern": "^a"}, {"pattern": "b$"}]}),
            json!("ab"),
            "v: Invalid value: \"ab\": \"v\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"type": "string", "oneOf": [{"pattern": "^a"}]}),
            json!("b"),
            "v: Invalid value: \"b\": \"v\" must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            json!({"type": "string", "anyOf": [{"pattern": "^a"}, {"pattern": "^b"}]}),
            json!("c"),
            "v: Invalid value: \"c\": \"v\" must validate at least one schema (anyOf)",
        ),
        (
            json!({"type": "string", "not": {"pattern": "^a"}}),
            json!("a"),
            "v: Invalid value: \"a\": \"v\" must not validate the schema (not)",
        ),
    ] {
        assert_eq!(
            errors(&with(schema.clone()), json!({"v": value})),
            [want],
            "{schema} on {value}"
        );
    }
}

#[test]
fn values_that_fit_pass() {
    for (schema, value) in [
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (
            json!({"type": "string", "nullable": true, "minLength": 3}),
            json!(null),
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!(80)),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!("http"),
        ),
        (json!({"type": "string", "maxLength": 2}), json!("éé")),
        (json!({"type": "integer", "enum": [1, 2]}), json!(2.0)),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"any": [1, {}]}),
        ),
        (
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            json!([1, "x"]),
        ),
        (
            json!({"type": "string", "allOf": [{"minLength": 1}, {"maxLength": 3}]}),
            json!("ab"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"b": "x"}),
        ),
        (
            json!({"type": "string", "format": "unheard-of"}),
            json!("x"),
        ),
    ] {
        assert!(
            errors(&with(schema.clone()), json!({"v": value})).is_empty(),
            "{schema} on {value}"
        );
    }
}

#[test]
fn map_lists_tell_items_apart_by_keys_and_their_defaults() {
    let schema = with(json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "required": ["port"], "properties": {
            "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "x": {"type": "string"}}}}));
    let object = json!({"v": [{"port": 1}, {"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP", "x": "y"}]});
    assert_eq!(
        errors(&schema, object),
        ["v[2]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}"]
    );
}

#[test]
fn rules_wait_for_a_well_shaped_object() {
    let schema = with(
        json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a > 0"}]}),
    );
    assert_eq!(
        errors(&schema, json!({"v": {}})),
        [
            "v.a: Required value",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
        ]
    );
}

#[test]
fn pruning_drops_what_is_not_named_and_says_so() {
    let schema = parse(json!({"type": "object", "properties": {
    "spec": {"type": "object", "properties": {
        "a": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "integer"}}}},
        "any": {"type": "object", "additionalProperties": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"z": {"type": "integer"}}}},
        "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}}}));
    let mut object = json!({"apiVersion": "g/v1", "kind": "K",
        "metadata": {"name": "n", "labels": {"any": "thing"}, "odd": 1}, "extra": 1,
        "spec": {"a": "1", "b": 2,
            "free": {"kept": {"deep": 1}, "strict": {"x": 1, "gone": 2}},
            "map": {"k": {"y": 1, "gone": 2}}, "any": {"q": {"r": 1}},
            "list": [{"z": 1}, {"z": 2, "gone": 3}],
            "inner": {"apiVersion": "v1", "kind": "I", "metadata": {"name": "i"}, "spec": {"gone": 1}, "gone": 1}}});
    let mut dropped = schema.prune(&mut object);
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "extra",
            "metadata.odd",
            "spec.b",
            "spec.free.strict.gone",
            "spec.inner.gone",
            "spec.inner.spec.gone",
            "spec.list[1].gone",
            "spec.map.k.gone"
        ]
    );
    assert_eq!(
        object,
        json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "labels": {"any": "thing"}},
        "spec": {"a": "1", "free": {"kept": {"deep": 1}, "strict": {"x": 1}}, "map": {"k": {"y": 1}},
            "any": {"q": {"r": 1}}, "list": [{"z": 1}, {"z": 2}],
            "inner": {"apiVersion": "v1", "kind": "I", "metadata": {"name": "i"}, "spec": {}}}})
    );
}

#[test]
fn defaults_fill_absent_fields_from_the_outside_in() {
    let schema = parse(
        json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "a": {"type": "integer", "default": 1},
            "n": {"type": "integer", "nullable": true, "default": 5},
            "o": {"type": "object", "properties": {"deep": {"type": "string", "default": "d"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"q": {"type": "integer", "default": 0}}}},
            "bare": {"type": "string"},
        }}}}),
    );
    for (object, want) in [
        (json!({}), json!({"spec": {"a": 1, "n": 5}})),
        (
            json!({"spec": {"a": 2, "o": {}}}),
            json!({"spec": {"a": 2, "o": {"deep": "d"}, "n": 5}}),
        ),
        (
            json!({"spec": {"a": null, "n": null, "bare": null}}),
            json!({"spec": {"a": 1, "n": null}}),
        ),
        (
            json!({"spec": {"list": [{}, {"p": "UDP"}], "map": {"k": {}}}}),
            json!({"spec": {"list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"k": {"q": 0}}, "a": 1, "n": 5}}),
        ),
    ] {
        let mut filled = object.clone();
        schema.default(&mut filled);
        assert_eq!(filled, want, "{object}");
    }
}

#[test]
fn schemas_that_are_not_structural_are_refused_by_name() {
    for (v, words) in [
        (json!({}), ".type: Required value"),
        (
            json!({"type": "shape"}),
            ".type: Unsupported value: \"shape\"",
        ),
        (json!({"type": "array"}), ".items: Required value"),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            ".items: Forbidden",
        ),
        (
            json!({"type": "string", "pattern": "["}),
            ".pattern: Invalid value",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "mutual exclusive",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            ".uniqueItems: Forbidden",
        ),
        (json!({"$ref": "#/x"}), ".$ref: Forbidden"),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            "must only be used on arrays",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            "x-kubernetes-list-map-keys: Required value",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            "names of item properties",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "pile"}),
            "Unsupported value: \"pile\"",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            ".default: Invalid value",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            "unknown field b",
        ),
        (
            json!({"type": "string", "x-kubernetes-int-or-string": true}),
            "must be empty when x-kubernetes-int-or-string",
        ),
        (
            json!({"type": "string", "anyOf": [{"default": "x"}]}),
            "anyOf[0].default: Forbidden",
        ),
        (
            json!({"type": "string", "minLength": -1}),
            ".minLength: Invalid value",
        ),
        (
            json!({"type": "string", "nullable": "yes"}),
            ".nullable: Invalid value",
        ),
        (
            json!({"type": "string", "required": [1]}),
            ".required: Invalid value",
        ),
        (json!("x"), "must be a schema"),
    ] {
        let error = Schema::parse(&json!({"type": "object", "properties": {"v": v}})).unwrap_err();
        assert!(
            error.starts_with("openAPIV3Schema.properties[v]") && error.contains(words),
            "{v}: {error}"
        );
    }
    assert!(Schema::parse(&json!({"type": "string"})).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "object",
            "array",
            "string",
            "integer",
            "a",
            "^a$",
            "map",
            "set",
            "self == 1"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        let name = prop::sample::select(vec![
            "type",
            "properties",
            "items",
            "additionalProperties",
            "default",
            "required",
            "enum",
            "pattern",
            "oneOf",
            "anyOf",
            "not",
            "nullable",
            "minimum",
            "maxLength",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-validations",
            "rule",
            "x-kubernetes-preserve-unknown-fields",
            "a",
            "v",
            "metadata",
            "spec",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|f| Value::Object(
                f.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_object_panics(mut schema in any_json(), objects in prop::collection::vec(any_json(), 1..4)) {
        if let Value::Object(fields) = &mut schema {
            fields.insert("type".to_owned(), "object".into());
        }
        if let Ok(schema) = Schema::parse(&schema) {
            for mut object in objects {
                let old = object.clone();
                schema.prune(&mut object);
                schema.default(&mut object);
                schema.validate(&object, Some(&old));
                let once = object.clone();
                prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
                prop_assert_eq!(object, once);
            }
        }
    }

    #[test]
    fn a_fixed_schema_takes_any_object(object in any_json()) {
        let schema = parse(json!({"type": "object", "properties": {
            "a": {"type": "array", "items": {"type": "integer"}, "default": [1]},
            "v": {"type": "object", "additionalProperties": {"type": "string"}},
            "spec": {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 1}},
                "x-kubernetes-validations": [{"rule": "!has(self.a) || self.a > 0"}, {"rule": "self == oldSelf"}]}}}));
        let mut object = object;
        schema.prune(&mut object);
        schema.default(&mut object);
        schema.validate(&object, Some(&object));
    }
}
