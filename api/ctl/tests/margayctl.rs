//! The real `margayctl` against daemons that answer from memory.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use api::local::Listener;
use api::v1;
use api::v1::bgp_status_server::{BgpStatus, BgpStatusServer};
use api::v1::node_status_server::{NodeStatus, NodeStatusServer};
use tonic::{Request, Response, Status};

struct Speaker;

#[tonic::async_trait]
impl BgpStatus for Speaker {
    async fn get_speaker(
        &self,
        _: Request<v1::GetSpeakerRequest>,
    ) -> Result<Response<v1::Speaker>, Status> {
        Ok(Response::new(v1::Speaker {
            asn: 4_200_000_001,
            router_id: "10.0.1.1".into(),
            config_error: "peers[0].asn: 0 is not an AS number".into(),
            ..Default::default()
        }))
    }

    async fn list_neighbors(
        &self,
        _: Request<v1::ListNeighborsRequest>,
    ) -> Result<Response<v1::ListNeighborsResponse>, Status> {
        Ok(Response::new(v1::ListNeighborsResponse {
            neighbors: vec![v1::Neighbor {
                name: "tor-a".into(),
                address: "192.0.2.1".into(),
                state: "Established".into(),
                ..Default::default()
            }],
        }))
    }

    async fn list_bfd_sessions(
        &self,
        _: Request<v1::ListBfdSessionsRequest>,
    ) -> Result<Response<v1::ListBfdSessionsResponse>, Status> {
        Ok(Response::new(v1::ListBfdSessionsResponse {
            sessions: vec![v1::BfdSession {
                peer: "192.0.2.1".into(),
                interface: "eth0".into(),
                state: "Up".into(),
                state_millis: 65_000,
                transmit_micros: 300_000,
                detection_micros: 900_000,
                up_count: 1,
                ..Default::default()
            }],
            refused: [("time to live".to_owned(), 7)].into(),
            problem: String::new(),
        }))
    }

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        let request = request.into_inner();
        if request.prefix == "10.8.0.0/16" {
            return Ok(Response::new(page(&request.after)));
        }
        Ok(Response::new(v1::ListRoutesResponse {
            routes: vec![v1::Route {
                prefix: request.prefix,
                neighbor: request.neighbor,
                best: true,
                local_pref: Some(100),
                ..Default::default()
            }],
            next: String::new(),
        }))
    }

    async fn list_advertised(
        &self,
        request: Request<v1::ListAdvertisedRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        Ok(Response::new(v1::ListRoutesResponse {
            routes: vec![v1::Route {
                prefix: "10.0.0.0/26".into(),
                neighbor: request.into_inner().neighbor,
                ..Default::default()
            }],
            next: String::new(),
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Ok(Response::new(v1::ExplainResponse {
            prefix: request.into_inner().prefix,
            ..Default::default()
        }))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let request = request.into_inner();
        if request.undo {
            return Err(Status::failed_precondition("an annotation drains it"));
        }
        let what = match (request.everything, request.force) {
            (false, false) => format!("services {}", request.neighbor),
            (everything, force) => format!("everything {everything}, force {force}"),
        };
        Ok(Response::new(v1::DrainResponse { drains: vec![what] }))
    }
}

struct Node;

#[tonic::async_trait]
impl NodeStatus for Node {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        Ok(Response::new(v1::Status {
            node: "n1".into(),
            synced: true,
            ..Default::default()
        }))
    }

    async fn list_blocks(
        &self,
        _: Request<v1::ListBlocksRequest>,
    ) -> Result<Response<v1::ListBlocksResponse>, Status> {
        Err(Status::unimplemented("no such call"))
    }

    async fn list_endpoints(
        &self,
        _: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        Ok(Response::new(v1::ListEndpointsResponse {
            endpoints: vec![v1::Endpoint {
                pod: "web/frontend-0".into(),
                state: "Ready".into(),
                addresses: vec!["10.244.0.2".into(), "fd00::2".into()],
                ..Default::default()
            }],
        }))
    }

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        std::future::pending().await
    }

    async fn what_if(
        &self,
        request: Request<v1::WhatIfRequest>,
    ) -> Result<Response<v1::WhatIfResponse>, Status> {
        Ok(Response::new(v1::WhatIfResponse {
            lost_pairs: u64::try_from(request.into_inner().deleted.len()).unwrap(),
            ..Default::default()
        }))
    }

    async fn render_table(
        &self,
        request: Request<v1::RenderTableRequest>,
    ) -> Result<Response<v1::RenderTableResponse>, Status> {
        let document = match request.into_inner().json {
            true => r#"{"nftables":[]}"#,
            false => "table inet margay {\n}\n",
        };
        Ok(Response::new(v1::RenderTableResponse {
            document: document.to_owned(),
            links: vec![v1::Link {
                interface: "mgy0123456789ab".to_owned(),
                group: 0x6d00_0005,
                pod: "web/frontend-0".to_owned(),
            }],
        }))
    }

    type WatchPolicyEventsStream =
        tokio_stream::wrappers::ReceiverStream<Result<v1::PolicyEvent, Status>>;

    async fn watch_policy_events(
        &self,
        request: Request<v1::WatchPolicyEventsRequest>,
    ) -> Result<Response<Self::WatchPolicyEventsStream>, Status> {
        let request = request.into_inner();
        let (to, events) = tokio::sync::mpsc::channel(8);
        let end = |pod: &str, address: &str| {
            Some(v1::FlowEnd {
                pod: pod.into(),
                address: address.into(),
                ..Default::default()
            })
        };
        let event = v1::PolicyEvent {
            unix_millis: 1_767_225_600_123,
            what: "denied".into(),
            direction: "ingress".into(),
            pod: "db/pg".into(),
            from: end("", "203.0.113.7"),
            to: end("db/pg", "10.0.0.2"),
            traffic: "TCP 22".into(),
            why: format!("follow {}, pod {:?}", request.follow, request.pod),
            ..Default::default()
        };
        to.send(Ok(event)).await.unwrap();
        Ok(Response::new(events.into()))
    }

    async fn list_rule_counters(
        &self,
        _: Request<v1::ListRuleCountersRequest>,
    ) -> Result<Response<v1::ListRuleCountersResponse>, Status> {
        let rule = |index: u32, packets| v1::RuleCounter {
            policy: "shop/web".into(),
            rule: format!("ingress[{index}]"),
            packets: Some(packets),
            ..Default::default()
        };
        Ok(Response::new(v1::ListRuleCountersResponse {
            node: "n1".into(),
            rules: vec![rule(0, 7), rule(1, 0)],
            ..Default::default()
        }))
    }

    async fn list_unused(
        &self,
        _: Request<v1::ListUnusedRequest>,
    ) -> Result<Response<v1::ListUnusedResponse>, Status> {
        Ok(Response::new(v1::ListUnusedResponse::default()))
    }

    async fn explain_policy(
        &self,
        request: Request<v1::ExplainPolicyRequest>,
    ) -> Result<Response<v1::ExplainPolicyResponse>, Status> {
        let request = request.into_inner();
        if request.from == "shop/nobody" {
            return Err(Status::not_found("no pod shop/nobody is known"));
        }
        Ok(Response::new(v1::ExplainPolicyResponse {
            node: "n1".into(),
            allowed: request.port == 80,
            ..Default::default()
        }))
    }
}

