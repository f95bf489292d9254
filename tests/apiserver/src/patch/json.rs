//! JSON patch, RFC 6902, with JSON pointers of RFC 6901.

use serde_json::Value;

/// RFC 6902: `patch` is a list of operations, applied in order to a copy: all of them or none.
/// The error says which operation failed and why.
pub fn apply_json(target: &Value, patch: &Value) -> Result<Value, String> {
    let operations = patch
        .as_array()
        .ok_or("a JSON patch must be a list of operations")?;
    let mut document = target.clone();
    for (number, operation) in operations.iter().enumerate() {
        apply_one(&mut document, operation)
            .map_err(|problem| format!("operation {number} {problem}"))?;
    }
    Ok(document)
}

fn apply_one(document: &mut Value, operation: &Value) -> Result<(), String> {
    let name = text(operation, "op")?;
    let path = text(operation, "path")?;
    let steps = steps(path)?;
    let done = match name {
        "add" => add(document, &steps, value_of(operation)?),
        "remove" => remove(document, &steps).map(drop),
        "replace" => replace(document, &steps, value_of(operation)?),
        "move" => {
            let from = text(operation, "from")?;
            if path == from {
                return find(document, &steps)
                    .map(drop)
                    .map_err(|problem| format!("(move {from}): {problem}"));
            }
            // RFC 6902 section 4.4: nothing moves into itself.
            if path
                .strip_prefix(from)
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(format!("(move): {from} cannot move into itself, {path}"));
            }
            let from_steps = self::steps(from)?;
            remove(document, &from_steps)
                .map_err(|problem| format!("(move {from}): {problem}"))
                .and_then(|value| add(document, &steps, value))
        }
        "copy" => {
            let from = text(operation, "from")?;
            let from_steps = self::steps(from)?;
            find(document, &from_steps)
                .cloned()
                .and_then(|value| add(document, &steps, value))
        }
        "test" => {
            let want = value_of(operation)?;
            find(document, &steps).and_then(|have| {
                if same(have, &want) {
                    Ok(())
                } else {
                    Err(format!("the value is {have}, not {want}"))
                }
            })
        }
        other => Err(format!(
            "{other:?} is none of add, remove, replace, move, copy, test"
        )),
    };
    done.map_err(|problem| format!("({name} {path}): {problem}"))
}

fn text<'a>(operation: &'a Value, member: &str) -> Result<&'a str, String> {
    operation
        .get(member)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("has no string member {member:?}"))
}

fn value_of(operation: &Value) -> Result<Value, String> {
    operation
        .get("value")
        .cloned()
        .ok_or_else(|| "has no member \"value\"".to_owned())
}

/// The unescaped steps of a JSON pointer; none for the whole document.
fn steps(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer
        .strip_prefix('/')
        .ok_or_else(|| format!("has a path that does not begin with a slash: {pointer:?}"))?;
    rest.split('/').map(unescape).collect()
}

fn unescape(step: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(step.len());
    let mut letters = step.chars();
    while let Some(letter) = letters.next() {
        if letter != '~' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('0') => plain.push('~'),
            Some('1') => plain.push('/'),
            _ => return Err(format!("has a path where ~ is not ~0 or ~1: {step:?}")),
        }
    }
    Ok(plain)
}

/// An array index of RFC 6901: digits, no leading zero, inside the array.
fn index(step: &str, length: usize) -> Result<usize, String> {
    let plain = step == "0"
        || (!step.starts_with('0') && !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()));
    let position = plain
        .then(|| step.parse::<usize>().ok())
        .flatten()
        .ok_or_else(|| format!("{step:?} is not an index of a list"))?;
    if position < length {
        Ok(position)
    } else {
        Err(format!(
            "index {position} is beyond the list of {length} items"
        ))
    }
}

fn find<'a>(document: &'a Value, steps: &[String]) -> Result<&'a Value, String> {
    let mut at = document;
    for step in steps {
        at = match at {
            Value::Object(fields) => fields
                .get(step)
                .ok_or_else(|| format!("there is no {step:?}"))?,
            Value::Array(items) => &items[index(step, items.len())?],
            other => return Err(format!("{other} has no {step:?}")),
        };
    }
    Ok(at)
}

fn find_mut<'a>(document: &'a mut Value, steps: &[String]) -> Result<&'a mut Value, String> {
    let mut at = document;
    for step in steps {
        at = match at {
            Value::Object(fields) => fields
                .get_mut(step)
                .ok_or_else(|| format!("there is no {step:?}"))?,
            Value::Array(items) => {
                let position = index(step, items.len())?;
                &mut items[position]
            }
            other => return Err(format!("{other} has no {step:?}")),
        };
    }
    Ok(at)
}

fn add(document: &mut Value, steps: &[String], value: Value) -> Result<(), String> {
    let Some((last, parents)) = steps.split_last() else {
        *document = value;
        return Ok(());
    };
    match find_mut(document, parents)? {
        Value::Object(fields) => {
            fields.insert(last.clone(), value);
        }
        Value::Array(items) => {
            let position = if last == "-" {
                items.len()
            } else {
                index(last, items.len() + 1)?
            };
            items.insert(position, value);
        }
        other => return Err(format!("nothing can be added to {other}")),
    }
    Ok(())
}

fn remove(document: &mut Value, steps: &[String]) -> Result<Value, String> {
    let Some((last, parents)) = steps.split_last() else {
        return Ok(document.take());
    };
    match find_mut(document, parents)? {
        Value::Object(fields) => fields
            .shift_remove(last)
            .ok_or_else(|| format!("there is no {last:?}")),
        Value::Array(items) => {
            let position = index(last, items.len())?;
            Ok(items.remove(position))
        }
        other => Err(format!("{other} has no {last:?}")),
    }
}

fn replace(document: &mut Value, steps: &[String], value: Value) -> Result<(), String> {
    *find_mut(document, steps)? = value;
    Ok(())
}

/// Equality of RFC 6902 section 4.6: numbers by value, objects whatever their order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(name, value)| y.get(name).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}
