//! Runs the speaker of a recording again, without a network: what it did, what differs, how long it took.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::record::Line;
use crate::Millis;
use crate::speaker::{Input, Output, Speaker};

/// How a recording is replayed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replay {
    /// Stop before inputs of a later time, milliseconds since the start; `None`: all are replayed.
    pub until: Option<Millis>,
    /// Say every output.
    pub verbose: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Inputs given.
    pub inputs: u64,
    /// Outputs made.
    pub outputs: u64,
    /// Inputs whose outputs were recorded and are others now.
    pub differing: u64,
    /// Time spent in the speaker alone.
    pub spent: Duration,
}

/// Most inputs that are shown with what differs; the others are counted.
const SHOWN: u64 = 20;

/// Replays a recording and tells of it on `out`.
///
/// # Errors
///
/// When the file cannot be read, or does not begin as a recording does. What a crash left of the last line is left out.
pub fn replay(path: &Path, how: Replay, out: &mut impl Write) -> anyhow::Result<Replayed> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    run(BufReader::new(file), how, out).with_context(|| path.display().to_string())
}

/// The same of a recording that is open.
pub(super) fn run(
    recording: impl BufRead,
    how: Replay,
    out: &mut impl Write,
) -> anyhow::Result<Replayed> {
    let mut lines = recording.lines();
    let first = lines.next().context("the recording is empty")??;
    let Ok(Line::Start { seed, config }) = serde_json::from_str(&first) else {
        anyhow::bail!("it does not begin as a recording does");
    };
    let mut speaker = Speaker::new(config, seed, 0);
    let mut replayed = Replayed::default();
    let (mut at, mut made) = (0, Vec::new());
    while let Some(text) = lines.next().transpose()? {
        match serde_json::from_str(&text) {
            Ok(Line::Input { now, .. } | Line::Settled { now })
                if how.until.is_some_and(|until| now > until) =>
            {
                break;
            }
            Ok(Line::Input { now, input }) => {
                at = now;
                replayed.inputs += 1;
                if how.verbose {
                    writeln!(out, "{now:>10} > {}", brief(&input))?;
                }
                let work = |speaker: &mut Speaker, made: &mut _| speaker.take(input, now, made);
                made = replayed.time(&mut speaker, work);
                if how.verbose {
                    say(&made, now, out)?;
                }
            }
            Ok(Line::Settled { now }) => {
                let work = |speaker: &mut Speaker, made: &mut _| speaker.settle(now, made);
                made = replayed.time(&mut speaker, work);
                if how.verbose {
                    say(&made, now, out)?;
                }
            }
            Ok(Line::Outputs { outputs }) => {
                if outputs != made {
                    replayed.differing += 1;
                    if replayed.differing <= SHOWN {
                        differ(&outputs, &made, at, replayed.inputs, out)?;
                    }
                }
            }
            Ok(Line::Start { .. }) => anyhow::bail!("a second start at input {}", replayed.inputs),
            // A kill in the middle of a line.
            Err(_) if lines.next().is_none() => {
                writeln!(out, "the last line is not whole and is left out")?;
                break;
            }
            Err(error) => anyhow::bail!("the line after input {}: {error}", replayed.inputs),
        }
    }
    summary(&speaker, &replayed, at, out)?;
    Ok(replayed)
}

impl Replayed {
    /// Lets the speaker do something; what it made.
    fn time(
        &mut self,
        speaker: &mut Speaker,
        work: impl FnOnce(&mut Speaker, &mut Vec<Output>),
    ) -> Vec<Output> {
        let (mut made, started) = (Vec::new(), Instant::now());
        work(speaker, &mut made);
        self.spent += started.elapsed();
        self.outputs += u64::try_from(made.len()).unwrap_or(u64::MAX);
        made
    }
}

fn say(outputs: &[Output], now: Millis, out: &mut impl Write) -> anyhow::Result<()> {
    for output in outputs {
        writeln!(out, "{now:>10} < {}", shown(output))?;
    }
    Ok(())
}

fn summary(
    speaker: &Speaker,
    replayed: &Replayed,
    at: Millis,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Replayed {
        inputs,
        outputs,
        differing,
        spent,
    } = replayed;
    writeln!(
        out,
        "{inputs} inputs over {at} ms made {outputs} outputs in {:.3} ms of work; {differing} differ from the recording",
        spent.as_secs_f64() * 1000.0
    )?;
    for neighbor in speaker.neighbors(at) {
        let state = neighbor.state;
        let error = neighbor
            .last_error
            .map_or(String::new(), |it| format!("; last: {it}"));
        writeln!(out, "neighbour {} {state}{error}", neighbor.key)?;
    }
    for (prefix, legs) in speaker.best() {
        let legs: Vec<String> = legs.iter().map(|leg| leg.address.to_string()).collect();
        writeln!(out, "best {prefix} via {}", legs.join(" "))?;
    }
    Ok(())
}