/// The daemons of a node in `run_dir`, for as long as the runtime lives.
fn serve(run_dir: &Path, felix: bool) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bgpd = Listener::bind(&run_dir.join(api::paths::BGPD_SOCKET)).unwrap();
        let server = tonic::transport::Server::builder().add_service(BgpStatusServer::new(Speaker));
        tokio::spawn(server.serve_with_incoming(bgpd));
        if felix {
            let felix = Listener::bind(&run_dir.join(api::paths::FELIX_SOCKET)).unwrap();
            let server =
                tonic::transport::Server::builder().add_service(NodeStatusServer::new(Node));
            tokio::spawn(server.serve_with_incoming(felix));
        }
    });
    runtime
}

fn margayctl(run_dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_margayctl"))
        .args(args)
        .env_clear()
        .env("MARGAY_RUN_DIR", run_dir)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn prints_tables_and_documents() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);

    let table = margayctl(tmp.path(), &["bgp", "neighbors"]);
    assert_eq!(table.status.code(), Some(0), "{}", stderr(&table));
    assert!(
        stdout(&table).contains("192.0.2.1  tor-a"),
        "{}",
        stdout(&table)
    );
    assert!(!stdout(&table).contains('\x1b'), "a pipe gets no colours");

    let text = margayctl(tmp.path(), &["policy", "render"]);
    let link = "# mgy0123456789ab is web/frontend-0: device group 0x6d000005\n";
    let expected = format!("table inet margay {{\n}}\n{link}");
    assert_eq!(stdout(&text), expected, "{}", stderr(&text));
    let json = margayctl(tmp.path(), &["policy", "render", "-o", "json"]);
    assert_eq!(
        stdout(&json),
        "{\n  \"nftables\": []\n}\n",
        "nothing but what nft reads"
    );

    let bfd = margayctl(tmp.path(), &["bgp", "bfd"]);
    assert_eq!(bfd.status.code(), Some(0), "{}", stderr(&bfd));
    assert!(
        stdout(&bfd).contains("eth0       Up     1m05s  300ms  900ms   1    0"),
        "{}",
        stdout(&bfd)
    );
    assert!(stdout(&bfd).ends_with("packets dropped: time to live 7\n"));

    let json = margayctl(
        tmp.path(),
        &[
            "bgp",
            "routes",
            "10.0.0.0/8",
            "--neighbor",
            "192.0.2.1",
            "-o",
            "json",
        ],
    );
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let route = &document["routes"][0];
    assert_eq!(route["prefix"], "10.0.0.0/8");
    assert_eq!(route["neighbor"], "192.0.2.1");
    assert_eq!(route["local_pref"], 100);
    assert!(route["med"].is_null());

    let told = margayctl(tmp.path(), &["bgp", "advertised", "192.0.2.1"]);
    assert!(stdout(&told).contains("10.0.0.0/26"), "{}", stdout(&told));
    let why = margayctl(tmp.path(), &["bgp", "explain", "10.0.0.7"]);
    assert_eq!(stdout(&why), "10.0.0.7\n");

    let yaml = margayctl(tmp.path(), &["endpoints", "-o", "yaml"]);
    let document: serde_json::Value = serde_saphyr::from_str(stdout(&yaml)).unwrap();
    assert_eq!(document["endpoints"][0]["pod"], "web/frontend-0");

    let status = margayctl(tmp.path(), &["status", "-o", "json"]);
    assert_eq!(status.status.code(), Some(0), "{}", stderr(&status));
    let document: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(document["felix"]["node"], "n1");
    assert_eq!(document["bgpd"]["asn"], 4_200_000_001_u32);
    assert!(
        document["problems"][0]
            .as_str()
            .unwrap()
            .contains("last good configuration"),
        "{document}"
    );
}

