//! What the kernel says that elements have counted.

use super::build;
use crate::nla;
use crate::policy::counts::Packets;
use crate::policy::tables::{Answer, Program};

/// What the elements in this message have counted, by cause. Elements of sets without counters count nothing.
pub fn counted(payload: &[u8], packets: &mut Packets) {
    const VALUE: u16 = 2;
    const EXPRESSION: u16 = 7;
    let attributes = payload.get(4..).unwrap_or_default();
    let Some(name) = nla::find(attributes, 2).map(nla::text) else {
        return;
    };
    let set = build::SETS.iter().find(|set| set.name == name);
    let Some(set) = set.filter(|set| set.counter) else {
        return;
    };
    let answers = build::ANSWERS.iter().any(|it| std::ptr::eq(*it, *set));
    for element in nla::attributes(nla::find(attributes, 3).unwrap_or_default()) {
        let value = nla::find(element.value, VALUE).and_then(|data| nla::ne32(nla::find(data, 1)?));
        let answer = match answers {
            true => value.and_then(Answer::from_number),
            false => value.and_then(|value| Program(value).answer()),
        };
        let count = nla::find(element.value, EXPRESSION).and_then(|expression| {
            let data = nla::find(expression, 2)?;
            let counter = nla::text(nla::find(expression, 1)?) == "counter";
            counter.then(|| nla::find(data, 2).and_then(nla::be64))?
        });
        if let (Some(answer), Some(count)) = (answer, count)
            && count > 0
        {
            *packets.entry(answer.cause).or_default() += count;
        }
    }
}
