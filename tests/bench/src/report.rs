//! Samples, and the tables they end in.

use std::time::Duration;

/// What was measured, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Nearest rank: the smallest sample that at least `percent` of all do not exceed. `NaN` without samples.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100);
        let found = rank.checked_sub(1).and_then(|at| sorted.get(at));
        found.copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

/// Lines of figures.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    /// Of the first two columns.
    ratio: bool,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns are ours, the other's and perhaps more; a last one has the ratio of the first two.
    pub(crate) fn compared(title: &str, columns: &[&str]) -> Self {
        Self {
            ratio: true,
            ..Self::alone(title, columns)
        }
    }

    /// Columns are what they are named.
    pub(crate) fn alone(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            ratio: false,
            rows: Vec::new(),
        }
    }

    /// A row; `NaN` where there is nothing to say.
    pub(crate) fn row(&mut self, what: &str, figures: &[f64]) {
        let mut row = vec![what.to_owned()];
        row.extend(figures.iter().map(|f| figure(*f)));
        row.resize(self.columns.len() + 1, String::new());
        if let ([ours, others, ..], true) = (figures, self.ratio) {
            row.push(figure(ours / others));
        }
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut head = vec![String::new()];
        head.extend(self.columns.iter().cloned());
        if self.ratio {
            head.push("ratio".to_owned());
        }
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let lines = std::iter::once(&head).chain(&self.rows);
                lines
                    .filter_map(|line| line.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for line in std::iter::once(&head).chain(&self.rows) {
            let mut out = String::from(" ");
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                out += &match column {
                    0 => format!(" {cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            text += out.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Three digits are all that such a measurement is good for.
fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ms: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        ms.into_iter()
            .for_each(|ms| samples.add(Duration::from_millis(ms)));
        samples
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = samples((1..=100).rev());
        assert_eq!((hundred.median(), hundred.p99()), (50.0, 99.0));
        let three = samples([30, 10, 20]);
        assert_eq!((three.median(), three.p99()), (20.0, 30.0));
        assert!(samples([]).median().is_nan());
    }

    #[test]
    fn a_table_lines_up_and_divides() {
        let mut table = Table::compared("ADD", &["ours", "theirs", "none"]);
        table.row("median, ms", &[5.0, 20.0, 123.4]);
        table.row("RSS", &[f64::NAN, 1.0]);
        let expected = "\nADD\n              ours  theirs  none  ratio\n  median, ms  5.00    20.0   123   0.25\n  RSS            -    1.00            -\n";
        assert_eq!(table.text(), expected);
    }
}