#[test]
fn an_absent_daemon_is_exit_code_1_with_the_next_step() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), false);
    let path = tmp.path().join("felix.sock");

    let answer = margayctl(tmp.path(), &["endpoints"]);
    assert_eq!(answer.status.code(), Some(1));
    let expected = format!(
        "margayctl: felix does not answer on {}: is margay-felix running on this node?",
        path.display()
    );
    assert!(
        stderr(&answer).starts_with(&expected),
        "{}",
        stderr(&answer)
    );
    assert!(stdout(&answer).is_empty());

    // One daemon of two: what there is, and a failure.
    let answer = margayctl(tmp.path(), &["status", "-o", "json"]);
    assert_eq!(answer.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(document["felix"].is_null());
    assert_eq!(document["bgpd"]["router_id"], "10.0.1.1");
    let problem = document["problems"][0].as_str().unwrap();
    assert!(problem.contains("felix does not answer"), "{problem}");
}

/// Three prefixes, one in each answer.
fn page(after: &str) -> v1::ListRoutesResponse {
    let all = ["10.8.0.0/26", "10.8.0.64/26", "10.8.0.128/26"];
    let at = all
        .iter()
        .position(|it| *it == after)
        .map_or(0, |it| it + 1);
    v1::ListRoutesResponse {
        routes: vec![v1::Route {
            prefix: all[at].to_owned(),
            ..Default::default()
        }],
        next: if at < 2 {
            all[at].to_owned()
        } else {
            String::new()
        },
    }
}

