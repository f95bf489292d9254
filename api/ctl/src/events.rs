//! Denied and noted packets, one a line.

use std::io::Write as _;

use api::client::{Daemon, Error};
use api::v1;

use crate::args::{Global, Output};
use crate::query::felix;
use crate::table::{Screen, Tone};

/// Prints the last events and, with --watch, what comes after them.
pub(crate) async fn print(global: &Global, pod: &str, screen: Screen) -> anyhow::Result<()> {
    let follow = global.watch.is_some();
    let request = v1::WatchPolicyEventsRequest {
        follow,
        pod: pod.to_owned(),
    };
    let mut events = felix(global)
        .await?
        .watch_policy_events(request)
        .await
        .map_err(Error::call(Daemon::Felix))?
        .into_inner();
    let mut none = true;
    while let Some(event) = events.message().await.map_err(Error::call(Daemon::Felix))? {
        none = false;
        let text = match global.output {
            Output::Table | Output::Wide => line(&event, screen),
            Output::Json => serde_json::to_string(&event)? + "\n",
            Output::Yaml => format!("---\n{}", serde_saphyr::to_string(&event)?),
        };
        let mut stdout = std::io::stdout();
        // A closed pipe (`| head`) is no failure of ours.
        if stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .is_err()
        {
            break;
        }
    }
    if none && !follow && matches!(global.output, Output::Table | Output::Wide) {
        println!("nothing was denied or noted since felix started: --watch waits for what comes");
    }
    Ok(())
}

fn line(event: &v1::PolicyEvent, screen: Screen) -> String {
    let tone = match event.what.as_str() {
        "denied" => Tone::Bad,
        _ => Tone::Warn,
    };
    let at = match event.pod.as_str() {
        "" => "at no pod".to_owned(),
        pod => format!("{} of {pod}", event.direction),
    };
    let reply = if event.reply { " (a reply)" } else { "" };
    format!(
        "{}  {}  {at}  {} -> {}, {}{reply}  {}\n",
        time(event.unix_millis),
        screen.paint(&event.what, tone),
        end(event.from.as_ref()),
        end(event.to.as_ref()),
        event.traffic,
        event.why
    )
}

fn end(end: Option<&v1::FlowEnd>) -> String {
    match end {
        Some(end) if end.pod.is_empty() => end.address.clone(),
        Some(end) => format!("{} ({})", end.pod, end.address),
        None => String::new(),
    }
}

/// RFC 3339 in UTC. The date by counting days in years that begin in March, so that a leap day is the last of one.
fn time(unix_millis: i64) -> String {
    const DAY: i64 = 86_400_000;
    /// From 0000-03-01 to 1970-01-01, and in 400, 100, 4 years and one.
    const EPOCH: i64 = 719_468;
    const ERA: i64 = 146_097;
    let (days, rest) = (unix_millis.div_euclid(DAY), unix_millis.rem_euclid(DAY));
    let day = days + EPOCH;
    let era = day.div_euclid(ERA);
    let of_era = day.rem_euclid(ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months of 30.6 days on average from March to January.
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, turned) = match month {
        0..=9 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    let year = year + era * 400 + turned;
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(millis), text);
        }
    }
}
