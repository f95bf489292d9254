//! Kubernetes' protobuf form of objects, to read only: `kubectl create` and `kubectl drain` send it and cannot be
//! told otherwise. Tables name the fields of the kinds those commands make; fields not listed are dropped.
//!
//! The field numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery.

use serde_json::{Map, Value, json};

use crate::{base64, clock};

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Type {
    Text,
    Bytes,
    Bool,
    /// A number that is absent when 0.
    Int,
    /// A number that says something when 0.
    OptionalInt,
    Time,
    IntOrString,
    Texts,
    TextMap,
    BytesMap,
    Message(&'static [Field]),
    Messages(&'static [Field]),
}

/// Number, JSON name, type.
type Field = (u64, &'static str, Type);

use Type::{
    Bool, Bytes, BytesMap, Int, IntOrString, Message, Messages, OptionalInt, Text, TextMap, Texts,
    Time,
};

const OWNER: &[Field] = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Bool),
    (7, "blockOwnerDeletion", Bool),
];
const METADATA: &[Field] = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Int),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Messages(OWNER)),
    (14, "finalizers", Texts),
];
const REFERENCE: &[Field] = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Text),
    (2, "protocol", Text),
    (3, "port", Int),
    (4, "targetPort", IntOrString),
    (5, "nodePort", Int),
    (6, "appProtocol", Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Messages(SERVICE_PORT)),
    (2, "selector", TextMap),
    (3, "clusterIP", Text),
    (4, "type", Text),
    (5, "externalIPs", Texts),
    (7, "sessionAffinity", Text),
    (8, "loadBalancerIP", Text),
    (9, "loadBalancerSourceRanges", Texts),
    (10, "externalName", Text),
    (11, "externalTrafficPolicy", Text),
    (13, "publishNotReadyAddresses", Bool),
    (17, "ipFamilyPolicy", Text),
    (18, "clusterIPs", Texts),
    (19, "ipFamilies", Texts),
    (22, "internalTrafficPolicy", Text),
];
const RULE: &[Field] = &[
    (1, "verbs", Texts),
    (2, "apiGroups", Texts),
    (3, "resources", Texts),
    (4, "resourceNames", Texts),
    (5, "nonResourceURLs", Texts),
];
const SUBJECT: &[Field] = &[
    (1, "kind", Text),
    (2, "apiGroup", Text),
    (3, "name", Text),
    (4, "namespace", Text),
];
const ROLE_REF: &[Field] = &[(1, "apiGroup", Text), (2, "kind", Text), (3, "name", Text)];
const ROLE: &[Field] = &[
    (1, "metadata", Message(METADATA)),
    (2, "rules", Messages(RULE)),
];
const BINDING: &[Field] = &[
    (1, "metadata", Message(METADATA)),
    (2, "subjects", Messages(SUBJECT)),
    (3, "roleRef", Message(ROLE_REF)),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", OptionalInt),
    (2, "preconditions", Message(PRECONDITIONS)),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];

