use super::*;
use crate::nft::encode::Transaction;
use crate::nft::{diff, rows};
use crate::policy::tables::Tables;

#[test]
fn elements_come_back_from_the_messages_that_add_them() {
    let tables = diff::fixture();
    let elements: Vec<_> = rows::all(&tables).collect();
    let mut transaction = Transaction::begin(1, None);
    transaction.add(&elements);
    let (bytes, ..) = transaction.end();
    let mut sets: BTreeMap<String, Elements> = build::SETS
        .iter()
        .map(|set| (set.name.to_owned(), Elements::of(set)))
        .collect();
    for message in nla::messages(&bytes) {
        if let Some(name) = message
            .payload
            .get(4..)
            .and_then(|attributes| nla::find(attributes, 2))
        {
            sets.get_mut(&nla::text(name))
                .expect("a set of ours")
                .message(message.payload);
        }
    }
    let mut back = Tables {
        links: tables.links.clone(),
        ..Tables::default()
    };
    for set in sets.into_values() {
        for element in set.finish() {
            assert!(rows::insert(&mut back, &element), "{element}");
        }
    }
    assert_eq!(back, tables);
}

#[test]
fn a_ruleset_is_recognised_whatever_its_epoch_and_not_when_a_rule_is_missing() {
    let epoch = Epoch::new(77).expect("epoch");
    let mut transaction = Transaction::begin(1, None);
    let options = Options::default();
    transaction.replace_table(&build::table(options, epoch));
    let seen = inspected(&transaction.end().0);
    assert_eq!(seen.current(options), Some(epoch));
    assert_eq!(seen.options(), Some(options));
    let changes: [fn(&mut Inspection); 10] = [
        |seen| drop(seen.rules.get_mut("judge").expect("chain").pop()),
        |seen| seen.rules.get_mut("judge").expect("chain").swap(0, 1),
        |seen| {
            seen.rules.get_mut("deny").expect("chain")[0]
                .expressions
                .truncate(20)
        },
        |seen| seen.flagged = true,
        |seen| seen.chains.get_mut("forward").expect("chain").policy = Some(0),
        |seen| seen.chains.get_mut("forward").expect("chain").hook = Some((2, 10)),
        |seen| seen.chains.get_mut("forward").expect("chain").nat = true,
        |seen| assert_eq!(seen.chains.insert("more".into(), Entered::default()), None),
        |seen| assert_eq!(seen.sets.insert("more".into(), (7, 4)), None),
        |seen| seen.size = Some(1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = seen.clone();
        change(&mut changed);
        assert_eq!(changed.current(options), None, "change {number}");
    }
    let other = Options {
        revoked: Revoked::Drop,
        ..options
    };
    assert_eq!(seen.current(other), None);
    let other = Options {
        terms: Rules {
            hosts: true,
            ..options.terms
        },
        ..options
    };
    assert_eq!(seen.current(other), None);
}

#[test]
fn a_kernel_that_tells_rules_otherwise_is_known_by_names_and_numbers() {
    let epoch = Epoch::new(5).expect("epoch");
    let options = Options {
        terms: Rules::EVERY,
        ..Options::default()
    };
    let mut transaction = Transaction::begin(1, None);
    transaction.replace_table(&build::table(options, epoch));
    let mut seen = inspected(&transaction.end().0);
    seen.rules.get_mut("deny").expect("chain")[0]
        .expressions
        .truncate(20);
    assert_eq!(seen.current(options), None);
    assert_eq!(seen.alike(options), Some(epoch));
    assert_eq!(seen.alike(Options::default()), None);
    let mut fewer = seen.clone();
    fewer.rules.get_mut("judge").expect("chain").pop();
    assert_eq!(fewer.alike(options), None);
    seen.chains.remove("outgoing4");
    assert_eq!(seen.alike(options), None);
}

#[test]
fn what_an_operator_chose_is_read_back() {
    let rare = Rate {
        second: 6,
        burst: 40,
    };
    for to_host in ToHost::ALL {
        for (quiet, log) in [(false, LOG_RATE), (false, rare), (true, LOG_RATE)] {
            let options = Options {
                revoked: Revoked::Drop,
                to_host,
                quiet,
                terms: Rules {
                    hosts: true,
                    ..Rules::default()
                },
                log,
                counters: log == rare,
                ..Options::default()
            };
            let mut transaction = Transaction::begin(1, None);
            transaction.replace_table(&build::table(options, Epoch::FIRST));
            let seen = inspected(&transaction.end().0);
            assert_eq!(seen.options(), Some(options));
        }
    }
}

fn inspected(bytes: &[u8]) -> Inspection {
    let mut seen = Inspection::default();
    for message in nla::messages(bytes) {
        match message.kind.to_be_bytes() {
            [encode::SUBSYSTEM, encode::kind::NEW_TABLE] => seen.table(message.payload),
            [encode::SUBSYSTEM, encode::kind::NEW_SET] => seen.set(message.payload),
            [encode::SUBSYSTEM, encode::kind::NEW_CHAIN] => seen.chain(message.payload),
            [encode::SUBSYSTEM, encode::kind::NEW_RULE] => seen.rule(message.payload),
            _ => {}
        }
    }
    seen
}
