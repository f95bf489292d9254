//! What can be known of a rule before it runs: that its names exist, and that its types fit where the schema
//! gives them. Whatever is not known is taken to be fine; the interpreter judges it later.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr};

use super::value::escape;
use crate::schema::{Additional, Node, Type};

/// What an expression must come out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Bool,
    String,
}

/// The variables of a rule.
pub(super) struct Scope<'s> {
    own: Kind<'s>,
    old: Kind<'s>,
}

impl<'s> Scope<'s> {
    pub(super) fn new(node: &'s Node, root: bool, optional_old_self: bool) -> Self {
        let own = Kind::of(node, root);
        let old = if optional_old_self {
            Kind::Dyn
        } else {
            own.clone()
        };
        Self { own, old }
    }
}

/// A type, as far as it is known.
#[derive(Clone, Debug)]
enum Kind<'s> {
    /// Not known.
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Null,
    Ip,
    Cidr,
    List(Box<Self>),
    Map(Box<Self>),
    /// An object of named fields; `true` for a whole Kubernetes object.
    Object(&'s Node, bool),
    /// The `metadata` of an object.
    Metadata,
}

impl<'s> Kind<'s> {
    fn of(node: &'s Node, root: bool) -> Self {
        if node.nullable || node.int_or_string {
            return Self::Dyn;
        }
        match node.kind {
            None => Self::Dyn,
            Some(Type::Boolean) => Self::Bool,
            Some(Type::Integer) => Self::Int,
            Some(Type::Number) => Self::Double,
            Some(Type::String) => Self::String,
            Some(Type::Array) => {
                let item = node
                    .items
                    .as_deref()
                    .map_or(Self::Dyn, |item| Self::of(item, item.embedded));
                Self::List(Box::new(item))
            }
            Some(Type::Object) => match &node.additional {
                Additional::Of(value) => Self::Map(Box::new(Self::of(value, value.embedded))),
                Additional::Any => Self::Map(Box::new(Self::Dyn)),
                Additional::Absent if node.preserve_unknown => Self::Dyn,
                Additional::Absent => Self::Object(node, root || node.embedded),
            },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Dyn => "dyn",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String => "string",
            Self::Null => "null",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Object(..) | Self::Metadata => "object",
        }
    }

    fn known(&self) -> bool {
        !matches!(self, Self::Dyn)
    }

    fn number(&self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }
}

/// A variable bound by a macro such as `all`.
type Bound<'s> = (String, Kind<'s>);

/// Checks a whole rule or message expression.
pub(super) fn check(
    expression: &IdedExpr,
    scope: &Scope<'_>,
    wanted: Wanted,
) -> Result<(), String> {
    let found = infer(expression, scope, &mut Vec::new())?;
    let fits = match wanted {
        Wanted::Bool => matches!(found, Kind::Bool | Kind::Dyn),
        Wanted::String => matches!(found, Kind::String | Kind::Dyn),
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "must evaluate to a {}, not to {}",
        if wanted == Wanted::Bool {
            "bool"
        } else {
            "string"
        },
        found.name()
    ))
}

