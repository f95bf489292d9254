//! Policy: what changes cost in clusters of several sizes, and what packets cost beside a chain for each policy.

mod chains;
mod cluster;
mod cold;
mod node;
mod packets;
mod updates;

use anyhow::Result;
use cluster::Size;
use packets::{Flow, Rules, Times};
use updates::Figures;

use crate::ground::Ground;
use crate::report::Table;

pub(crate) use cold::measure as cold;

/// What was asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Choice {
    /// What to measure; all without any
    #[arg(value_name = "PART", value_parser = ["updates", "cold", "packets"])]
    parts: Vec<String>,
    /// Pods in the clusters
    #[arg(short, long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000],
          value_parser = clap::value_parser!(u32).range(i64::from(cluster::LOCAL)..=1_000_000))]
    pods: Vec<u32>,
    /// How often each change is made, and how many bursts of packets are sent
    #[arg(short, long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..=200))]
    runs: u16,
    /// Rulesets that packets go through, by a part of their names; all without any
    #[arg(long, value_name = "NAME")]
    rules: Vec<String>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            pods: vec![1_000, 10_000, 100_000],
            runs: 60,
            rules: Vec::new(),
        }
    }
}

/// Measures what was chosen.
pub(crate) fn run(ground: &Ground, choice: &Choice) -> Result<()> {
    let wanted = |part: &str| choice.parts.is_empty() || choice.parts.iter().any(|it| it == part);
    if wanted("updates") {
        print_updates(ground, choice)?;
    }
    if wanted("cold") {
        print_cold(choice)?;
    }
    if wanted("packets") {
        print_packets(&packets::run(ground, choice.runs, &choice.rules)?);
    }
    Ok(())
}

fn print_updates(ground: &Ground, choice: &Choice) -> Result<()> {
    let columns = [
        "felix p50, µs",
        "p99",
        "kernel p50, µs",
        "p99",
        "elements, most",
    ];
    for &pods in &choice.pods {
        let size = Size::of(pods);
        let title = format!(
            "{} pods, {} policies, {} pods here",
            size.pods,
            size.policies,
            cluster::LOCAL
        );
        let mut table = Table::alone(&title, &columns);
        for figures in updates::run(ground, size, choice.runs.into())? {
            row(&mut table, &figures);
        }
        table.print();
    }
    let mut table = Table::alone("blocks", &columns);
    row(&mut table, &updates::blocks(ground, choice.runs.into())?);
    table.print();
    Ok(())
}

fn row(table: &mut Table, figures: &Figures) {
    let micros = |ms: f64| ms * 1e3;
    table.row(
        figures.what,
        &[
            micros(figures.compute.median()),
            micros(figures.compute.p99()),
            micros(figures.commit.median()),
            micros(figures.commit.p99()),
            f64::from(u32::try_from(figures.changes).unwrap_or(u32::MAX)),
        ],
    );
}

fn print_cold(choice: &Choice) -> Result<()> {
    let mut table = Table::alone(
        "from nothing to enforced",
        &["felix, ms", "kernel, ms", "elements", "memory, MiB"],
    );
    for &pods in &choice.pods {
        let size = Size::of(pods);
        let what = format!("{} pods, {} policies", size.pods, size.policies);
        table.row(&what, &cold::run(size)?);
    }
    table.print();
    Ok(())
}

fn print_packets(times: &[Times]) {
    let of = |rules: Rules, flow: Flow| {
        times
            .iter()
            .find(|it| it.rules == rules)
            .map_or(f64::NAN, |it| it.of(flow))
    };
    let columns = [
        "new, one end",
        "new, both ends",
        "again",
        "above tracking: one end",
        "both ends",
        "again",
    ];
    let mut table = Table::alone("nanoseconds a packet, sent and forwarded", &columns);
    for it in times {
        let own = Flow::ALL.map(|flow| it.of(flow));
        let above = Flow::ALL.map(|flow| it.of(flow) - of(Rules::Tracking, flow));
        table.row(&it.rules.name(), &[own, above].concat());
    }
    table.print();
}
