//! One row of a table that sets something of ours beside something plain: both sides' figures, their ratio, its target.

use std::path::Path;

use crate::figures::{Samples, Table};

/// What a row should show.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// Ours over theirs, at least.
    RatioAtLeast(f64),
    /// Ours over theirs, at most.
    RatioAtMost(f64),
    /// Our figure, at most.
    AtMost(f64),
    /// Our figure, at least.
    #[allow(dead_code, reason = "what one bench does not need, another does")]
    AtLeast(f64),
    /// Nothing in particular: the figure explains another one.
    None,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    aim: Aim,
    ours: Samples,
    theirs: Option<(String, Samples)>,
    /// Of each pair.
    ratios: Samples,
}

impl Row {
    /// A figure of ours that stands alone.
    pub(crate) fn alone(what: &str, unit: &'static str, aim: Aim, ours: Samples) -> Self {
        Self {
            what: what.to_owned(),
            unit,
            aim,
            ours,
            theirs: None,
            ratios: Samples::default(),
        }
    }

    /// A row without figures yet, to which pairs are added.
    pub(crate) fn beside(what: &str, unit: &'static str, aim: Aim, theirs: &str) -> Self {
        let mut row = Self::alone(what, unit, aim, Samples::default());
        row.theirs = Some((theirs.to_owned(), Samples::default()));
        row
    }

    /// The figures of one pair.
    pub(crate) fn add(&mut self, pair: Pair<f64>) {
        self.ours.add(pair.ours);
        if let Some((_, theirs)) = &mut self.theirs {
            theirs.add(pair.theirs);
            self.ratios.add(pair.ours / pair.theirs);
        }
    }

    fn verdict(&self) -> (String, &'static str) {
        let (target, met) = match self.aim {
            Aim::RatioAtLeast(least) => (format!(">= {least}x"), self.ratios.median() >= least),
            Aim::RatioAtMost(most) => (format!("<= {most}x"), self.ratios.median() <= most),
            Aim::AtMost(most) => (format!("<= {}", shown(most)), self.ours.median() <= most),
            Aim::AtLeast(least) => (format!(">= {}", shown(least)), self.ours.median() >= least),
            Aim::None => return (String::new(), ""),
        };
        (target, if met { "met" } else { "not met" })
    }

    fn cells(&self) -> Vec<String> {
        let (target, verdict) = self.verdict();
        let (name, theirs, ratio, ratios) = match &self.theirs {
            None => Default::default(),
            Some((name, theirs)) => (
                name.clone(),
                figure(theirs),
                format!("{:.2}", self.ratios.median()),
                self.ratios.spread(2),
            ),
        };
        vec![
            self.what.clone(),
            self.unit.to_owned(),
            self.ours.count().to_string(),
            figure(&self.ours),
            name,
            theirs,
            ratio,
            ratios,
            target,
            verdict.to_owned(),
        ]
    }
}

/// What was measured of both sides in one turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<T> {
    pub(crate) ours: T,
    pub(crate) theirs: T,
}

/// Measures both sides so many times; which of them comes first changes every time.
pub(crate) fn in_turns<T>(
    rounds: usize,
    mut ours: impl FnMut() -> anyhow::Result<T>,
    mut theirs: impl FnMut() -> anyhow::Result<T>,
    mut each: impl FnMut(Pair<T>),
) -> anyhow::Result<()> {
    for round in 0..rounds {
        let pair = if round % 2 == 0 {
            let ours = ours()?;
            Pair {
                ours,
                theirs: theirs()?,
            }
        } else {
            let theirs = theirs()?;
            Pair {
                ours: ours()?,
                theirs,
            }
        };
        each(pair);
    }
    Ok(())
}

/// Prints all rows.
pub(crate) fn print(title: &str, directory: &Path, rows: &[Row], notes: &[&str]) {
    let head = [
        "what",
        "unit",
        "runs",
        "ours: median (spread)",
        "beside",
        "median (spread)",
        "ratio",
        "its spread",
        "target",
        "",
    ];
    let mut table = Table::new(title, &head);
    for row in rows {
        let cells = row.cells();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        table.row(&cells);
    }
    table.print_local(directory, notes);
}

fn figure(samples: &Samples) -> String {
    let ends = (samples.percentile(0), samples.percentile(100));
    format!(
        "{} ({} to {})",
        shown(samples.median()),
        shown(ends.0),
        shown(ends.1)
    )
}

/// Three digits that mean something.
fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 0.1 => format!("{figure:.3}"),
        size if size > 0.0 => format!("{figure:.5}"),
        _ => "0".to_owned(),
    }
}
