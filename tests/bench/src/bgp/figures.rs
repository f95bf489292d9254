//! What all runs of a row showed, as a table of 120 columns or as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rows::{Kind, Part, Rival, Row, Work};
use super::run::{Seen, Took};
use super::speakers::Speaker;
use super::weather::FOREIGN_MAX;

/// So many quiet runs are enough to leave the others out.
const QUIET_ENOUGH: usize = 3;

/// The runs of one speaker with one piece of work, and why there are none.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(crate) seen: Vec<Seen>,
    /// Why runs failed.
    pub(crate) failed: Vec<String>,
}

/// Everything measured: by the work's name and the speaker.
pub(crate) type Results = BTreeMap<(&'static str, Speaker), Runs>;

/// Median, smallest, largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    median: f64,
    min: f64,
    max: f64,
}

impl Figure {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(upper, *sorted.get(middle.checked_sub(1)?)?)
        } else {
            upper
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }

    fn text(self) -> String {
        format!(
            "{} ({}-{})",
            digits(self.median),
            digits(self.min),
            digits(self.max)
        )
    }

    fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

/// A speaker's figures in one row.
#[derive(Debug, Clone, Default)]
struct Cell {
    /// Runs used, of how many that went well, and how many failed.
    used: usize,
    runs: usize,
    failed: usize,
    /// Seconds; milliseconds for single routes.
    time: Option<Figure>,
    /// Seconds.
    cpu: Option<Figure>,
    /// MiB.
    rss: Option<Figure>,
    /// UPDATEs beyond the fewest possible, percent.
    excess: Option<Figure>,
    /// Percent of a core.
    foreign: Option<Figure>,
    why: Option<String>,
}

impl Cell {
    fn new(runs: &Runs, kind: Kind, part: Part) -> Self {
        let unit = Unit::of(kind, part);
        let foreign = |seen: &Seen| match part {
            Part::Load => Some(seen.load.foreign),
            Part::Ping => seen.ping.map(|(_, foreign)| foreign),
            Part::End => seen.end.map(|took| took.foreign),
        };
        let all: Vec<&Seen> = runs.seen.iter().filter(|s| foreign(s).is_some()).collect();
        let quiet: Vec<&Seen> = all
            .iter()
            .copied()
            .filter(|s| foreign(s).is_some_and(|f| f <= FOREIGN_MAX))
            .collect();
        let used = if quiet.len() >= QUIET_ENOUGH {
            quiet
        } else {
            all.clone()
        };
        let figure = |pick: &dyn Fn(&Seen) -> Option<f64>| {
            Figure::of(used.iter().filter_map(|seen| pick(seen)))
        };
        let took = |seen: &Seen| -> Option<Took> {
            match part {
                Part::Load => Some(seen.load),
                Part::End => seen.end,
                Part::Ping => None,
            }
        };
        let loads = part == Part::Load;
        Self {
            used: used.len(),
            runs: all.len(),
            failed: runs.failed.len(),
            time: figure(&|seen| match (part, unit) {
                (Part::Ping, _) => seen.ping.map(|(time, _)| time.as_secs_f64() * 1e3),
                (_, Unit::Share) => {
                    took(seen).map(|t| t.cpu.as_secs_f64() / t.time.as_secs_f64() * 100.0)
                }
                (_, Unit::Millis) => took(seen).map(|t| t.time.as_secs_f64() * 1e3),
                (_, Unit::Seconds) => took(seen).map(|t| t.time.as_secs_f64()),
            }),
            cpu: figure(&|seen| took(seen).map(|t| t.cpu.as_secs_f64())),
            rss: figure(&|seen| loads.then_some(seen.rss)),
            excess: figure(&|seen| loads.then_some(seen.excess * 100.0)),
            foreign: figure(&|seen| foreign(seen).map(|f| f * 100.0)),
            why: runs.failed.last().cloned(),
        }
    }

    /// What ratios are made of.
    fn medians(&self) -> [Option<f64>; 3] {
        [self.time, self.cpu, self.rss].map(|f| f.map(|f| f.median))
    }
}

/// Of what is in the column of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Millis,
    /// CPU in percent of a core.
    Share,
}

impl Unit {
    const fn of(kind: Kind, part: Part) -> Self {
        match (kind, part) {
            (Kind::Idle | Kind::Bfd, _) => Self::Share,
            (Kind::Start | Kind::Restart | Kind::Kernel | Kind::Failover, _) | (_, Part::Ping) => {
                Self::Millis
            }
            _ => Self::Seconds,
        }
    }
}

/// A row with all its speakers.
#[derive(Debug)]
struct Line<'a> {
    row: Row,
    work: &'a Work,
    cells: Vec<(Speaker, Cell)>,
}

