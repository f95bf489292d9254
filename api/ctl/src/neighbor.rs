//! One neighbour with all that is known of its session.

use std::fmt::Write as _;

use api::v1;

use crate::table::{Cell, Screen, Table, Tone, duration};

/// Everything, by subject.
pub(crate) fn show(nbr: &v1::Neighbor, screen: Screen) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<14}{}", text.trim_end());
    };
    let up = nbr.state == "Established";
    let tone = if up { Tone::Good } else { Tone::Warn };
    let external = if nbr.peer_asn == nbr.local_asn {
        "internal"
    } else {
        "external"
    };
    line("neighbor", format!("{}  {}", nbr.address, nbr.name));
    line(
        "as",
        format!("{} ({external}), told {}", nbr.peer_asn, nbr.local_asn),
    );
    line(
        "state",
        format!(
            "{} for {}, established {}",
            screen.paint(&nbr.state, tone),
            duration(nbr.state_seconds),
            times(nbr.established_count),
        ),
    );
    if let Some(seconds) = nbr.retry_seconds.filter(|_| !up) {
        line("next attempt", format!("in {}", duration(seconds)));
    }
    if !nbr.problem.is_empty() {
        line("problem", screen.paint(&nbr.problem, Tone::Bad));
    }
    if !nbr.last_error.is_empty() {
        line("last error", nbr.last_error.clone());
    }
    if up {
        line("router id", nbr.peer_router_id.clone());
        let hold = match nbr.hold_seconds {
            0 => "none, and no keepalives".to_owned(),
            seconds => format!("{seconds}s"),
        };
        line("hold time", hold);
    }
    if !nbr.range.is_empty() {
        line("range", nbr.range.clone());
    }
    if !nbr.bfd.is_empty() {
        line("bfd", nbr.bfd.clone());
    }
    line("restart", restart(nbr, up));
    for (name, capabilities) in [
        ("it can", &nbr.capabilities),
        ("told we can", &nbr.announced),
    ] {
        for (index, capability) in capabilities.iter().enumerate() {
            line(if index == 0 { name } else { "" }, capability.clone());
        }
    }
    for family in &nbr.families {
        for text in remarks(family) {
            line(&family.family, screen.paint(&text, Tone::Warn));
        }
    }
    out.push('\n');
    out += &families(nbr, screen);
    out.push('\n');
    out += &messages(nbr, screen);
    out
}

fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

fn restart(nbr: &v1::Neighbor, up: bool) -> String {
    let Some(restart) = &nbr.restart else {
        return if up {
            "not graceful: its routes go with the session".to_owned()
        } else {
            "not known without a session".to_owned()
        };
    };
    let mut text = format!("graceful, it may take {}s", restart.time_seconds);
    if restart.notifications {
        text += ", also after a NOTIFICATION";
    }
    if restart.restarted {
        text += "; it has restarted";
        let kept = nbr.families.iter().filter(|it| it.preserved);
        let kept: Vec<&str> = kept.map(|it| it.family.as_str()).collect();
        if kept.is_empty() {
            text += " and kept no forwarding";
        } else {
            let _ = write!(text, " and kept forwarding {}", kept.join(", "));
        }
    }
    text
}

/// What is worth a line of its own about a family.
fn remarks(family: &v1::FamilyCount) -> Vec<String> {
    let mut all = Vec::new();
    if !family.stale_stage.is_empty() {
        all.push(format!(
            "{} stale routes, {}, for {} at most",
            family.stale,
            family.stale_stage,
            duration(family.stale_seconds)
        ));
    }
    if let (true, Some(limit)) = (family.over_limit, family.limit) {
        all.push(format!(
            "more than {limit} routes announced: {}",
            family.over_limit_action
        ));
    }
    all
}

