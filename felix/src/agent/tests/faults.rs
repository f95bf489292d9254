//! What goes wrong around the agent, and what it makes of it.

use api::v1::BgpdMessage;

use super::*;

#[test]
fn nothing_spins_while_the_api_stays_away() {
    let mut rig = Rig::start(&[], &[]);
    rig.wait(3 * BGP_PATIENCE);
}

#[test]
fn nothing_spins_while_the_kernel_refuses_a_known_pod() {
    let mut rig = Rig::synced();
    rig.feed(Update::Pod(feed_pod(1)));
    rig.add(1, 1);
    rig.kernel_refuses = true;
    rig.ready(1, 1);
    rig.wait(6_000);
    assert_eq!(rig.error(1).code, Code::TryAgain);
    assert!(rig.fetches.is_empty(), "the feed told of it");
}

/// The node's block objects as the API has them.
fn objects(rig: &Rig) -> Vec<IPAMBlock> {
    let mirror = |cidr: &Cidr| rig.mirrors.get(cidr).cloned().unwrap_or_default();
    rig.created
        .iter()
        .map(|cidr| block_object(*cidr, &mirror(cidr)))
        .collect()
}

fn list(rig: &mut Rig, objects: &[IPAMBlock]) {
    for object in objects {
        rig.feed(Update::Block(Box::new(object.clone())));
    }
}

#[test]
fn a_lost_log_is_made_good_by_mirror_and_interface_and_stays_so() {
    let mut rig = Rig::synced();
    let kept = rig.attach(1, 1);
    rig.wait(2_000);
    let objects = objects(&rig);
    let links = [(key(1).host_interface(), 101)];

    let mut rig = Rig::start(&[], &links);
    list(&mut rig, &objects);
    rig.feed(Update::Pod(feed_pod(1)));
    rig.sync();
    let linked = |rig: &Rig| {
        let links = &rig.agent.tables().links;
        links.contains_key(&key(1).host_interface())
    };
    assert!(linked(&rig), "its pod has network again");
    assert_eq!(rig.agent.wants().workloads.len(), 2);

    let mut rig = Rig::start(&rig.log, &links);
    list(&mut rig, &objects);
    rig.feed(Update::Pod(feed_pod(1)));
    rig.sync();
    assert!(linked(&rig), "and after the next restart");
    assert!(!rig.add(2, 2).iter().any(|address| kept.contains(address)));
    rig.call(3, Request::Del { key: key(1) });
    assert_eq!(rig.reply(3), Some(Reply::Done));
    assert_eq!(rig.used(), 2, "only those of the second pod");
}

#[test]
fn a_list_with_an_old_mirror_brings_no_dead_attachment_back() {
    let mut rig = Rig::synced();
    rig.attach(1, 1);
    rig.wait(2_000);
    let objects = objects(&rig);
    rig.call(2, Request::Del { key: key(1) });
    // The interface is a while in going.
    rig.give(Input::Link(key(1).host_interface(), Some(101)));
    list(&mut rig, &objects);
    rig.feed(Update::InSync(Kind::IpamBlock));
    assert!(rig.agent.list_endpoints().endpoints.is_empty());

    let mut rig = Rig::start(&rig.log, &[(key(1).host_interface(), 101)]);
    list(&mut rig, &objects);
    rig.sync();
    assert!(rig.agent.list_endpoints().endpoints.is_empty());
}

#[test]
fn addresses_that_only_old_routes_and_mirrors_show_are_held_back_for_a_while() {
    let mut rig = Rig::synced();
    let addresses = rig.attach(1, 1);
    rig.wait(2_000);
    let objects = objects(&rig);

    // Neither log nor interface are left.
    let mut rig = Rig::routed(&[], &[], &addresses);
    list(&mut rig, &objects);
    rig.sync();
    assert_eq!(rig.used(), 2);
    rig.wait(30_000);
    assert_eq!(rig.used(), 2, "somebody may have them");
    rig.wait(120_000);
    assert_eq!(rig.used(), 0, "nobody has");
}