impl<'a> Line<'a> {
    fn all(rows: &[Row], works: &'a [Work], results: &Results) -> Vec<Self> {
        rows.iter()
            .filter_map(|row| {
                let work = works.iter().find(|work| work.name == row.work)?;
                let cells = Speaker::ALL.iter().filter_map(|speaker| {
                    let runs = results.get(&(work.name, *speaker))?;
                    Some((*speaker, Cell::new(runs, work.kind, row.part)))
                });
                Some(Self {
                    row: *row,
                    work,
                    cells: cells.collect(),
                })
            })
            .collect()
    }

    /// Time, CPU and memory of each speaker over the rival's; of single routes, what is above the relay without a table.
    fn ratios(&self, cell: &Cell) -> [Option<f64>; 3] {
        let rival = self.rival().map(|(_, cell)| cell.medians());
        let floor = match self.row.part {
            Part::Ping => self
                .cells
                .iter()
                .find(|(speaker, _)| *speaker == Speaker::Null)
                .and_then(|(_, cell)| cell.medians()[0]),
            _ => Some(0.0),
        };
        let mut ratios = [None; 3];
        if let (Some(rival), Some(floor)) = (rival, floor) {
            let floors = [floor, 0.0, 0.0];
            for (i, ratio) in ratios.iter_mut().enumerate() {
                if let (Some(a), Some(b)) = (cell.medians()[i], rival[i]) {
                    *ratio = (b > floors[i]).then(|| (a - floors[i]).max(0.0) / (b - floors[i]));
                }
            }
        }
        ratios
    }

    fn rival(&self) -> Option<&(Speaker, Cell)> {
        let others = self
            .cells
            .iter()
            .filter(|(speaker, _)| !matches!(speaker, Speaker::Margay | Speaker::Null));
        let rival = match self.row.part {
            // The others batch on purpose: nobody is near it with single routes.
            Part::Ping => Rival::Named(Speaker::Bird),
            _ => self.work.rival,
        };
        match rival {
            Rival::Named(named) => {
                let mut others = others;
                others.find(|(speaker, _)| *speaker == named)
            }
            Rival::Best => {
                let cpu = |cell: &Cell| cell.medians()[1].unwrap_or(f64::INFINITY);
                others.min_by(|(_, a), (_, b)| cpu(a).total_cmp(&cpu(b)))
            }
        }
    }
}

/// The table.
pub(crate) fn table(rows: &[Row], works: &[Work], results: &Results) -> String {
    let mut text = format!(
        "{:<13}{:<12}{:>5}  {:<22}{:<18}{:<17}{:>6}{:>6}  {}\n",
        "row",
        "speaker",
        "runs",
        "time, s",
        "CPU, s",
        "RSS, MiB",
        "extra%",
        "busy%",
        "ratios to rival"
    );
    for line in Line::all(rows, works, results) {
        text += &"-".repeat(119);
        text.push('\n');
        let rival = line.rival().map(|(speaker, _)| *speaker);
        for (i, (speaker, cell)) in line.cells.iter().enumerate() {
            let name = if i == 0 { line.row.name } else { "" };
            let runs = match (cell.used, cell.runs) {
                (used, all) if used < all => format!("{used}/{all}"),
                (used, _) => used.to_string(),
            };
            let doubtful = cell.foreign.is_some_and(|f| f.median > FOREIGN_MAX * 100.0);
            let mark = if doubtful { "*" } else { "" };
            let show = |figure: Option<Figure>| figure.map_or_else(|| "-".to_owned(), Figure::text);
            let short = |figure: Option<Figure>, places: usize| {
                figure.map_or_else(|| "-".to_owned(), |f| format!("{:.places$}", f.median))
            };
            let unit = match Unit::of(line.work.kind, line.row.part) {
                Unit::Seconds => "",
                _ if cell.time.is_none() => "",
                Unit::Millis => " ms",
                Unit::Share => " %",
            };
            let time = show(cell.time) + unit;
            let head = format!("{name:<13}{:<12}", speaker.name());
            if let (0, Some(why)) = (cell.used, &cell.why) {
                let why = why.lines().next().unwrap_or_default();
                let why: String = why.chars().take(84).collect();
                text += format!("{head}      not measured: {why}\n").as_str();
                continue;
            }
            let ratios = match rival {
                Some(rival) if rival == *speaker => "rival".to_owned(),
                Some(_) if *speaker == Speaker::Null => String::new(),
                _ => line.ratios(cell).map(times).join(" "),
            };
            let out = format!(
                "{head}{:>5}  {:<22}{:<18}{:<17}{:>6}{:>6}  {ratios}",
                runs + mark,
                time,
                show(cell.cpu),
                show(cell.rss),
                short(cell.excess, 1),
                short(cell.foreign, 0),
            );
            text += out.trim_end();
            text.push('\n');
            if *speaker == Speaker::Margay && line.row.target.iter().any(Option::is_some) {
                let aimed = line.row.target.map(times).join(" ");
                text += &format!("{:>103}{aimed}\n", "aimed at  ");
            }
            if cell.failed > 0 {
                let why = cell.why.as_deref().unwrap_or_default();
                let why: String = why
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(75)
                    .collect();
                text += &format!("{:>32}{} runs failed: {why}\n", "", cell.failed);
            }
        }
    }
    text
}

