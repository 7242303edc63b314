//! The results of a bench, as tables for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Requests per second, and their response times
    Requests,
    /// The time from a change to the end of a wait
    Wakes,
    /// The cost of many waits
    Waits,
    /// The start times of an instance and of a host, and the size of the component
    Starts,
}

impl Section {
    pub const ALL: [Self; 4] = [Self::Requests, Self::Wakes, Self::Waits, Self::Starts];

    /// The title in the table.
    fn title(self) -> &'static str {
        match self {
            Self::Requests => "requests; response times at half of the requests/s (open loop)",
            Self::Wakes => "from a PUT to the end of a wait",
            Self::Waits => "many waits at once",
            Self::Starts => "starts",
        }
    }
}

/// A figure's name in JSON, its title in the table, and its number of decimals in the table.
type Figure = (&'static str, &'static str, usize);

/// All figures, in the order of the table.
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

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub section: Section,
    /// The server, named after its store.
    pub server: String,
    /// What was measured.
    pub what: String,
    /// The number of connections or waits.
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

    /// Adds a figure.
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        debug_assert!(FIGURES.iter().any(|(known, ..)| *known == name), "{name}");
        self.figures.insert(name, value);
        self
    }

    /// Adds the quantiles of a histogram of nanoseconds.
    pub fn with_times(self, times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        let row = self.with("p50_ms", at(0.5)).with("p99_ms", at(0.99));
        let row = match times.len() {
            // Fewer values have no 99.9 % quantile.
            1000.. => row.with("p99_9_ms", at(0.999)),
            _ => row,
        };
        row.with("max_ms", times.max() as f64 / 1e6)
    }
}

/// The results of a bench.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Whether this program, which also runs the hosts, is optimized.
    pub is_optimized: bool,
    pub processors: usize,
    pub rounds: u32,
    pub rows: Vec<Row>,
}

impl Report {
    /// Formats a Markdown table for each section.
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

/// Writes a table. The first line is the head. All columns from the third on are numbers.
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
