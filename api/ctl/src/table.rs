//! Tables that fit a terminal.

use std::fmt::Write as _;

/// How a cell is coloured on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// One value of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::from(number.to_string())
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::from(number.to_string())
    }
}

/// Where a table is printed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    /// Columns of the terminal; `None`: do not cut.
    pub(crate) width: Option<usize>,
    /// Colours are wanted.
    pub(crate) colour: bool,
}

impl Screen {
    /// Wraps `text` in the colour of `tone`, if this screen has colours.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        match tone.code() {
            Some(code) if self.colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// Rows under a heading, aligned on the left, two blanks between columns.
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heading.len(), "a cell per column");
        self.rows.push(cells);
    }

    /// Renders the table; the last column is cut where the terminal ends.
    pub(crate) fn render(&self, screen: Screen) -> String {
        let count = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .heading
            .iter()
            .enumerate()
            .map(|(column, title)| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| count(shown(cell)))
                    .fold(count(title), usize::max)
            })
            .collect();
        // A column without a title keeps a blank one.
        let title = |t: &&str| Cell::from(if t.is_empty() { " " } else { *t });
        let heading: Vec<Cell> = self.heading.iter().map(title).collect();
        let mut out = String::new();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let last = row.len().saturating_sub(1);
            let mut used = 0;
            for (column, cell) in row.iter().enumerate() {
                let text = shown(cell);
                if column == last {
                    let room = screen.width.map(|width| width.saturating_sub(used));
                    let text = cut(text, room.map(|r| r.max(MIN_LAST)));
                    let _ = writeln!(out, "{}", screen.paint(text.trim_end(), cell.tone));
                } else {
                    let width = widths[column];
                    let pad = width - count(text) + 2;
                    let _ = write!(out, "{}{:pad$}", screen.paint(text, cell.tone), "");
                    used += width + 2;
                }
            }
        }
        out
    }
}

/// The last column keeps this many characters on the narrowest terminal.
const MIN_LAST: usize = 12;

/// An empty cell is a dash, so that a table can be cut into columns by scripts.
fn shown(cell: &Cell) -> &str {
    if cell.text.is_empty() {
        "-"
    } else {
        &cell.text
    }
}

fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => text
            .chars()
            .take(room.saturating_sub(1))
            .chain(['…'])
            .collect(),
        _ => text.to_owned(),
    }
}

/// Seconds as people read them: `45s`, `3m12s`, `5h07m`, `12d4h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "WHY"]);
        table.row(vec![
            "tor-a".into(),
            Cell::toned("Established", Tone::Good),
            "".into(),
        ]);
        table.row(vec![
            "a-longer-name".into(),
            Cell::toned("Idle", Tone::Bad),
            "the peer refused the connection".into(),
        ]);
        table
    }

    #[test]
    fn columns_line_up_and_empty_cells_are_dashes() {
        assert_eq!(
            sample().render(Screen::default()),
            "NAME           STATE        WHY\n\
             tor-a          Established  -\n\
             a-longer-name  Idle         the peer refused the connection\n"
        );
    }

    #[test]
    fn the_last_column_ends_with_the_terminal() {
        let text = sample().render(Screen {
            width: Some(44),
            colour: false,
        });
        assert!(text.contains("Idle         the peer refuse…\n"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 44), "{text}");
        // However narrow, something of it is left.
        let text = sample().render(Screen {
            width: Some(10),
            colour: false,
        });
        assert!(text.contains("the peer re…"), "{text}");
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let screen = Screen {
            width: None,
            colour: true,
        };
        assert!(
            sample()
                .render(screen)
                .contains("tor-a          \x1b[32mEstablished\x1b[0m  -\n")
        );
    }

    #[test]
    fn durations_keep_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (18_420, "5h07m"),
            (1_051_200, "12d4h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