fn ask(n: u32) -> Request {
    Request::Add {
        key: key(n),
        pod: pod(n),
    }
}

#[test]
fn a_second_add_of_an_attachment_is_refused_and_harms_nothing() {
    let mut rig = Rig::synced();
    let kept = rig.attach(1, 1);
    rig.call(2, ask(1));
    assert_eq!(rig.error(2).code, Code::BadEnvironment);
    rig.give(Input::Hangup(2));
    assert_eq!(rig.agent.list_endpoints().endpoints[0].state, "Ready");
    assert_eq!(rig.agent.wants().workloads.len(), kept.len());

    // Its interface went without a DEL: the container is a new one.
    rig.give(Input::Link(key(1).host_interface(), None));
    rig.add(3, 1);
    rig.ready(3, 1);
    assert_eq!(rig.reply(3), Some(Reply::Done));
}

#[test]
fn of_two_adds_at_once_the_second_waits_for_the_first() {
    let mut rig = Rig::synced();
    rig.feed(Update::Pod(feed_pod(1)));
    rig.add(1, 1);
    rig.call(2, ask(1));
    assert_eq!(rig.reply(2), None);
    rig.ready(2, 1);
    assert!(
        matches!(rig.reply(2), Some(Reply::Failed { .. })),
        "it has reserved nothing"
    );
    rig.call(3, ask(1));
    rig.give(Input::Hangup(1));
    assert!(matches!(rig.reply(2), Some(Reply::Reserved { .. })));
    rig.ready(2, 1);
    assert_eq!(rig.reply(2), Some(Reply::Done));
    rig.wait(5_000);
    assert_eq!(rig.error(3).code, Code::BadEnvironment);
}

#[test]
fn a_del_answers_the_add_that_waits() {
    let mut rig = Rig::start(&[], &[]);
    rig.call(1, ask(1));
    rig.call(2, Request::Del { key: key(1) });
    assert_eq!(rig.reply(2), Some(Reply::Done));
    assert_eq!(rig.error(1).code, Code::TryAgain);
}

/// bgpd's word of a route.
fn learnt(prefix: &str) -> Input {
    let leg = api::v1::Leg {
        address: "192.0.2.1".into(),
        weight: 1,
        ..api::v1::Leg::default()
    };
    let update = api::v1::RouteUpdate {
        generation: 1,
        prefix: prefix.into(),
        legs: vec![leg],
    };
    Input::Bgpd(BgpdMessage {
        body: Some(api::v1::bgpd_message::Body::Route(update)),
    })
}

#[test]
fn a_refused_route_holds_up_only_what_it_leads_to() {
    let mut rig = Rig::synced();
    rig.give(Input::BgpdConnected);
    rig.refused = vec!["10.9.0.0/26".parse().unwrap()];
    rig.give(learnt("10.9.0.0/26"));
    let told = rig.agent.status(rig.now).problems;
    assert!(told.iter().any(|p| p.contains("ENETUNREACH")), "{told:?}");
    rig.attach(1, 1);
    rig.call(2, Request::Del { key: key(1) });
    assert_eq!(rig.reply(2), Some(Reply::Done));

    rig.feed(Update::Pod(feed_pod(3)));
    let addresses = rig.add(3, 3);
    rig.refused.push(Cidr::host(addresses[0]));
    rig.ready(3, 3);
    assert_eq!(rig.reply(3), None, "its own route is missing");
    rig.refused.clear();
    rig.wait(1_000);
    assert_eq!(rig.reply(3), Some(Reply::Done), "tried again");
    assert!(rig.agent.routed.problem.is_none());
    let tries = rig.applied;
    rig.wait(60_000);
    assert!(rig.applied <= tries + 2, "and then left in peace");
}

