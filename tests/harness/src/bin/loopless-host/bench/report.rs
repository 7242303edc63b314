//! What a bench has measured: rows, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Requests in a second, and how long they take
    Requests,
    /// From a change to the answer of a wait
    Wakes,
    /// What many waits cost
    Waits,
    /// A new instance, a new host, and the size of the component
    Starts,
}

impl Section {
    pub const ALL: [Self; 4] = [Self::Requests, Self::Wakes, Self::Waits, Self::Starts];

    /// What the table says above it.
    fn title(self) -> &'static str {
        match self {
            Self::Requests => "requests; their times at half of the requests/s (open loop)",
            Self::Wakes => "from a PUT to the answer of a wait",
            Self::Waits => "many waits at a time",
            Self::Starts => "starts",
        }
    }
}

/// A figure's name in JSON, its title in the table, and how many decimals it has there.
type Figure = (&'static str, &'static str, usize);

/// The figures, in the order of the table.
const FIGURES: [Figure; 14] = [
    ("requests_per_second", "requests/s", 0),
    ("times_hyper", "× hyper", 2),
    ("times_static", "× static", 2),
    ("times_original", "× original", 2),
    ("reads_per_second", "reads/s", 0),
    ("cores", "cores", 3),
    ("kibibytes_each", "KiB each", 1),
    ("refused", "refused", 0),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("p99_9_ms", "p99.9 ms", 2),
    ("max_ms", "max ms", 2),
    ("all_ms", "all ms", 0),
    ("kilobytes", "kB", 0),
];

/// Figures that belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub section: Section,
    /// What was measured: a server, and the store beneath it.
    pub server: String,
    /// What was asked of it.
    pub what: String,
    /// How many connections or waits there were.
    pub load: Option<usize>,
    pub figures: BTreeMap<&'static str, f64>,
}

impl Row {
    pub fn new(
        section: Section,
        server: impl Into<String>,
        what: impl ToString,
        load: Option<usize>,
    ) -> Self {
        Self {
            section,
            server: server.into(),
            what: what.to_string(),
            load,
            figures: BTreeMap::new(),
        }
    }

    /// With one more figure.
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        debug_assert!(FIGURES.iter().any(|(known, ..)| *known == name), "{name}");
        self.figures.insert(name, value);
        self
    }

    /// With what a histogram of nanoseconds shows.
    pub fn with_times(self, times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        let row = self.with("p50_ms", at(0.5)).with("p99_ms", at(0.99));
        let row = match times.len() {
            // Fewer show nothing of one in a thousand.
            1000.. => row.with("p99_9_ms", at(0.999)),
            _ => row,
        };
        row.with("max_ms", times.max() as f64 / 1e6)
    }
}

/// A bench's result.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Whether this program, and with it the hosts that it started, is optimized.
    pub is_optimized: bool,
    pub processors: usize,
    pub rounds: u32,
    pub rows: Vec<Row>,
}

impl Report {
    /// All of it, in one table, which is Markdown.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for section in Section::ALL {
            let rows = self.rows.iter().filter(|row| row.section == section);
            let rows: Vec<_> = rows.collect();
            if rows.is_empty() {
                continue;
            }
            let has = |name| rows.iter().any(|row| row.figures.contains_key(name));
            let figures: Vec<_> = FIGURES.iter().filter(|(name, ..)| has(*name)).collect();
            let has_load = rows.iter().any(|row| row.load.is_some());
            let load = |text: String| has_load.then_some(text);
            let head = ["server".to_owned(), section.title().to_owned()];
            let mut lines: Vec<Vec<String>> = vec![
                head.into_iter()
                    .chain(load("at once".into()))
                    .chain(figures.iter().map(|(_, title, _)| (*title).to_owned()))
                    .collect(),
            ];
            for row in rows {
                let at_once = row.load.map_or_else(String::new, |load| load.to_string());
                let values = figures.iter().map(|(name, _, decimals)| {
                    let value = row.figures.get(name);
                    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
                });
                let head = [row.server.clone(), row.what.clone()];
                lines.push(
                    head.into_iter()
                        .chain(load(at_once))
                        .chain(values)
                        .collect(),
                );
            }
            write_table(&mut table, &lines);
        }
        table
    }
}

/// Writes lines of equally many cells. The first line is the head; from the third cell on, all are numbers.
fn write_table(table: &mut String, lines: &[Vec<String>]) {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    if !table.is_empty() {
        table.push('\n');
    }
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            _ = match column {
                0 | 1 => write!(table, "| {cell:width$} "),
                _ => write!(table, "| {cell:>width$} "),
            };
        }
        table.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column < 2 { '-' } else { ':' };
                _ = write!(table, "| {}{end} ", "-".repeat(width.saturating_sub(1)));
            }
            table.push_str("|\n");
        }
    }
}
