//! The part of JSONPath that printer columns use: `.a.b`, `['a.b']`, `.a\.b`, `[0]`, `[-1]`, `[*]`,
//! `[?(@.type=="Ready")]`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, PartialEq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end when negative.
    Index(i64),
    All,
    /// Items of which the path has this value (`true`) or another one (`false`).
    Where(Path, bool, Value),
}

impl Path {
    /// Reads a path; the error says what is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('[') {
                let end = closing(tail).ok_or_else(|| format!("{text}: [ is not closed"))?;
                steps.push(bracket(&tail[..end])?);
                rest = &tail[end + 1..];
            } else if let Some(tail) = rest.strip_prefix('.') {
                let (name, tail) = field(tail);
                if name == "*" {
                    steps.push(Step::All);
                } else if !name.is_empty() {
                    steps.push(Step::Field(name));
                } else if tail.starts_with('.') {
                    return Err(format!("{text}: .. is not understood"));
                }
                rest = tail;
            } else {
                return Err(format!("{text}: a path begins with a dot"));
            }
        }
        Ok(Self(steps))
    }

    /// The values at the path, in order.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                match step {
                    Step::Field(name) => next.extend(value.get(name)),
                    Step::Index(position) => next.extend(nth(value, *position)),
                    Step::All => match value {
                        Value::Array(items) => next.extend(items),
                        Value::Object(fields) => next.extend(fields.values()),
                        _ => {}
                    },
                    Step::Where(path, equal, wanted) => {
                        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                        next.extend(
                            items
                                .iter()
                                .filter(|item| path.find(item).contains(&wanted) == *equal),
                        );
                    }
                }
            }
            found = next;
        }
        found
    }
}

fn nth(value: &Value, position: i64) -> Option<&Value> {
    let items = value.as_array()?;
    let from_end = usize::try_from(position.checked_neg()?).ok();
    match usize::try_from(position) {
        Ok(position) => items.get(position),
        Err(_) => items.get(items.len().checked_sub(from_end?)?),
    }
}

/// A field name up to the next dot or bracket; a backslash takes the next letter as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, escaped)| escaped)),
            plain => name.push(plain),
        }
    }
    (name, "")
}

/// Where the bracket that is open closes, quotes and inner brackets respected.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Result<Step, String> {
    let inside = inside.trim();
    if inside == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(inside) {
        return Ok(Step::Field(name.to_owned()));
    }
    if let Ok(position) = inside.parse() {
        return Ok(Step::Index(position));
    }
    let filter = inside
        .strip_prefix("?(")
        .and_then(|rest| rest.strip_suffix(')'))
        .ok_or_else(|| format!("[{inside}] is not understood"))?;
    let (path, equal, wanted) = if let Some((path, wanted)) = filter.split_once("==") {
        (path, true, wanted)
    } else if let Some((path, wanted)) = filter.split_once("!=") {
        (path, false, wanted)
    } else {
        return Err(format!("[{inside}]: only == and != are understood"));
    };
    let path = path
        .trim()
        .strip_prefix('@')
        .ok_or_else(|| format!("[{inside}]: a filter begins with @"))?;
    let wanted = wanted.trim();
    let wanted = match quoted(wanted) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(wanted)
            .map_err(|_| format!("[{inside}]: {wanted} is not a value"))?,
    };
    Ok(Step::Where(Path::parse(path)?, equal, wanted))
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}