fn infer<'s>(
    expression: &IdedExpr,
    scope: &Scope<'s>,
    bound: &mut Vec<Bound<'s>>,
) -> Result<Kind<'s>, String> {
    match &expression.expr {
        Expr::Unspecified => Ok(Kind::Dyn),
        Expr::Literal(literal) => Ok(match literal {
            LiteralValue::Boolean(_) => Kind::Bool,
            LiteralValue::Int(_) => Kind::Int,
            LiteralValue::Double(_) => Kind::Double,
            LiteralValue::String(_) => Kind::String,
            LiteralValue::Null => Kind::Null,
            LiteralValue::Bytes(_) | LiteralValue::UInt(_) => Kind::Dyn,
        }),
        Expr::Ident(name) => ident(name, scope, bound),
        Expr::Select(select) => field(select, scope, bound),
        Expr::Call(call) => self::call(call, scope, bound),
        Expr::List(list) => {
            let mut item = Kind::Dyn;
            for element in &list.elements {
                item = infer(element, scope, bound)?;
            }
            let uniform = list.elements.len() == 1;
            Ok(Kind::List(Box::new(if uniform { item } else { Kind::Dyn })))
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    infer(&entry.key, scope, bound)?;
                    infer(&entry.value, scope, bound)?;
                }
            }
            Ok(Kind::Map(Box::new(Kind::Dyn)))
        }
        Expr::Struct(object) => Err(format!("undeclared reference to '{}'", object.type_name)),
        Expr::Comprehension(fold) => {
            let over = infer(&fold.iter_range, scope, bound)?;
            let start = infer(&fold.accu_init, scope, bound)?;
            let item = match over {
                Kind::List(item) if fold.iter_var2.is_none() => *item,
                Kind::Map(_) if fold.iter_var2.is_none() => Kind::String,
                Kind::List(_) | Kind::Map(_) | Kind::Dyn | Kind::Object(..) | Kind::Metadata => {
                    Kind::Dyn
                }
                other => {
                    return Err(format!(
                        "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                        other.name()
                    ));
                }
            };
            let depth = bound.len();
            bound.push((fold.accu_var.clone(), Kind::Dyn));
            bound.push((fold.iter_var.clone(), item));
            if let Some(second) = &fold.iter_var2 {
                bound.push((second.clone(), Kind::Dyn));
            }
            infer(&fold.loop_cond, scope, bound)?;
            infer(&fold.loop_step, scope, bound)?;
            infer(&fold.result, scope, bound)?;
            bound.truncate(depth);
            Ok(match start {
                // `all` and `exists` fold a truth, `map` and `filter` a list.
                Kind::Bool => Kind::Bool,
                Kind::List(_) => Kind::List(Box::new(Kind::Dyn)),
                _ => Kind::Dyn,
            })
        }
    }
}

fn ident<'s>(name: &str, scope: &Scope<'s>, bound: &[Bound<'s>]) -> Result<Kind<'s>, String> {
    if let Some((_, kind)) = bound.iter().rev().find(|(known, _)| known == name) {
        return Ok(kind.clone());
    }
    const TYPES: [&str; 12] = [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
        "dyn",
        "optional_type",
    ];
    match name {
        "self" => Ok(scope.own.clone()),
        "oldSelf" => Ok(scope.old.clone()),
        _ if TYPES.contains(&name) || name.starts_with('@') => Ok(Kind::Dyn),
        _ => Err(format!(
            "undeclared reference to '{name}' (in container '')"
        )),
    }
}

fn field<'s>(
    select: &SelectExpr,
    scope: &Scope<'s>,
    bound: &mut Vec<Bound<'s>>,
) -> Result<Kind<'s>, String> {
    let object = infer(&select.operand, scope, bound)?;
    let undefined = || Err(format!("undefined field '{}'", select.field));
    let found = match object {
        Kind::Dyn => Kind::Dyn,
        Kind::Map(value) => *value,
        Kind::Metadata => match select.field.as_str() {
            "name" | "generateName" => Kind::String,
            _ => return undefined(),
        },
        Kind::Object(_, true) if matches!(select.field.as_str(), "apiVersion" | "kind") => {
            Kind::String
        }
        Kind::Object(_, true) if select.field == "metadata" => Kind::Metadata,
        Kind::Object(node, _) => {
            let property = node
                .properties
                .iter()
                .find(|(name, _)| escape(name) == select.field);
            match property {
                Some((_, schema)) => Kind::of(schema, false),
                None => return undefined(),
            }
        }
        other => {
            return Err(format!(
                "type '{}' does not support field selection",
                other.name()
            ));
        }
    };
    Ok(if select.test { Kind::Bool } else { found })
}

