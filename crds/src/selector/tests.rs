use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn parse(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn evaluates_every_test_with_and_without_the_label() {
    let web = labels(&[("app", "web-1"), ("margay.io/rack", "a")]);
    let cases = [
        ("", true),
        ("  ", true),
        ("all()", true),
        ("!all()", false),
        ("has(app)", true),
        ("has( app )", true),
        ("has(nope)", false),
        ("!has(nope)", true),
        ("app == 'web-1'", true),
        ("app == \"web-1\"", true),
        ("app == 'db'", false),
        ("nope == ''", false),
        ("app != 'db'", true),
        ("app != 'web-1'", false),
        ("nope != 'x'", true),
        ("app in {'web-1', 'db'}", true),
        ("app in {}", false),
        ("nope in {'x'}", false),
        ("app not in {'db'}", true),
        ("app not in {'web-1'}", false),
        ("nope not in {'x'}", true),
        ("app notin {'db'}", true),
        ("app notin {'web-1',}", false),
        ("nope notin {}", true),
        ("app not in {}", true),
        ("app in {'db', 'web-1' , }", true),
        ("app in{\"web-1\",}", true),
        ("app\tnot\tin\t{'db'}", true),
        ("app contains 'eb'", true),
        ("nope contains ''", false),
        ("app starts with 'web'", true),
        ("app starts with 'eb'", false),
        ("app ends with '-1'", true),
        ("nope ends with ''", false),
        ("margay.io/rack=='a'&&has(app)", true),
        ("has(nope) || has(app)", true),
        ("has(nope) && has(app) || all()", true),
        ("has(nope) && (has(app) || all())", false),
        ("!!has(app)", true),
        ("!(has(app) && has(nope))", true),
        ("! app == 'web-1'", false),
    ];
    for (text, want) in cases {
        assert_eq!(parse(text).matches(&web), want, "{text}");
    }
}

#[test]
fn keywords_are_labels_where_a_label_stands() {
    let odd = labels(&[("in", "in"), ("has", "x"), ("all", "y"), ("not", "z")]);
    assert!(
        parse("in in {'in'} && has == 'x' && all == 'y' && not not in {'q'} && has(has)")
            .matches(&odd)
    );
}

#[test]
fn operators_are_labels_where_a_label_stands() {
    let odd = labels(&[
        ("contains", "contains"),
        ("starts", "s"),
        ("ends", "e"),
        ("notin", "n"),
        ("global", "g"),
        ("a-b_c.d/e-f", "x"),
        ("8", "9"),
    ]);
    for text in [
        "contains contains 'contains'",
        "starts starts with 's' && ends ends with 'e'",
        "notin notin {'x'} && notin in {'n'}",
        "global == 'g' && has(global) && global != 'x'",
        "a-b_c.d/e-f=='x'&&8=='9'",
    ] {
        assert!(parse(text).matches(&odd), "{text}");
    }
}

#[test]
fn global_stands_alone_and_only_for_namespaces() {
    for text in ["global()", " global() ", "global( )", "global ()"] {
        let found: NamespaceSelector = text.parse().unwrap();
        assert_eq!(found, NamespaceSelector::Global, "{text}");
    }
    assert_eq!(NamespaceSelector::Global.to_string(), "global()");
    let labels: NamespaceSelector = "global == 'x'".parse().unwrap();
    assert_eq!(labels.to_string(), "global == 'x'");
    for (text, position) in [
        ("global() || has(a)", 1),
        ("has(a) && global()", 11),
        ("!global()", 2),
        ("(global())", 2),
        ("global()()", 1),
    ] {
        let error = text.parse::<NamespaceSelector>().unwrap_err();
        assert_eq!(
            (error.position, error.problem),
            (position, Problem::Global),
            "{text}"
        );
    }
    let error = "global()".parse::<Selector>().unwrap_err().to_string();
    assert!(error.contains("stands alone"), "{error}");
    assert!("global(x)".parse::<NamespaceSelector>().is_err());
}

#[test]
fn errors_say_where_and_what_is_expected() {
    let error = |text: &str| text.parse::<Selector>().unwrap_err().to_string();
    assert_eq!(
        error("app = 'x'"),
        "selector is wrong at character 5: expected ==, !=, in, not in, contains, starts with or ends with, found \"= 'x'\""
    );
    assert_eq!(
        error("app == x"),
        "selector is wrong at character 8: expected a value in quotes, found \"x\""
    );
    assert_eq!(
        error("app == 'x"),
        "selector is wrong at character 8: the quote that opens here is not closed"
    );
    assert_eq!(
        error("(has(a)"),
        "selector is wrong at character 8: expected ), && or ||, found the end"
    );
    assert_eq!(
        error("has(a) has(b)"),
        "selector is wrong at character 8: expected &&, || or the end, found \"has(b)\""
    );
    assert!(error("a not 'x'").contains("expected in after not"));
    assert!(error("a in {'x' 'y'}").contains("expected , or }"));
    assert!(error("a in {,}").contains("a value in quotes"));
    assert!(error("a in {'x',,}").contains("a value in quotes"));
    assert!(error("a not notin {}").contains("expected in after not"));
    assert!(error("has(a) &&").contains("found the end"));
    assert!(error("é").contains("character 1"));
    assert!(error("a == 'é' é").contains("character 10"));
}

#[test]
fn hostile_nesting_and_length_are_refused() {
    let deep = format!("{}all(){}", "(".repeat(2000), ")".repeat(2000));
    assert_eq!(
        deep.parse::<Selector>().unwrap_err().problem,
        Problem::TooDeep
    );
    let bounded = format!("{}all(){}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    assert_eq!(parse(&bounded), Selector::all());
    let long = "!".repeat(MAX_LENGTH + 1);
    assert_eq!(
        long.parse::<Selector>().unwrap_err().problem,
        Problem::TooLong
    );
    // Negations do not nest, so that many are one or none.
    assert_eq!(
        parse(&format!("{}has(a)", "!".repeat(4000))),
        parse("has(a)")
    );
}

fn key() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9_./-]{0,6}[a-z0-9])?"
}

fn expr() -> impl Strategy<Value = Expr> {
    let value = prop_oneof!["[ -&(-~]{0,6}", "[ !#-~é]{0,6}"];
    let set = prop::collection::btree_set(value.clone(), 0..3);
    let test = prop_oneof![
        value.clone().prop_map(Test::Equals),
        value.clone().prop_map(Test::Differs),
        set.clone().prop_map(Test::In),
        set.prop_map(Test::NotIn),
        value.clone().prop_map(Test::Contains),
        value.clone().prop_map(Test::StartsWith),
        value.prop_map(Test::EndsWith),
    ];
    let leaf = prop_oneof![
        Just(Expr::All),
        key().prop_map(Expr::Has),
        (key(), test).prop_map(|(key, test)| Expr::Test { key, test }),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner
                .prop_filter("negations do not nest", |e| !matches!(e, Expr::Not(_)))
                .prop_map(|e| Expr::Not(Box::new(e))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(expr in expr()) {
        let selector = Selector(expr);
        prop_assert_eq!(parse(&selector.to_string()), selector);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[ a-z!&|(){}'\"=,é]{0,60}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(parse(&selector.to_string()), selector);
        }
    }
}
