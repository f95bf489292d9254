use proptest::prelude::*;
use serde_json::json;

use crate::schema::Schema;

/// The errors of one value `v` under one rule.
fn judge(value_schema: serde_json::Value, rule: &str, value: serde_json::Value) -> Vec<String> {
    judge_update(value_schema, json!({"rule": rule}), value, None)
}

fn judge_update(
    mut value_schema: serde_json::Value,
    rule: serde_json::Value,
    value: serde_json::Value,
    old: Option<serde_json::Value>,
) -> Vec<String> {
    value_schema["x-kubernetes-validations"] = json!([rule]);
    let schema = Schema::parse(&json!({"type": "object", "properties": {"v": value_schema}}))
        .unwrap_or_else(|e| panic!("{rule}: {e}"));
    let old = old.map(|old| json!({"v": old}));
    schema
        .validate(&json!({"v": value}), old.as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn text() -> serde_json::Value {
    json!({"type": "string"})
}

#[test]
fn rules_over_text_hold_or_fail() {
    for (value, rule, holds) in [
        ("10.0.0.0/8", "isCIDR(self)", true),
        ("10.0.0.1", "isCIDR(self)", false),
        ("10.0.0.0/08", "isCIDR(self)", false),
        ("::ffff:10.0.0.0/104", "isCIDR(self)", false),
        ("10.0.0.0/8", "cidr(self).ip().family() == 4", true),
        ("fd00::/8", "cidr(self).ip().family() == 6", true),
        ("10.0.0.0/8", "cidr(self).prefixLength() == 8", true),
        ("10.0.0.1/8", "cidr(self) == cidr(self).masked()", false),
        ("10.0.0.0/8", "cidr(self) == cidr(self).masked()", true),
        ("10.0.0.0/8", "cidr(self).containsIP('10.1.2.3')", true),
        ("10.0.0.0/8", "cidr(self).containsIP(ip('11.0.0.1'))", false),
        ("10.0.0.0/8", "cidr(self).containsIP('fd00::1')", false),
        ("10.0.0.0/8", "cidr(self).containsCIDR('10.1.0.0/16')", true),
        (
            "10.0.0.0/8",
            "cidr(self).containsCIDR(cidr('0.0.0.0/0'))",
            false,
        ),
        (
            "10.0.0.0/8",
            "cidr(self).containsCIDR(cidr('10.0.0.0/8'))",
            true,
        ),
        ("10.0.0.0/8", "string(cidr(self)) == self", true),
        ("10.0.0.1", "isIP(self)", true),
        ("010.0.0.1", "isIP(self)", false),
        ("fe80::1%eth0", "isIP(self)", false),
        ("::FFFF", "ip.isCanonical(self)", false),
        ("::ffff", "ip.isCanonical(self)", true),
        ("fd00:0::1", "ip(self) == ip('fd00::1')", true),
        ("127.0.0.1", "ip(self).isLoopback()", true),
        ("169.254.1.1", "ip(self).isLinkLocalUnicast()", true),
        ("ff02::1", "ip(self).isLinkLocalMulticast()", true),
        ("0.0.0.0", "ip(self).isUnspecified()", true),
        ("192.0.2.1", "ip(self).isGlobalUnicast()", true),
        ("fe80::1", "ip(self).isGlobalUnicast()", false),
        ("a:b", "self.split(':')[1] == 'b'", true),
        (
            "AbC",
            "self.lowerAscii() == 'abc' && self.upperAscii() == 'ABC'",
            true,
        ),
        (
            "abc",
            "self.startsWith('a') && self.endsWith('c') && self.contains('b')",
            true,
        ),
        ("abc", "self.matches('^[a-c]+$')", true),
        ("abc", "size(self) == 3 && self.size() <= 3", true),
        ("abc123", "self.find('[0-9]+') == '123'", true),
        ("a1b2", "self.findAll('[0-9]') == ['1', '2']", true),
        ("a1b2", "self.findAll('[0-9]', 1) == ['1']", true),
        ("80", "int(self) <= 65535", true),
        ("x", "self in ['x', 'y']", true),
        (" x ", "self.trim() == 'x'", true),
        ("b", "type(self) == string", true),
        (
            "a.b.c",
            "self.replace('.', '-').substring(0, 3) == 'a-b'",
            true,
        ),
        ("x", "self == 'x' ? true : false", true),
    ] {
        let errors = judge(text(), rule, json!(value));
        assert_eq!(errors.is_empty(), holds, "{rule} on {value}: {errors:?}");
        if !holds {
            assert_eq!(
                errors,
                [format!("v: Invalid value: {value:?}: failed rule: {rule}")]
            );
        }
    }
}

#[test]
fn rules_over_lists_and_objects_hold_or_fail() {
    let numbers = json!({"type": "array", "items": {"type": "integer"}});
    let object = json!({"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"}, "s": {"type": "string"},
        "kebab-case": {"type": "string"}, "namespace": {"type": "string"}, "dotted.name": {"type": "string"},
        "f": {"type": "number"}, "port": {"x-kubernetes-int-or-string": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }});
    for (schema, value, rule, holds) in [
        (&numbers, json!([1, 2, 3]), "self.all(x, x > 0)", true),
        (&numbers, json!([1, -2]), "self.all(x, x > 0)", false),
        (&numbers, json!([1, -2]), "self.exists(x, x < 0)", true),
        (&numbers, json!([1, 2]), "self.exists_one(x, x == 2)", true),
        (
            &numbers,
            json!([1, 2]),
            "self.map(x, x * 2) == [2, 4]",
            true,
        ),
        (
            &numbers,
            json!([1, 2]),
            "self.filter(x, x > 1).size() == 1",
            true,
        ),
        (
            &numbers,
            json!([1, 2]),
            "self.sum() == 3 && self.min() == 1 && self.max() == 2",
            true,
        ),
        (&numbers, json!([2, 1]), "self.isSorted()", false),
        (
            &numbers,
            json!([2, 1, 2]),
            "self.indexOf(2) == 0 && self.lastIndexOf(2) == 2 && self.indexOf(7) == -1",
            true,
        ),
        (&numbers, json!([]), "self.sum() == 0", true),
        (&object, json!({"a": 1, "b": 2}), "self.a < self.b", true),
        (
            &object,
            json!({"a": 1}),
            "!has(self.b) || self.a < self.b",
            true,
        ),
        (&object, json!({"a": 1}), "has(self.b)", false),
        (
            &object,
            json!({"kebab-case": "x", "namespace": "y", "dotted.name": "z"}),
            "self.kebab__dash__case == 'x' && self.__namespace__ == 'y' && self.dotted__dot__name == 'z'",
            true,
        ),
        (&object, json!({"f": 2}), "self.f / 4.0 == 0.5", true),
        (
            &object,
            json!({"port": 80}),
            "type(self.port) == int && self.port == 80",
            true,
        ),
        (
            &object,
            json!({"port": "http"}),
            "self.port == 'http'",
            true,
        ),
        (
            &object,
            json!({"labels": {"a-b": "c"}}),
            "self.labels['a-b'] == 'c' && 'a-b' in self.labels",
            true,
        ),
        (
            &object,
            json!({"labels": {"k": "v"}}),
            "self.labels.all(k, self.labels[k] == 'v')",
            true,
        ),
        (
            &object,
            json!({"items": [{"name": "x"}]}),
            "self.items.exists(i, i.name == 'x')",
            true,
        ),
        (
            &object,
            json!({"items": [{}]}),
            "self.items.all(i, has(i.name))",
            false,
        ),
    ] {
        let errors = judge(schema.clone(), rule, value.clone());
        assert_eq!(errors.is_empty(), holds, "{rule} on {value}: {errors:?}");
    }
}

#[test]
fn a_transition_rule_speaks_only_of_changes() {
    let rule = json!({"rule": "self == oldSelf", "message": "cannot change"});
    assert!(judge_update(text(), rule.clone(), json!("a"), None).is_empty());
    assert!(judge_update(text(), rule.clone(), json!("a"), Some(json!("a"))).is_empty());
    assert_eq!(
        judge_update(text(), rule, json!("a"), Some(json!("b"))),
        ["v: Invalid value: \"a\": cannot change"]
    );
    let optional = json!({"rule": "!oldSelf.hasValue() || oldSelf.value() != 'locked'", "optionalOldSelf": true});
    assert!(judge_update(text(), optional.clone(), json!("a"), None).is_empty());
    assert_eq!(
        judge_update(text(), optional, json!("a"), Some(json!("locked"))).len(),
        1
    );
}

#[test]
fn items_of_map_lists_are_matched_by_their_keys() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {"v": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "messageExpression": "'below ' + string(oldSelf.size)"}]},
    }}}))
    .unwrap();
    let old = json!({"v": [{"name": "a", "size": 1}, {"name": "b", "size": 5}]});
    let new = json!({"v": [{"name": "b", "size": 4}, {"name": "c", "size": 0}, {"name": "a", "size": 2}]});
    let errors = schema.validate(&new, Some(&old));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(
        errors[0].to_string(),
        "v[0]: Invalid value: \"object\": below 5"
    );
}