fn call<'s>(
    call: &CallExpr,
    scope: &Scope<'s>,
    bound: &mut Vec<Bound<'s>>,
) -> Result<Kind<'s>, String> {
    let name = call.func_name.as_str();
    // `ip.isCanonical`, `optional.of` and the like are functions with a dot in the name.
    let qualified = call
        .target
        .as_deref()
        .and_then(|target| match &target.expr {
            Expr::Ident(first) => Some(format!("{first}.{name}")),
            _ => None,
        });
    if let Some(result) = qualified.as_deref().and_then(function) {
        for argument in &call.args {
            infer(argument, scope, bound)?;
        }
        return Ok(result);
    }
    let target = call
        .target
        .as_deref()
        .map(|target| infer(target, scope, bound))
        .transpose()?;
    let mut arguments = Vec::with_capacity(call.args.len());
    for argument in &call.args {
        arguments.push(infer(argument, scope, bound)?);
    }
    let mismatch = |kinds: &[&Kind<'_>]| {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        Err(format!(
            "found no matching overload for '{name}' applied to '({})'",
            names.join(", ")
        ))
    };
    match (name, target.as_ref(), arguments.as_slice()) {
        ("_&&_" | "_||_", None, [a, b]) => {
            for side in [a, b] {
                if !matches!(side, Kind::Bool | Kind::Dyn) {
                    return mismatch(&[a, b]);
                }
            }
            Ok(Kind::Bool)
        }
        ("!_", None, [a]) => match a {
            Kind::Bool | Kind::Dyn => Ok(Kind::Bool),
            _ => mismatch(&[a]),
        },
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", None, [a, b]) => {
            let same = std::mem::discriminant(a) == std::mem::discriminant(b)
                || (a.number() && b.number())
                || matches!(
                    (a, b),
                    (
                        Kind::Object(..) | Kind::Map(_),
                        Kind::Object(..) | Kind::Map(_)
                    )
                );
            if a.known() && b.known() && !same {
                return mismatch(&[a, b]);
            }
            Ok(Kind::Bool)
        }
        ("_?_:_", None, [condition, yes, no]) => {
            if !matches!(condition, Kind::Bool | Kind::Dyn) {
                return mismatch(&[condition, yes, no]);
            }
            let same = std::mem::discriminant(yes) == std::mem::discriminant(no);
            Ok(if same { yes.clone() } else { Kind::Dyn })
        }
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", None, [a, b]) => {
            let same = std::mem::discriminant(a) == std::mem::discriminant(b);
            if a.known() && b.known() && !same {
                return mismatch(&[a, b]);
            }
            Ok(match (a, b) {
                (Kind::List(_), _) | (_, Kind::List(_)) => Kind::List(Box::new(Kind::Dyn)),
                (Kind::Dyn, other) | (other, _) => other.clone(),
            })
        }
        ("_[_]", None, [Kind::List(item), _]) => Ok(*item.clone()),
        ("_[_]", None, [Kind::Map(value), _]) => Ok(*value.clone()),
        // `.ip()` of a prefix is a member, `ip(text)` a function.
        _ => function(name)
            .ok_or_else(|| format!("undeclared reference to '{name}' (in container '')")),
    }
}

/// What a function or operator returns; `None` for one that does not exist.
fn function(name: &str) -> Option<Kind<'static>> {
    Some(match name {
        "@in"
        | "_&&_"
        | "_||_"
        | "!_"
        | "contains"
        | "startsWith"
        | "endsWith"
        | "matches"
        | "isIP"
        | "isCIDR"
        | "ip.isCanonical"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "containsIP"
        | "containsCIDR"
        | "isSorted"
        | "hasValue"
        | "bool"
        | "@not_strictly_false" => Kind::Bool,
        "size" | "int" | "family" | "prefixLength" | "indexOf" | "lastIndexOf" => Kind::Int,
        "double" => Kind::Double,
        "string" | "charAt" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring"
        | "join" | "format" | "strings.quote" | "find" => Kind::String,
        "split"
        | "findAll"
        | "slice"
        | "flatten"
        | "distinct"
        | "sort"
        | "lists.range"
        | "@sortByAssociatedKeys" => Kind::List(Box::new(Kind::Dyn)),
        "ip" => Kind::Ip,
        "cidr" | "masked" => Kind::Cidr,
        "_[_]"
        | "_[?_]"
        | "_?._"
        | "-_"
        | "dyn"
        | "type"
        | "uint"
        | "bytes"
        | "reverse"
        | "sum"
        | "min"
        | "max"
        | "value"
        | "or"
        | "orValue"
        | "optional.of"
        | "optional.none"
        | "optional.ofNonZeroValue" => Kind::Dyn,
        _ => return None,
    })
}