#[test]
fn a_long_answer_is_asked_for_in_parts() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);
    let answer = margayctl(tmp.path(), &["bgp", "routes", "10.8.0.0/16", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let routes = document["routes"].as_array().unwrap();
    let prefixes: Vec<&str> = routes
        .iter()
        .filter_map(|it| it["prefix"].as_str())
        .collect();
    assert_eq!(prefixes, ["10.8.0.0/26", "10.8.0.64/26", "10.8.0.128/26"]);
}

#[test]
fn errors_of_a_call_are_told_in_words() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);

    let answer = margayctl(tmp.path(), &["ipam", "show"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(
        stderr(&answer).contains("of another version"),
        "{}",
        stderr(&answer)
    );

    let answer = margayctl(tmp.path(), &["policy", "list", "--timeout", "0.2"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(
        stderr(&answer).contains("took too long"),
        "{}",
        stderr(&answer)
    );
}

#[test]
fn a_drain_says_what_leaves() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);
    let said = |args: &[&str]| {
        let all: Vec<&str> = ["bgp", "drain"].iter().chain(args).copied().collect();
        margayctl(tmp.path(), &all)
    };
    assert_eq!(stdout(&said(&[])), "services \n");
    assert_eq!(
        stdout(&said(&["--peer", "192.0.2.1"])),
        "services 192.0.2.1\n"
    );
    assert_eq!(
        stdout(&said(&["--force"])),
        "everything false, force true\n"
    );
    let undone = said(&["--undo"]);
    assert_eq!(undone.status.code(), Some(1));
    assert!(
        stderr(&undone).contains("annotation"),
        "{}",
        stderr(&undone)
    );
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_has_examples() {
    let tmp = tempfile::tempdir().unwrap();
    for wrong in [
        &["bgp"][..],
        &["bgp", "routes", "10.1.2.3/8"],
        &["bgp", "routes", "--longer"],
        &["bgp", "explain"],
        &["bgp", "drain", "--force", "--peer", "192.0.2.1"],
        &["status", "-o", "xml"],
        &["policy", "list", "--timeout", "0"],
    ] {
        let answer = margayctl(tmp.path(), wrong);
        assert_eq!(
            answer.status.code(),
            Some(2),
            "{wrong:?}: {}",
            stderr(&answer)
        );
    }
    let help = margayctl(tmp.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Examples:"));
}

#[test]
fn a_watch_asks_again_and_outlives_a_daemon() {
    let tmp = tempfile::tempdir().unwrap();
    let runtime = serve(tmp.path(), false);
    let mut child = Command::new(env!("CARGO_BIN_EXE_margayctl"))
        .arg("--run-dir")
        .arg(tmp.path())
        .args(["bgp", "neighbors", "--watch=0.05"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |word: &str| {
        lines
            .find(|it| it.as_ref().unwrap().contains(word))
            .is_some()
    };
    assert!(until("Established") && until("Established"));
    drop(runtime);
    assert!(until("margayctl: "), "it says that nobody answers");
    let runtime = serve(tmp.path(), false);
    assert!(until("Established"));
    child.kill().unwrap();
    child.wait().unwrap();
    let drained = margayctl(tmp.path(), &["bgp", "drain", "--watch"]);
    assert_eq!(drained.status.code(), Some(1));
    assert!(stderr(&drained).contains("--show"), "{drained:?}");
    drop(runtime);
}

#[test]
fn the_verdict_is_the_exit_code() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);
    let ask = |from: &str, port: &str| {
        let flow = [
            "policy", "explain", "--from", from, "--to", "db/pg", "--port", port,
        ];
        margayctl(tmp.path(), &flow)
    };
    assert_eq!(ask("shop/web", "80").status.code(), Some(0));
    assert_eq!(ask("shop/web", "81").status.code(), Some(3));
    let change = |name| margayctl(tmp.path(), &["policy", "what-if", "--delete", name]);
    assert_eq!(change("networkpolicy/a/b").status.code(), Some(3));
    let unknown = ask("shop/nobody", "80");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("no pod shop/nobody"),
        "{unknown:?}"
    );
}

#[test]
fn events_are_lines_with_a_time() {
    let tmp = tempfile::tempdir().unwrap();
    let _daemons = serve(tmp.path(), true);
    let answer = margayctl(tmp.path(), &["policy", "events", "--watch"]);
    assert_eq!(
        stdout(&answer),
        "2026-01-01T00:00:00.123Z  denied  ingress of db/pg  203.0.113.7 -> db/pg (10.0.0.2), TCP 22  \
         follow true, pod \"\"\n"
    );
    let answer = margayctl(
        tmp.path(),
        &["policy", "logs", "--pod", "db/pg", "-o", "json"],
    );
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(document["why"], "follow false, pod \"db/pg\"");
}
