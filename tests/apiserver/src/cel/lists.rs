//! Kubernetes' CEL library for lists and regular expressions: `isSorted`, `sum`, `min`, `max`, `indexOf`,
//! `lastIndexOf`, `find`, `findAll`.

use std::cmp::Ordering;

use cel::common::types::{CelBool, CelInt, CelList, CelString, DYN_TYPE, LIST_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload};
use regex::Regex;

use super::string;

/// Declares the functions.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    add_member_overload!(env, fn is_sorted: (CelList<'_>) -> Result<CelBool>)?;
    env.add_member_overload("sum", "list.sum()", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "list.min()", LIST_TYPE, vec![], min)?;
    env.add_member_overload("max", "list.max()", LIST_TYPE, vec![], max)?;
    env.add_member_overload(
        "indexOf",
        "list.indexOf(dyn)",
        LIST_TYPE,
        vec![DYN_TYPE],
        index_of,
    )?;
    env.add_member_overload(
        "lastIndexOf",
        "list.lastIndexOf(dyn)",
        LIST_TYPE,
        vec![DYN_TYPE],
        last_index_of,
    )?;
    add_member_overload!(env, fn find: (CelString<'_>, CelString<'_>) -> Result<CelString<'_>>)?;
    add_member_overload!(env, fn find_all: (CelString<'_>, CelString<'_>) -> Result<CelList<'_>>)?;
    add_member_overload!(env, fn find_all_n: (CelString<'_>, CelString<'_>, CelInt) -> Result<CelList<'_>>, name = "findAll")?;
    Ok(())
}

fn compare(a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    a.as_comparer()
        .ok_or_else(|| ExecutionError::function_error("compare", "the items have no order"))?
        .compare(b)
}

fn is_sorted(list: &CelList<'_>) -> Result<CelBool, ExecutionError> {
    for pair in list.inner().windows(2) {
        if compare(pair[0].as_ref(), pair[1].as_ref())? == Ordering::Greater {
            return Ok(CelBool::from(false));
        }
    }
    Ok(CelBool::from(true))
}

/// The items of a list argument, as its receiver's declared type promises.
fn items<'a, 'v>(value: &'a (dyn Val + 'v)) -> Result<&'a [Box<dyn Val + 'v>], ExecutionError> {
    value
        .downcast_ref::<CelList<'v>>()
        .map(CelList::inner)
        .ok_or_else(|| ExecutionError::function_error("list", "the receiver is no list"))
}

fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(list) = args.first() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let mut total: Option<Box<dyn Val + 'v>> = None;
    for item in items(list.as_ref())? {
        total = Some(match total {
            None => item.clone(),
            Some(total) => total
                .as_adder()
                .ok_or_else(|| ExecutionError::function_error("sum", "the items cannot be added"))?
                .add(item.as_ref())?
                .into_owned(),
        });
    }
    Ok(total.map_or_else(|| CowVal::owned(CelInt::from(0)), CowVal::Owned))
}

fn extreme<'b, 'v>(
    args: &[CowVal<'b, 'v>],
    name: &str,
    wanted: Ordering,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(list) = args.first() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let mut best: Option<&Box<dyn Val + 'v>> = None;
    for item in items(list.as_ref())? {
        best = Some(match best {
            Some(best) if compare(item.as_ref(), best.as_ref())? != wanted => best,
            _ => item,
        });
    }
    best.map(|item| CowVal::Owned(item.clone()))
        .ok_or_else(|| ExecutionError::function_error(name, format!("{name} called on empty list")))
}

fn min<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme(&args, "min", Ordering::Less)
}

fn max<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme(&args, "max", Ordering::Greater)
}

fn position<'b, 'v>(args: &[CowVal<'b, 'v>], last: bool) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [list, wanted] = args else {
        return Err(ExecutionError::invalid_argument_count(2, args.len()));
    };
    let mut found = items(list.as_ref())?
        .iter()
        .enumerate()
        .filter(|(_, item)| item.equals(wanted.as_ref()))
        .map(|(position, _)| position);
    let found = if last {
        found.next_back()
    } else {
        found.next()
    };
    let found = found.and_then(|p| i64::try_from(p).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(found)))
}

fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    position(&args, false)
}

fn last_index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    position(&args, true)
}

fn pattern(text: &CelString<'_>) -> Result<Regex, ExecutionError> {
    Regex::new(text.inner()).map_err(|error| ExecutionError::function_error("find", error))
}

fn find(text: &CelString<'_>, regex: &CelString<'_>) -> Result<CelString<'static>, ExecutionError> {
    let found = pattern(regex)?
        .find(text.inner())
        .map_or("", |found| found.as_str());
    Ok(string(found))
}

fn find_all(
    text: &CelString<'_>,
    regex: &CelString<'_>,
) -> Result<CelList<'static>, ExecutionError> {
    find_all_n(text, regex, &CelInt::from(-1))
}

fn find_all_n(
    text: &CelString<'_>,
    regex: &CelString<'_>,
    limit: &CelInt,
) -> Result<CelList<'static>, ExecutionError> {
    let limit = usize::try_from(*limit.inner()).unwrap_or(usize::MAX);
    let found: Vec<Box<dyn Val>> = pattern(regex)?
        .find_iter(text.inner())
        .take(limit)
        .map(|found| Box::new(string(found.as_str())) as Box<dyn Val>)
        .collect();
    Ok(CelList::from(found))
}