#[test]
fn message_reason_and_field_path_are_the_authors() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "object", "properties": {"c-d": {"type": "string"}}}},
        "x-kubernetes-validations": [
            {"rule": "self.a > 5", "message": "a is too small", "reason": "FieldValueForbidden", "fieldPath": ".a"},
            {"rule": "self.a > 6", "messageExpression": "'a is ' + string(self.a)", "fieldPath": ".b['c-d']"},
            {"rule": "self.a > 7", "messageExpression": "self.b.c__dash__d", "message": "second choice"},
        ]}}}))
    .unwrap();
    let errors: Vec<String> = schema
        .validate(&json!({"spec": {"a": 1}}), None)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "spec.a: Forbidden: a is too small",
            "spec.b.c-d: Invalid value: \"object\": a is 1",
            "spec: Invalid value: \"object\": second choice",
        ]
    );
}

#[test]
fn an_object_shows_its_name_to_rules_at_its_root() {
    let schema = Schema::parse(&json!({"type": "object",
        "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "x-kubernetes-validations": [{"rule": "self.metadata.name == 'default'", "message": "name it default"}]}))
    .unwrap();
    let object = |name: &str| json!({"apiVersion": "x/v1", "kind": "K", "metadata": {"name": name}, "spec": {}});
    assert!(schema.validate(&object("default"), None).is_empty());
    assert_eq!(
        schema.validate(&object("other"), None)[0].to_string(),
        "<nil>: Invalid value: \"object\": name it default"
    );
}

#[test]
fn a_rule_that_fails_to_run_is_an_error_not_a_pass() {
    let errors = judge(text(), "cidr(self).prefixLength() > 8", json!("banana"));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("banana") && errors[0].contains("evaluating rule"),
        "{errors:?}"
    );
    let list = json!({"type": "array", "items": {"type": "integer"}});
    assert_eq!(judge(list, "self[5] == 1", json!([1])).len(), 1);
}

#[test]
fn rules_that_cannot_work_are_refused_with_the_definition() {
    let object = json!({"type": "object", "properties": {
        "a": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}}}});
    for (rule, words) in [
        (
            json!({"rule": "self.a >"}),
            "rule: Invalid value: \"self.a >\": compilation failed",
        ),
        (json!({"rule": ""}), "rule: Required value"),
        (json!({}), "rule: Required value"),
        (json!({"rule": "self.zzz == 1"}), "undefined field 'zzz'"),
        (
            json!({"rule": "self.l.all(x, x.name == 'a')"}),
            "type 'string' does not support field selection",
        ),
        (json!({"rule": "has(self.zzz)"}), "undefined field 'zzz'"),
        (
            json!({"rule": "slef.a == 1"}),
            "undeclared reference to 'slef'",
        ),
        (
            json!({"rule": "frobnicate(self.a)"}),
            "undeclared reference to 'frobnicate'",
        ),
        (
            json!({"rule": "self.s.frobnicate()"}),
            "undeclared reference to 'frobnicate'",
        ),
        (
            json!({"rule": "self.a"}),
            "must evaluate to a bool, not to int",
        ),
        (
            json!({"rule": "self.a == 'x'"}),
            "no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            json!({"rule": "self.a + self.s == 1"}),
            "no matching overload for '_+_'",
        ),
        (
            json!({"rule": "self.a && true"}),
            "no matching overload for '_&&_'",
        ),
        (
            json!({"rule": "self.s.all(x, true)"}),
            "cannot be range of a comprehension",
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            "reason: Unsupported value",
        ),
        (
            json!({"rule": "true", "fieldPath": ".zzz"}),
            "fieldPath: Invalid value",
        ),
        (
            json!({"rule": "true", "fieldPath": "a"}),
            "fieldPath: Invalid value",
        ),
        (
            json!({"rule": "true", "message": " "}),
            "message: Invalid value",
        ),
        (
            json!({"rule": "true", "messageExpression": "1 + 1"}),
            "messageExpression: Invalid value",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "optionalOldSelf: Invalid value",
        ),
    ] {
        let mut schema = object.clone();
        schema["x-kubernetes-validations"] = json!([rule]);
        let error =
            Schema::parse(&json!({"type": "object", "properties": {"spec": schema}})).unwrap_err();
        assert!(
            error.starts_with("openAPIV3Schema.properties[spec].x-kubernetes-validations[0].")
                && error.contains(words),
            "{rule}: {error}"
        );
    }
    let error = Schema::parse(
        &json!({"type": "object", "properties": {"l": {"type": "array", "items": {
        "type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}),
    )
    .unwrap_err();
    assert!(error.contains("uncorrelatable"), "{error}");
}

proptest! {
    #[test]
    fn no_rule_text_panics(rule in "[a-z0-9 .()\\[\\]'=<>&|!+?:,{}]{0,40}", value in "\\PC{0,12}") {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"v": {"type": "string",
            "x-kubernetes-validations": [{"rule": rule}]}}}));
        if let Ok(schema) = schema {
            schema.validate(&json!({"v": value}), None);
        }
    }

    #[test]
    fn addresses_of_any_text_do_not_panic(value in "[0-9a-f:./%]{0,30}") {
        for rule in ["isIP(self) || isCIDR(self)", "cidr(self).masked() == cidr(self)", "ip(self).isGlobalUnicast()",
            "cidr('10.0.0.0/8').containsCIDR(self)", "ip.isCanonical(self)"] {
            judge(text(), rule, json!(value));
        }
    }
}