#[test]
fn a_route_that_another_program_holds_is_a_problem_until_it_is_gone() {
    let mut rig = Rig::synced();
    let refused = BTreeSet::from(["10.244.1.0/26 metric 128".to_owned()]);
    rig.give(Input::RoutesRefused(refused));
    let problems = rig.agent.status(rig.now).problems;
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("10.244.1.0/26 metric 128")),
        "{problems:?}"
    );
    rig.give(Input::RoutesRefused(BTreeSet::new()));
    let problems = rig.agent.status(rig.now).problems;
    assert!(!problems.iter().any(|problem| problem.contains("metric")));
}

/// Prefixes announced or, with `withdrawn`, withdrawn on the stream to bgpd.
fn origins(rig: &Rig, withdrawn: bool) -> Vec<String> {
    let bodies = rig.to_bgpd.iter().filter_map(|m| m.body.as_ref());
    bodies
        .filter_map(|body| match body {
            api::v1::felix_message::Body::Origin(o) if o.withdrawn == withdrawn => {
                Some(o.prefix.clone())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_pool_that_is_exported_again_is_announced_only_behind_its_route() {
    let mut rig = Rig::synced();
    rig.give(Input::BgpdConnected);
    let announced = origins(&rig, false);
    let export = |rig: &mut Rig, export| {
        let pool = Pool {
            export,
            ..pool("10.244.0.0/16")
        };
        rig.feed(Update::Pool("10.244.0.0/16".into(), Ok(pool), Some(false)));
    };
    export(&mut rig, false);
    assert_eq!(origins(&rig, true), announced[..1]);
    rig.kernel_refuses = true;
    export(&mut rig, true);
    assert_eq!(origins(&rig, false), announced, "not again yet");
    rig.kernel_refuses = false;
    rig.wait(1_000);
    assert_eq!(origins(&rig, false)[announced.len()..], announced[..1]);
}

#[test]
fn a_block_is_given_back_only_when_no_peer_can_hold_its_route() {
    let mut rig = Rig::synced();
    rig.give(Input::BgpdConnected);
    rig.give(Input::BgpdLost);
    // Without its pools a block is not needed.
    for cidr in ["10.244.0.0/16", "fd00:10:244::/64"] {
        rig.feed(Update::PoolGone(cidr.into()));
    }
    rig.wait(100_000);
    assert_eq!(
        rig.agent.wants().blocks.len(),
        2,
        "a bgpd may announce them"
    );
    rig.wait(PEERS_FORGET);
    assert!(rig.agent.wants().blocks.is_empty());
    assert!(rig.agent.list_blocks().blocks.is_empty());
}

#[test]
fn a_pool_that_an_earlier_life_refused_is_accepted_again() {
    let mut rig = Rig::synced();
    let told = |refused| Update::Pool("p".into(), Ok(pool("10.245.0.0/16")), Some(refused));
    rig.feed(told(true));
    assert_eq!(rig.conditions, [None], "its condition is put right");
    rig.feed(told(false));
    assert_eq!(rig.conditions, [None], "and then left alone");
}

#[test]
fn an_add_without_a_pod_is_told_so_at_once() {
    let mut rig = Rig::synced();
    let request = Request::Add {
        key: key(1),
        pod: Pod::default(),
    };
    rig.call(1, request);
    let error = rig.error(1);
    assert_eq!(error.code, Code::BadEnvironment);
    assert!(error.details.contains("K8S_POD_UID"));
}

#[test]
fn a_floating_address_stays_announced_until_it_is_known_who_has_it() {
    let floating: IpAddr = "192.0.2.77".parse().unwrap();
    let prefix = format!("{floating}/32");
    let mut rig = Rig::routed(&[], &[], &[floating]);
    rig.give(Input::BgpdConnected);
    assert_eq!(origins(&rig, false), std::slice::from_ref(&prefix));
    // Nobody asks for it any more.
    rig.sync();
    assert_eq!(origins(&rig, true), std::slice::from_ref(&prefix));
    rig.to_bgpd.clear();
    rig.give(Input::BgpdLost);
    rig.give(Input::BgpdConnected);
    assert!(!origins(&rig, false).contains(&prefix));
}
