//! Plots of the results, for README.

use std::path::Path;

use plotters::prelude::*;

use super::MEMORY;
use super::report::{Row, Section};

/// The size of a plot, in pixels.
const SIZE: (u32, u32) = (480, 300);

/// The colours of lines. They also differ in lightness.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 90, 156),
    RGBColor(217, 95, 2),
    RGBColor(27, 140, 90),
    RGBColor(150, 60, 150),
    RGBColor(90, 90, 90),
];

/// A load, and the figure at that load.
type Point = (f64, f64);

/// The name and the points of a line.
type Line = (String, Vec<Point>);

/// Draws the plots for which there are rows.
pub fn draw(rows: &[Row], directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let page = |row: &&Row| row.section == Section::Requests && row.what == "GET /";
    let lines = lines(rows.iter().filter(page), "requests_per_second", |row| {
        row.server.clone()
    });
    let path = directory.join("bench-requests.svg");
    plot(
        &path,
        "GET / of a set event",
        "connections",
        "requests/s",
        lines,
    )?;
    let waits = |row: &&Row| row.section == Section::Waits && row.server == MEMORY;
    let lines = self::lines(rows.iter().filter(waits), "reads_per_second", |row| {
        row.what.clone()
    });
    let path = directory.join("bench-waits.svg");
    plot(
        &path,
        "Reads of the store while waits last",
        "waits",
        "reads/s",
        lines,
    )
}

fn lines<'a>(
    rows: impl Iterator<Item = &'a Row>,
    figure: &str,
    name: impl Fn(&Row) -> String,
) -> Vec<Line> {
    let mut lines = Vec::<Line>::new();
    for row in rows {
        if let (Some(load), Some(&value)) = (row.load, row.figures.get(figure)) {
            let (name, point) = (name(row), (load as f64, value));
            match lines.iter_mut().find(|(known, _)| *known == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
    }
    lines
}

/// Draws a plot with logarithmic axes. Does nothing if there are no points.
fn plot(path: &Path, title: &str, x: &str, y: &str, lines: Vec<Line>) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    if points().next().is_none() {
        return Ok(());
    }
    let range = |of: fn(&Point) -> f64| {
        let values = || points().map(of);
        let least = values().fold(f64::INFINITY, f64::min).max(1.0);
        (least, values().fold(least, f64::max))
    };
    let ((left, right), (bottom, top)) = (range(|point| point.0), range(|point| point.1));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (left..right * 1.1).log_scale(),
            (bottom / 1.5..top * 1.5).log_scale(),
        )?;
    let number = |value: &f64| format!("{value:.0}");
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .y_labels(5)
        .max_light_lines(1)
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    area.present()?;
    Ok(())
}
