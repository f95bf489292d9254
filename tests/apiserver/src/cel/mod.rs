//! `x-kubernetes-validations`: CEL rules with the Kubernetes libraries, compiled once and run on every write.
//!
//! ```text
//!  rule text ──parse──► AST ──check (names, fields, types of the schema)──► Rule
//!  value + schema ──► self, oldSelf ──► Rule ──► nothing, or a field error
//! ```
//!
//! The interpreter is dynamically typed; `check` is what refuses a rule that names a field the schema does
//! not have, when the definition is created rather than when the first object is.

mod check;
mod lists;
mod net;
mod value;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelOptional, CelString};
use cel::common::value::Val;
use cel::{Context, Env, Program, extensions};
use serde_json::Value;

use crate::field::{FieldError, FieldErrorKind};
use crate::schema::Node;

/// The functions rules can call: CEL's own, strings, lists, and Kubernetes' for addresses and lists.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = env
        .add_extension(extensions::strings)
        .and_then(|()| env.add_extension(extensions::lists))
        .and_then(|()| net::extension(&mut env))
        .and_then(|()| lists::extension(&mut env));
    if let Err(error) = added {
        unreachable!("invariant: no function is declared twice: {error}");
    }
    Arc::new(env)
});

/// One compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    source: String,
    program: Program,
    message: Option<String>,
    message_expression: Option<Program>,
    reason: FieldErrorKind,
    /// Appended to the path of the value the rule is about.
    field_path: String,
    optional_old_self: bool,
    uses_old_self: bool,
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations` of `node`. The error begins with the wrong field of
    /// the entry.
    pub(crate) fn compile(json: &Value, node: &Node, root: bool) -> Result<Self, String> {
        let text = |name: &str| match json.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(format!("{name}: Invalid value: {other}: must be a string")),
        };
        let source = text("rule")?.unwrap_or_default().trim();
        if source.is_empty() {
            return Err("rule: Required value: rule is not specified".to_owned());
        }
        let optional_old_self = json.get("optionalOldSelf") == Some(&Value::Bool(true));
        let scope = check::Scope::new(node, root, optional_old_self);
        let program = compile(source, &scope, check::Wanted::Bool)
            .map_err(|problem| format!("rule: Invalid value: {source:?}: {problem}"))?;
        let uses_old_self = program.references().has_variable("oldSelf");
        if optional_old_self && !uses_old_self {
            return Err(
                "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
                    .to_owned(),
            );
        }
        let message = text("message")?.map(|m| m.trim().to_owned());
        if message.as_deref() == Some("") {
            return Err("message: Invalid value: \"\": must not be empty if specified".to_owned());
        }
        let message_expression = text("messageExpression")?
            .map(|text| {
                compile(text, &scope, check::Wanted::String).map_err(|problem| {
                    format!("messageExpression: Invalid value: {text:?}: {problem}")
                })
            })
            .transpose()?;
        Ok(Self {
            source: source.to_owned(),
            program,
            message,
            message_expression,
            reason: reason(text("reason")?)?,
            field_path: field_path(text("fieldPath")?, node)?,
            optional_old_self,
            uses_old_self,
        })
    }

    /// The rule as written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the rule speaks of the value that is being replaced.
    pub(crate) fn uses_old_self(&self) -> bool {
        self.uses_old_self
    }

    /// What is wrong with a value, if anything. A rule about a change says nothing of a value that replaces none.
    pub(crate) fn evaluate(
        &self,
        node: &Node,
        root: bool,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Option<FieldError> {
        if self.uses_old_self && old.is_none() && !self.optional_old_self {
            return None;
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_as_val("self", value::of(node, root, value));
        if self.uses_old_self {
            let old = old.map(|old| value::of(node, root, old));
            let old: Option<Box<dyn Val>> = if self.optional_old_self {
                Some(Box::new(CelOptional::from(old)))
            } else {
                old
            };
            if let Some(old) = old {
                context.add_variable_as_val("oldSelf", old);
            }
        }
        let detail = match self.program.execute(&context) {
            Ok(cel::Value::Bool(true)) => return None,
            Ok(cel::Value::Bool(false)) => self.explain(&context),
            Ok(other) => format!(
                "evaluated to {other:?}, not to true or false: {}",
                self.source
            ),
            Err(error) => format!("{error}: evaluating rule: {}", self.source),
        };
        let shown = match value {
            Value::Object(_) => Value::from("object"),
            Value::Array(_) => Value::from("array"),
            plain => plain.clone(),
        };
        let path = format!("{path}{}", self.field_path);
        let path = path.strip_prefix('.').unwrap_or(&path);
        Some(FieldError::new(path, self.reason, Some(shown), detail))
    }

    fn explain(&self, context: &Context<'_, '_>) -> String {
        let spoken =
            self.message_expression
                .as_ref()
                .and_then(|program| match program.execute(context) {
                    Ok(cel::Value::String(text))
                        if !text.trim().is_empty() && !text.contains('\n') =>
                    {
                        Some(text.trim().to_owned())
                    }
                    _ => None,
                });
        spoken
            .or_else(|| self.message.clone())
            .unwrap_or_else(|| format!("failed rule: {}", self.source))
    }
}

fn compile(text: &str, scope: &check::Scope<'_>, wanted: check::Wanted) -> Result<Program, String> {
    let program = ENVIRONMENT
        .compile(text)
        .map_err(|error| format!("compilation failed: {}", one_line(&error.to_string())))?;
    check::check(program.expression(), scope, wanted)
        .map_err(|problem| format!("compilation failed: {problem}"))?;
    Ok(program)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reason(name: Option<&str>) -> Result<FieldErrorKind, String> {
    Ok(match name {
        None | Some("FieldValueInvalid") => FieldErrorKind::Invalid,
        Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
        Some("FieldValueRequired") => FieldErrorKind::Required,
        Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
        Some(other) => {
            return Err(format!(
                "reason: Unsupported value: {other:?}: supported values: \"FieldValueDuplicate\", \
                 \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            ));
        }
    })
}

/// A path of named fields below the value, `.spec.cidr` or `['a-b']`; the fields must exist.
fn field_path(text: Option<&str>, node: &Node) -> Result<String, String> {
    let Some(text) = text else {
        return Ok(String::new());
    };
    let refuse = || {
        format!(
            "fieldPath: Invalid value: {text:?}: must be a path to an existing field, as .spec.name"
        )
    };
    let mut rest = text;
    let mut at = node;
    let mut plain = String::new();
    while !rest.is_empty() {
        let name;
        if let Some(tail) = rest.strip_prefix("['") {
            let (inner, after) = tail.split_once("']").ok_or_else(refuse)?;
            (name, rest) = (inner, after);
        } else {
            let tail = rest.strip_prefix('.').ok_or_else(refuse)?;
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            (name, rest) = tail.split_at(end);
        }
        at = at.field(name).ok_or_else(refuse)?;
        plain.push('.');
        plain.push_str(name);
    }
    if plain.is_empty() {
        return Err(refuse());
    }
    Ok(plain)
}

/// A string value.
fn string(text: impl Into<String>) -> CelString<'static> {
    CelString::from(text.into())
}