fn families(nbr: &v1::Neighbor, screen: Screen) -> String {
    let mut table = Table::new(&[
        "FAMILY", "AGREED", "RECEIVED", "ACCEPTED", "STALE", "LIMIT", "SENT", "EOR",
    ]);
    for it in &nbr.families {
        let yes = |it: bool| Cell::from(if it { "yes" } else { "no" });
        let limit = match it.limit {
            Some(limit) => format!("{limit} {}", it.over_limit_action),
            None => String::new(),
        };
        table.row(vec![
            it.family.as_str().into(),
            yes(it.negotiated),
            it.received.into(),
            it.accepted.into(),
            it.stale.into(),
            limit.into(),
            it.advertised.into(),
            yes(it.end_of_rib),
        ]);
    }
    table.render(screen)
}

fn messages(nbr: &v1::Neighbor, screen: Screen) -> String {
    let mut table = Table::new(&[
        "MESSAGES",
        "OPEN",
        "UPDATE",
        "NOTIFICATION",
        "KEEPALIVE",
        "REFRESH",
    ]);
    for (name, counts) in [("received", &nbr.received), ("sent", &nbr.sent)] {
        let Some(it) = counts else { continue };
        table.row(vec![
            name.into(),
            it.open.into(),
            it.update.into(),
            it.notification.into(),
            it.keepalive.into(),
            it.refresh.into(),
        ]);
    }
    table.render(screen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_shown_with_what_was_agreed_on_and_what_is_odd() {
        let nbr = v1::Neighbor {
            name: "tor-a".into(),
            address: "192.0.2.1".into(),
            peer_asn: 64601,
            local_asn: 65001,
            state: "Established".into(),
            state_seconds: 65,
            hold_seconds: 9,
            peer_router_id: "10.0.0.1".into(),
            established_count: 2,
            last_error: "received Cease: administrative shutdown (6/2) \"back soon\"".into(),
            capabilities: vec!["IPv4 unicast".into(), "graceful restart 120 s".into()],
            announced: vec!["IPv4 unicast".into()],
            restart: Some(v1::PeerRestart {
                restarted: true,
                notifications: true,
                time_seconds: 120,
            }),
            families: vec![v1::FamilyCount {
                family: "ipv4".into(),
                negotiated: true,
                received: 7,
                accepted: 6,
                advertised: 3,
                stale: 2,
                stale_stage: "waiting for End-of-RIB".into(),
                stale_seconds: 30,
                limit: Some(5),
                over_limit_action: "warn".into(),
                over_limit: true,
                preserved: true,
                ..Default::default()
            }],
            received: Some(v1::MessageCounts {
                open: 2,
                update: 9,
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = show(&nbr, Screen::default());
        assert_eq!(
            text,
            "\
neighbor      192.0.2.1  tor-a
as            64601 (external), told 65001
state         Established for 1m05s, established 2 times
last error    received Cease: administrative shutdown (6/2) \"back soon\"
router id     10.0.0.1
hold time     9s
restart       graceful, it may take 120s, also after a NOTIFICATION; it has restarted and kept forwarding ipv4
it can        IPv4 unicast
              graceful restart 120 s
told we can   IPv4 unicast
ipv4          2 stale routes, waiting for End-of-RIB, for 30s at most
ipv4          more than 5 routes announced: warn

FAMILY  AGREED  RECEIVED  ACCEPTED  STALE  LIMIT   SENT  EOR
ipv4    yes     7         6         2      5 warn  3     no

MESSAGES  OPEN  UPDATE  NOTIFICATION  KEEPALIVE  REFRESH
received  2     9       0             0          0
"
        );
    }

    #[test]
    fn a_peer_that_is_away_says_when_it_is_tried_again() {
        let nbr = v1::Neighbor {
            address: "192.0.2.1".into(),
            state: "Idle".into(),
            retry_seconds: Some(4),
            ..Default::default()
        };
        let text = show(&nbr, Screen::default());
        assert!(text.contains("next attempt  in 4s"), "{text}");
        assert!(text.contains("established never"), "{text}");
    }
}
