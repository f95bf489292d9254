//! BGP beside others: an injector and receivers of our own around the speaker that is measured.
//!
//! ```text
//! namespace "ends"                          namespace "speaker"
//!   senders   198.18.1.1 … ──┐ veth ┌── 198.18.255.1
//!   (pre-encoded UPDATEs)    └──────┘      the speaker: ours, BIRD, FRR, GoBGP, or a relay without a table
//!   receivers 198.19.1.1 … ──┐ veth ┌── 198.19.255.1
//!   (count prefixes)         └──────┘
//! ```
//!
//! `feed` makes tables from a seed, `wire` encodes and counts, `ends` is the one thread that holds all sessions, `rows` says
//! what is measured, `run` does it once, `figures` makes the table. All ends and all speakers run at the highest ordinary
//! priority, the ends on the last core: what else the machine does is seen by `weather` and printed with every run.

mod bfd;
mod dice;
mod ends;
mod feed;
mod figures;
pub(crate) mod first;
mod kernel;
mod relay;
mod rows;
mod run;
mod speakers;
mod weather;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use figures::{Results, Runs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use run::{Prepared, Seen};
use speakers::Speaker;

use crate::ground::Ground;
use crate::usage;

pub(crate) use relay::run as relay;

/// What was asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Choice {
    /// Rows to measure; all without any
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// So many routes of each sender, instead of the row's own number
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    routes: Option<u32>,
    /// How many runs of each, taken in turn
    #[arg(short, long, default_value_t = RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long sessions are watched where time is all that passes (bfd-200), instead of twenty seconds
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=60))]
    minutes: Option<u32>,
    /// Only these speakers: margay-bgpd, bird, frr, frr-queue, gobgp, null
    #[arg(short, long, value_delimiter = ',', value_parser = speaker)]
    speakers: Vec<Speaker>,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Only say which rows there are
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

const RUNS: u32 = 5;
const WATCHED: Duration = Duration::from_secs(20);
/// Open files, of this process and of each speaker: a thousand sessions and some.
const FILES: u64 = 65_536;

fn speaker(name: &str) -> Result<Speaker, String> {
    let found = Speaker::ALL.into_iter().find(|s| s.name() == name);
    found.ok_or_else(|| format!("there are: {}", Speaker::ALL.map(Speaker::name).join(", ")))
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            routes: None,
            runs: RUNS,
            minutes: None,
            speakers: Vec::new(),
            output: Output::Table,
            list: false,
        }
    }
}

impl Choice {
    /// Nothing is measured.
    pub(crate) const fn only_list(&self) -> bool {
        self.list
    }
}

/// Prints the rows there are.
pub(crate) fn list() {
    for row in rows::ROWS {
        println!("{}", row.name);
    }
}

/// Measures and prints.
pub(crate) fn run(ground: &Ground, choice: &Choice) -> Result<()> {
    let rows = rows::chosen(&choice.rows)?;
    let works = rows::works(&rows, choice.routes);
    let speakers = |work: &rows::Work| -> Vec<Speaker> {
        let asked = |s: &&Speaker| choice.speakers.is_empty() || choice.speakers.contains(s);
        work.speakers.iter().filter(asked).copied().collect()
    };
    let all: BTreeSet<Speaker> = works.iter().flat_map(&speakers).collect();
    for speaker in all.iter().filter(|s| **s != Speaker::Null) {
        let size = std::fs::metadata(speaker.program()?)?.len();
        eprintln!(
            "{:<12} {}, binary {:.1} MB",
            speaker.name(),
            speaker.version()?,
            f64::from(u32::try_from(size)?) / 1e6
        );
    }
    first::go()?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most.min(FILES), most)?;
    let watched = |minutes| Duration::from_secs(60 * u64::from(minutes));
    let watched = choice.minutes.map_or(WATCHED, watched);
    let mut results = Results::new();
    for work in &works {
        let prepared = Prepared::new(*work, watched);
        for speaker in speakers(work) {
            let runs = results.entry((work.name, speaker)).or_default();
            runs.failed
                .extend(speaker.hindrance(ground, work.writes())?);
        }
        for number in 1..=choice.runs {
            for speaker in speakers(work) {
                let runs = results.entry((work.name, speaker)).or_default();
                once(ground, &prepared, speaker, (number, choice.runs), runs);
            }
        }
    }
    match choice.output {
        Output::Table => {
            println!("\n{}", usage::machine());
            print!("{}", figures::table(&rows, &works, &results));
            println!("{LEGEND}");
        }
        Output::Json => {
            let rows = figures::json(&rows, &works, &results);
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
    }
    Ok(())
}

const LEGEND: &str = "\
time: first byte sent until the slowest receiver had all. CPU: the speaker's, user and system. extra: UPDATEs beyond the
fewest possible. busy: what all else used, in percent of a core; * more than 15 in the median run. Medians (min-max), of
the quiet runs where at least 3 were. Ratios: time, CPU, RSS; of single routes (ms) what is above the table-less null.";

fn once(
    ground: &Ground,
    prepared: &Prepared,
    speaker: Speaker,
    (number, of): (u32, u32),
    runs: &mut Runs,
) {
    let head = format!(
        "{:<13} {number}/{of} {:<12}",
        prepared.work.name,
        speaker.name()
    );
    if let Some(reason) = runs.failed.iter().find(|_| runs.seen.is_empty()) {
        // What failed at first would fail again.
        eprintln!(
            "{head} left out: {}",
            reason.lines().next().unwrap_or_default()
        );
        return;
    }
    match prepared.run(ground, speaker) {
        Ok(seen) => {
            eprintln!("{head} {}", brief(&seen));
            runs.seen.push(seen);
        }
        Err(error) => {
            eprintln!("{head} failed: {error:#}");
            runs.failed.push(format!("{error:#}"));
        }
    }
}

fn brief(seen: &Seen) -> String {
    let part = |name: &str, took: &run::Took| {
        format!(
            "{name} {:.3} s, CPU {:.3} s, busy {:.0} %",
            took.time.as_secs_f64(),
            took.cpu.as_secs_f64(),
            took.foreign * 100.0
        )
    };
    let mut text = part("load", &seen.load) + &format!(", {:.1} MiB", seen.rss);
    if let Some((time, _)) = seen.ping {
        text += &format!("; ping {:.3} ms", time.as_secs_f64() * 1e3);
    }
    if let Some(took) = &seen.end {
        text += &part("; end", took);
    }
    text
}