/// Both lists from where they part.
fn differ(
    recorded: &[Output],
    made: &[Output],
    at: Millis,
    input: u64,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let same = recorded.iter().zip(made).take_while(|(a, b)| a == b);
    let same = same.count();
    writeln!(
        out,
        "{at:>10} input {input} differs from output {} on",
        same + 1
    )?;
    for line in recorded.iter().skip(same) {
        writeln!(out, "    recorded {}", shown(line))?;
    }
    for line in made.iter().skip(same) {
        writeln!(out, "    now      {}", shown(line))?;
    }
    Ok(())
}

fn shown(output: &Output) -> String {
    serde_json::to_string(output).unwrap_or_else(|error| error.to_string())
}

/// An input in at most one line of a screen.
fn brief(input: &Input) -> String {
    let mut text = serde_json::to_string(input).unwrap_or_else(|error| error.to_string());
    if text.len() > 160 {
        // JSON of ours is ASCII but for names of people's objects.
        let end = (0..=160).rev().find(|it| text.is_char_boundary(*it));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const CONFIG: &str = "{asNumber: 65001, routerID: 192.0.2.1, peers: [{peerIP: 192.0.2.2, asNumber: 65002}], \
                          origins: [10.244.0.0/26]}";

    /// A recording of a start, and of a session that is asked for.
    fn recording() -> (tempfile::TempDir, std::path::PathBuf, String) {
        let config = crate::config::file::parse(CONFIG).unwrap().config;
        let mut speaker = Speaker::new(config.clone(), 7, 0);
        let mut text = serde_json::to_string(&Line::Start { seed: 7, config }).unwrap();
        text.push('\n');
        let report = crate::speaker::DataplaneReport {
            boot_id: String::new(),
            preserved: Vec::new(),
            restarted: false,
        };
        let inputs = [
            (0, Input::Dataplane(report)),
            (5, Input::OriginsComplete),
            (30_000, Input::Tick),
            (60_000, Input::Tick),
        ];
        for (now, input) in inputs {
            let mut outputs = Vec::new();
            speaker.take(input.clone(), now, &mut outputs);
            let mut settled = Vec::new();
            speaker.settle(now, &mut settled);
            let lines = [
                Line::Input { now, input },
                Line::Outputs { outputs },
                Line::Settled { now },
                Line::Outputs { outputs: settled },
            ];
            for line in lines {
                writeln!(text, "{}", serde_json::to_string(&line).unwrap()).unwrap();
            }
        }
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("run.jsonl");
        std::fs::write(&path, &text).unwrap();
        (tmp, path, text)
    }

    fn run(path: &Path, how: Replay) -> (Replayed, String) {
        let mut out = Vec::new();
        let replayed = replay(path, how, &mut out).unwrap();
        (replayed, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_run_is_the_same_again() {
        let (_tmp, path, text) = recording();
        let (replayed, said) = run(&path, Replay::default());
        assert_eq!((replayed.inputs, replayed.differing), (4, 0), "{said}");
        assert!(
            replayed.outputs > 0 && said.contains("neighbour 192.0.2.2 "),
            "{said}"
        );
        let how = Replay {
            until: Some(5),
            verbose: true,
        };
        let (replayed, said) = run(&path, how);
        assert_eq!(replayed.inputs, 2);
        assert!(
            said.contains("> \"OriginsComplete\"") && said.contains("< {\"Connect\""),
            "{said}"
        );
        // A kill in the middle of a line.
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        let (replayed, said) = run(&path, Replay::default());
        assert_eq!((replayed.inputs, replayed.differing), (4, 0));
        assert!(said.contains("not whole"), "{said}");
    }

    #[test]
    fn what_was_otherwise_is_shown() {
        let (_tmp, path, text) = recording();
        std::fs::write(&path, text.replacen("192.0.2.2:179", "192.0.2.2:178", 1)).unwrap();
        let (replayed, said) = run(&path, Replay::default());
        assert_eq!(replayed.differing, 1, "{said}");
        assert!(
            said.contains("192.0.2.2:178") && said.contains("192.0.2.2:179"),
            "{said}"
        );
        std::fs::write(&path, "{}\n").unwrap();
        assert!(replay(&path, Replay::default(), &mut Vec::new()).is_err());
    }
}
