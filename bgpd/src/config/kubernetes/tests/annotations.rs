//! Annotations of a Node that are not understood.

use super::*;
use crate::config::Drain;

fn annotated(annotations: serde_json::Value) -> Node {
    let mut object = serde_json::to_value(node("n1", None, &["10.0.1.1"])).unwrap();
    object["metadata"]["annotations"] = annotations;
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_drain_that_is_not_understood_changes_nothing_and_says_what_to_write() {
    let mut cluster = cluster();
    let drain = |text: &str| annotated(json!({ AS_ANNOTATION: "65001", DRAIN_ANNOTATION: text }));
    for (text, drained, problem) in [
        ("yes", Drain::No, Some("the node stays in use")),
        ("services", Drain::Services, None),
        ("Everything", Drain::Services, Some("services stay drained")),
        ("everything", Drain::Everything, None),
        ("", Drain::Everything, Some("everything stays drained")),
    ] {
        cluster.node_applied(&drain(text));
        let outcome = cluster.outcome().unwrap();
        assert_eq!(outcome.config.drain, drained, "{text:?}");
        assert_eq!(outcome.config.asn, 65001, "{text:?}");
        assert_eq!(names(&outcome), ["tor-a"], "{text:?}");
        let Some(problem) = problem else {
            assert_eq!(cluster.node_problem(), None, "{text:?}");
            continue;
        };
        let said = cluster.node_problem().unwrap();
        let fix = "is neither services nor everything: set one of the two or remove it; ";
        let begin = format!("annotation margay.io/drain: {text:?} ");
        assert_eq!(said, format!("{begin}{fix}{problem}"));
        assert_eq!(outcome.problems, [format!("Node n1: {said}")]);
    }
    cluster.node_applied(&annotated(json!({ AS_ANNOTATION: "65001" })));
    assert_eq!(cluster.node_problem(), None);
    assert_eq!(cluster.outcome().unwrap().config.drain, Drain::No);
}

#[test]
fn numbers_that_are_not_understood_leave_the_last_good_ones_and_say_what_to_write() {
    let mut cluster = cluster();
    for (annotation, text, fix) in [
        (AS_ANNOTATION, "0", "set 1 to 4294967295"),
        (AS_ANNOTATION, "AS65001", "set 1 to 4294967295"),
        (AS_ANNOTATION, "4294967296", "set 1 to 4294967295"),
        (CLUSTER_ID, "0.0.0.0", "write it as 244.0.0.1"),
        (CLUSTER_ID, "7", "write it as 244.0.0.1"),
    ] {
        cluster.node_applied(&annotated(json!({ annotation: text })));
        let said = cluster.node_problem().unwrap();
        assert!(
            said.contains(annotation) && said.contains(text) && said.contains(fix),
            "{said}"
        );
        assert_eq!(cluster.outcome().unwrap().config.asn, 4_200_000_001);
    }
}
