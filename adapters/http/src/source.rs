//! What can be listed: a view, or a lens over one.

use domain::kernel::{Kind, Reach, Refusal, codes};
use projections::{
    view::{Column, View},
    views::{LENSES, VIEWS},
};

use crate::problem::Problem;

/// A view or lens.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) view: &'static dyn View,
}

/// Every view and every lens.
pub(crate) fn sources() -> impl Iterator<Item = Source> {
    let views =
        VIEWS.iter().map(|view| Source { name: view.name(), summary: view.summary(), view: *view });
    let lenses = LENSES.iter().filter_map(|lens| {
        let view = VIEWS.iter().find(|view| view.name() == lens.view)?;
        Some(Source { name: lens.name, summary: lens.summary, view: *view })
    });
    views.chain(lenses)
}

/// The one of this name, in snake case or as in paths.
pub(crate) fn source(name: &str) -> Option<Source> {
    sources().find(|source| source.name == name || source.path() == name)
}

impl Source {
    /// As in paths.
    pub(crate) fn path(&self) -> String {
        self.name.replace('_', "-")
    }

    pub(crate) fn column(&self, name: &str) -> Option<&'static Column> {
        self.view.columns().iter().find(|column| column.name == name)
    }

    /// A view whose rows belong to no project is for those who reach everything.
    pub(crate) fn readable(&self, reach: &Reach) -> Result<(), Problem> {
        if *reach == Reach::All || self.column("project").is_some() {
            return Ok(());
        }
        let detail = format!("{} is the estate's, this token reaches single projects", self.name);
        Err(Refusal::new(&codes::OUT_OF_REACH, detail).into())
    }
}

/// What a route is mounted for.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    Nothing,
    Kind(&'static Kind),
    Source(Source),
}