/// The same for programs.
pub(crate) fn json(rows: &[Row], works: &[Work], results: &Results) -> Value {
    let lines = Line::all(rows, works, results);
    let rows = lines.iter().map(|line| {
        let speakers = line.cells.iter().map(|(speaker, cell)| {
            let figure = |f: Option<Figure>| f.map_or(Value::Null, Figure::json);
            let time = match Unit::of(line.work.kind, line.row.part) {
                Unit::Seconds => "seconds",
                Unit::Millis => "milliseconds",
                Unit::Share => "percentOfCore",
            };
            json!({
                "speaker": speaker.name(),
                "runs": cell.runs,
                "runsUsed": cell.used,
                "runsFailed": cell.failed,
                "failure": cell.why,
                time: figure(cell.time),
                "cpuSeconds": figure(cell.cpu),
                "rssMiB": figure(cell.rss),
                "updatesBeyondFewestPercent": figure(cell.excess),
                "foreignCpuPercent": figure(cell.foreign),
                "ratios": line.ratios(cell),
            })
        });
        json!({
            "row": line.row.name,
            "routes": line.work.routes,
            "senders": line.work.senders,
            "receivers": line.work.receivers,
            "rival": line.rival().map(|(speaker, _)| speaker.name()),
            "target": line.row.target,
            "speakers": speakers.collect::<Vec<_>>(),
        })
    });
    rows.collect()
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "   -".to_owned(), |ratio| format!("{ratio:>4.2}"))
}

/// Three digits are all that such a measurement is good for.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}").trim_start_matches('0').to_owned(),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rows;
    use super::*;

    fn seen(load: f64, foreign: f64, ping: f64) -> Seen {
        Seen {
            load: Took {
                time: Duration::from_secs_f64(load),
                cpu: Duration::from_secs_f64(load),
                foreign,
            },
            rss: 1234.5,
            excess: 0.0,
            ping: Some((Duration::from_secs_f64(ping / 1e3), foreign)),
            end: None,
        }
    }

    /// Ours took 1, 2 and 3 s, BIRD 4 s; the relay is the floor of single routes.
    fn results() -> Results {
        let runs = |seen: &[Seen]| Runs {
            seen: seen.to_vec(),
            failed: Vec::new(),
        };
        let ours = [
            seen(1.0, 0.1, 0.15),
            seen(2.0, 0.1, 0.15),
            seen(3.0, 0.1, 0.15),
            seen(99.0, 0.9, 99.0),
        ];
        let failed = Runs {
            seen: Vec::new(),
            failed: vec!["no such program\nand more".to_owned()],
        };
        Results::from([
            (("single-100k", Speaker::Margay), runs(&ours)),
            (("single-100k", Speaker::Bird), runs(&[seen(4.0, 0.9, 0.3)])),
            (("single-100k", Speaker::Frr), failed),
            (("single-100k", Speaker::Null), runs(&[seen(0.1, 0.0, 0.1)])),
        ])
    }

    #[test]
    fn quiet_runs_count_and_ratios_are_to_the_rival() {
        let names = ["single-100k".to_owned(), "ping-1".to_owned()];
        let rows = rows::chosen(&names).unwrap();
        let works = rows::works(&rows, None);
        let results = results();
        let lines = Line::all(&rows, &works, &results);
        let (speaker, ours) = &lines[0].cells[0];
        assert_eq!((*speaker, ours.used, ours.runs), (Speaker::Margay, 3, 4));
        assert_eq!(ours.time.unwrap().median, 2.0);
        assert_eq!(lines[0].ratios(ours)[..2], [Some(0.5), Some(0.5)]);
        let single = lines[1].ratios(&lines[1].cells[0].1)[0].unwrap();
        assert!((single - 0.25).abs() < 1e-9, "{single}");
        assert_eq!(json(&rows, &works, &results)[0]["rival"], "bird");

        let text = table(&rows, &works, &results);
        assert!(text.contains("not measured: no such program"), "{text}");
        assert!(text.contains("3/4"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }

    #[test]
    fn medians_are_between_where_there_are_two() {
        let figure = Figure::of([3.0, 1.0]).unwrap();
        assert_eq!(figure.text(), "2.00 (1.00-3.00)");
        assert_eq!(Figure::of([f64::NAN]), None);
    }
}
