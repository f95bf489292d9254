//! Who reaches whom, as tables.

use std::time::{Duration, Instant};

use lab::probe::{Answer, Family, Probe, Protocol, Verdict};

use super::{Suite, until};

/// Sources, targets and what is sent, each a list of words, and whether it gets through: in both families, from
/// every source to every target but itself. A source or target is a place (`red/web`, `n1`, `tor-a`), what is sent
/// `tcp/80`, `udp/53` or `icmp`.
pub type Row<'a> = (&'a str, &'a str, &'a str, bool);

/// Everything the pods of the tests answer to.
pub const WHATS: &str = "tcp/80 udp/80 icmp";

/// Namespaces of one test: tables and policies call them by short names.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Put before every namespace's name, so that tests do not meet.
    pub prefix: &'a str,
}

impl World<'_> {
    /// The real name of a namespace.
    pub fn ns(self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    /// The real name of a place: only pods have another one.
    pub fn place(self, short: &str) -> String {
        match short.contains('/') {
            true => format!("{}-{short}", self.prefix),
            false => short.to_owned(),
        }
    }

    /// A text with `{red}` replaced by the real name of that namespace.
    pub fn text(self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out += before;
            match after.split_once('}') {
                Some((name, tail))
                    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()) =>
                {
                    out += &self.ns(name);
                    rest = tail;
                }
                _ => {
                    out.push('{');
                    rest = after;
                }
            }
        }
        out + rest
    }
}

impl Suite {
    /// Waits until every verdict is as the rows say, twice in a row; says how long the first time took.
    #[track_caller]
    pub fn expect(&self, world: World<'_>, rows: &[Row<'_>]) -> Duration {
        self.settle(&questions(world, rows))
    }

    /// As [`Suite::expect`] for one row, with a verdict for IPv4 and one for IPv6.
    #[track_caller]
    pub fn expect_family(
        &self,
        world: World<'_>,
        from: &str,
        to: &str,
        what: &str,
        allowed: [bool; 2],
    ) -> Duration {
        let mut questions = questions(world, &[(from, to, what, true)]);
        for (probe, expected) in &mut questions {
            *expected = match probe.family {
                Some(Family::Ipv6) => allowed[1],
                _ => allowed[0],
            };
        }
        self.settle(&questions)
    }

    #[track_caller]
    fn settle(&self, questions: &[(Probe, bool)]) -> Duration {
        let start = Instant::now();
        until(&format!("{} verdicts", questions.len()), || {
            self.surprises(questions, Duration::from_millis(300))
                .map_err(|list| list.join("\n"))?;
            let took = start.elapsed();
            // A late packet is no proof that nothing gets through.
            self.surprises(questions, Duration::from_millis(600))
                .map_err(|list| list.join("\n"))?;
            Ok(took)
        })
    }

    fn surprises(&self, questions: &[(Probe, bool)], limit: Duration) -> Result<(), Vec<String>> {
        let probes: Vec<Probe> = questions.iter().map(|(probe, _)| probe.clone()).collect();
        let wrong: Vec<String> = self
            .probe(&probes, limit)
            .iter()
            .zip(questions)
            .filter(|(answer, (_, allowed))| {
                answer.verdict
                    != match allowed {
                        true => Verdict::Allowed,
                        false => Verdict::Denied,
                    }
            })
            .map(|(answer, _)| describe(answer))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn questions(world: World<'_>, rows: &[Row<'_>]) -> Vec<(Probe, bool)> {
    let mut questions = Vec::new();
    for (from, to, whats, allowed) in rows {
        for from in from.split_whitespace() {
            for to in to.split_whitespace().filter(|to| *to != from) {
                for what in whats.split_whitespace() {
                    let (protocol, port) = protocol(what);
                    questions.extend(Family::ALL.map(|family| {
                        let probe = Probe {
                            from: world.place(from),
                            to: world.place(to),
                            port,
                            protocol,
                            family: Some(family),
                        };
                        (probe, *allowed)
                    }));
                }
            }
        }
    }
    questions
}

fn protocol(what: &str) -> (Protocol, u16) {
    let port = |text: &str| match text.parse() {
        Ok(port) => port,
        Err(_) => panic!("{what:?}: no port"),
    };
    match what.split_once('/') {
        Some(("tcp", number)) => (Protocol::Tcp, port(number)),
        Some(("udp", number)) => (Protocol::Udp, port(number)),
        None if what == "icmp" => (Protocol::Icmp, 0),
        _ => panic!("{what:?} is neither tcp/PORT nor udp/PORT nor icmp"),
    }
}

fn describe(answer: &Answer) -> String {
    let Answer {
        probe,
        verdict,
        ms,
        detail,
    } = answer;
    format!(
        "{} → {} {:?} {} {:?}: {verdict:?} after {ms} ms {}",
        probe.from,
        probe.to,
        probe.protocol,
        probe.port,
        probe.family,
        detail.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World<'_> = World { prefix: "t" };

    #[test]
    fn a_row_is_every_pair_in_both_families() {
        let rows = [("red/a red/b", "red/a n1", "tcp/80 icmp", true)];
        let questions = questions(WORLD, &rows);
        // a → n1, b → a, b → n1.
        assert_eq!(questions.len(), 3 * 2 * 2);
        assert_eq!(questions[0].0.from, "t-red/a");
        assert_eq!(questions[0].0.to, "n1");
    }

    #[test]
    fn only_names_of_namespaces_are_replaced() {
        assert_eq!(
            WORLD.text("metadata: { namespace: {red} } a: {}"),
            "metadata: { namespace: t-red } a: {}"
        );
    }
}