/// The fields of a kind, if it is one that is read.
fn kind_fields(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" => &[(1, "metadata", Message(METADATA))],
        "ConfigMap" => &[
            (1, "metadata", Message(METADATA)),
            (2, "data", TextMap),
            (3, "binaryData", BytesMap),
            (4, "immutable", Bool),
        ],
        "Secret" => &[
            (1, "metadata", Message(METADATA)),
            (2, "data", BytesMap),
            (3, "type", Text),
            (4, "stringData", TextMap),
            (5, "immutable", Bool),
        ],
        "ServiceAccount" => &[
            (1, "metadata", Message(METADATA)),
            (2, "secrets", Messages(REFERENCE)),
            (4, "automountServiceAccountToken", Bool),
        ],
        "Service" => &[
            (1, "metadata", Message(METADATA)),
            (2, "spec", Message(SERVICE_SPEC)),
        ],
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        "Eviction" => &[
            (1, "metadata", Message(METADATA)),
            (2, "deleteOptions", Message(DELETE_OPTIONS)),
        ],
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// The object in `bytes`, which start with Kubernetes' magic and hold a `runtime.Unknown`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    const TYPE: &[Field] = &[(1, "apiVersion", Text), (2, "kind", Text)];
    let body = bytes
        .strip_prefix(b"k8s\0")
        .ok_or("the magic number is missing")?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Reader(body).fields()? {
        match field {
            (1, Content::Bytes(bytes)) => type_meta = bytes,
            (2, Content::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let type_meta = Value::Object(message(type_meta, TYPE)?);
    let kind = type_meta["kind"].as_str().unwrap_or_default();
    let fields = kind_fields(kind).ok_or_else(|| format!("{kind:?} is not read from protobuf"))?;
    let mut object = json!({"apiVersion": type_meta["apiVersion"], "kind": kind});
    for (name, value) in message(raw, fields)? {
        object[name] = value;
    }
    Ok(object)
}

/// One field's content, by wire type.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("cut off in a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= self.0.len())
            .ok_or("cut off in a field")?;
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn fields(mut self) -> Result<Vec<(u64, Content<'a>)>, String> {
        let mut fields = Vec::new();
        while !self.0.is_empty() {
            let key = self.varint()?;
            let content = match key & 7 {
                0 => Content::Number(self.varint()?),
                1 => Content::Bytes(self.take(8)?),
                2 => {
                    let length = self.varint()?;
                    Content::Bytes(self.take(length)?)
                }
                5 => Content::Bytes(self.take(4)?),
                wire => return Err(format!("wire type {wire} is not known")),
            };
            fields.push((key >> 3, content));
        }
        Ok(fields)
    }
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (number, content) in Reader(bytes).fields()? {
        if let Some((_, name, kind)) = fields.iter().find(|field| field.0 == number) {
            put(&mut object, name, *kind, content)
                .map_err(|problem| format!("{name}: {problem}"))?;
        }
    }
    Ok(object)
}

fn put(
    object: &mut Map<String, Value>,
    name: &str,
    kind: Type,
    content: Content<'_>,
) -> Result<(), String> {
    let value = match (kind, content) {
        (Bool, Content::Number(number)) => Some(Value::from(number != 0)),
        (Int, Content::Number(number)) => Some(signed(number)).filter(|_| number != 0),
        (OptionalInt, Content::Number(number)) => Some(signed(number)),
        (Text, Content::Bytes(bytes)) => Some(text(bytes)?)
            .filter(|text| !text.is_empty())
            .map(Value::from),
        (Bytes, Content::Bytes(bytes)) => Some(base64::encode(bytes).into()),
        (Time, Content::Bytes(bytes)) => match Reader(bytes).fields()?.as_slice() {
            [(1, Content::Number(seconds)), ..] => {
                Some(clock::format(seconds.cast_signed()).into())
            }
            _ => None,
        },
        (IntOrString, Content::Bytes(bytes)) => {
            let parts = message(
                bytes,
                &[(1, "type", Int), (2, "int", OptionalInt), (3, "text", Text)],
            )?;
            parts
                .get(if parts.contains_key("type") {
                    "text"
                } else {
                    "int"
                })
                .cloned()
        }
        (Message(fields), Content::Bytes(bytes)) => {
            Some(Value::Object(message(bytes, fields)?)).filter(|value| *value != json!({}))
        }
        (Texts, Content::Bytes(bytes)) => return push(object, name, text(bytes)?.into()),
        (Messages(fields), Content::Bytes(bytes)) => {
            return push(object, name, Value::Object(message(bytes, fields)?));
        }
        (TextMap | BytesMap, Content::Bytes(bytes)) => {
            let value = if matches!(kind, TextMap) { Text } else { Bytes };
            let entry = message(bytes, &[(1, "key", Text), (2, "value", value)])?;
            let part = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let map = object.entry(name).or_insert_with(|| json!({}));
            map[part("key")] = part("value").into();
            return Ok(());
        }
        _ => return Err("has another type".to_owned()),
    };
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
    Ok(())
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    let list = object.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().ok_or("is no list")?.push(value);
    Ok(())
}

fn signed(number: u64) -> Value {
    number.cast_signed().into()
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn envelope(kind: &[u8], raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind)].concat();
        [
            b"k8s\0".to_vec(),
            field(1, &type_meta),
            field(2, raw),
            field(3, b""),
            field(4, b""),
        ]
        .concat()
    }

    #[test]
    fn reads_a_config_map() {
        let label = [field(1, b"a"), field(2, b"b")].concat();
        let metadata = [
            field(1, b"name"),
            field(2, b""),
            field(8, b""),
            field(11, &label),
        ]
        .concat();
        let data = [field(1, b"key"), field(2, b"value")].concat();
        let raw = [field(1, &metadata), field(2, &data), vec![4 << 3, 1]].concat();
        assert_eq!(
            decode(&envelope(b"ConfigMap", &raw)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name", "labels": {"a": "b"}},
                "data": {"key": "value"}, "immutable": true,
            })
        );
    }

    #[test]
    fn a_grace_period_of_zero_is_one() {
        let bytes = envelope(b"DeleteOptions", &[1 << 3, 0]);
        assert_eq!(decode(&bytes).unwrap()["gracePeriodSeconds"], 0);
    }

    #[test]
    fn refuses_what_is_not_read() {
        assert!(decode(b"{}").is_err());
        assert!(
            decode(&envelope(b"Pod", b""))
                .unwrap_err()
                .contains("\"Pod\"")
        );
        let good = envelope(b"ConfigMap", &field(1, &field(1, b"name")));
        for end in 4..good.len() - 4 {
            // Cut anywhere: an error or less, never a panic.
            let _outcome = decode(&good[..end]);
        }
        assert!(
            decode(&envelope(b"ConfigMap", &[1 << 3 | 2, 200]))
                .unwrap_err()
                .contains("cut off")
        );
    }
}
