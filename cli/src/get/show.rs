//! Showing one thing or a list of them in any form; a watch shows what changed.

use std::collections::HashMap;

use farshore_blocks::clock::WallTime;
use serde::Serialize;

use crate::{
    exit::CliError,
    output::{self, Form, table::table},
    view::Listed,
};

#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

/// One thing: an object, or a table of one row.
pub(crate) fn one<T: Listed>(item: &T, form: Form) -> Result<(), CliError> {
    match form {
        Form::Table | Form::Wide => list(std::slice::from_ref(item), form),
        Form::Json => output::answer(&output::json(item)?),
        Form::Yaml => output::answer(&output::yaml(item)?),
    }
}

/// A list: `{"items": […]}`, or a table.
pub(crate) fn list<T: Listed>(items: &[T], form: Form) -> Result<(), CliError> {
    match form {
        Form::Table | Form::Wide if items.is_empty() => {
            output::talk("nothing found");
            Ok(())
        }
        Form::Table | Form::Wide => output::answer(&rows(&items.iter().collect::<Vec<_>>(), form)),
        Form::Json => output::answer(&output::json(&Items { items })?),
        Form::Yaml => output::answer(&output::yaml(&Items { items })?),
    }
}

fn rows<T: Listed>(items: &[&T], form: Form) -> String {
    let now = WallTime::now();
    let wide = form == Form::Wide;
    let mut headings = T::HEADINGS.to_vec();
    if wide {
        headings.extend_from_slice(T::WIDE_HEADINGS);
    }
    let cells = items.iter().map(|item| {
        let mut cells = item.cells(now);
        if wide {
            cells.extend(item.wide_cells(now));
        }
        cells
    });
    table(&headings, cells.collect())
}

/// Shows what changed since it last looked: rows below one heading, a line of JSON or a YAML document each.
#[derive(Debug)]
pub(crate) struct Watch {
    form: Form,
    shown: HashMap<String, String>,
    headed: bool,
}

impl Watch {
    /// Nothing was shown yet.
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            shown: HashMap::new(),
            headed: false,
        }
    }

    /// Shows the items that are new or not as they were.
    pub(crate) fn show<T: Listed>(&mut self, items: &[T]) -> Result<(), CliError> {
        let mut changed = Vec::new();
        for item in items {
            let text = output::json_line(item)?;
            if self.shown.get(&item.key()) != Some(&text) {
                self.shown.insert(item.key(), text);
                changed.push(item);
            }
        }
        match self.form {
            Form::Table | Form::Wide if changed.is_empty() => Ok(()),
            Form::Table | Form::Wide => {
                let text = rows(&changed, self.form);
                let body = text.split_once('\n').map_or("", |(_, body)| body);
                let first = !std::mem::replace(&mut self.headed, true);
                output::answer(if first { &text } else { body })
            }
            Form::Json => changed
                .iter()
                .try_for_each(|item| output::answer(&output::json_line(item)?)),
            Form::Yaml => changed
                .iter()
                .try_for_each(|item| output::answer(&format!("---\n{}", output::yaml(item)?))),
        }
    }
}
