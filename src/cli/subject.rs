//! KIND and KIND/ID on the command line: every kind by its singular, plural or short name, and
//! every view.

use std::{ffi::OsStr, sync::LazyLock};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use domain::{
    kernel::Kind,
    kinds::{self, KINDS},
};
use projections::views::{LENSES, VIEWS};

/// Short names, sorted by kind.
const SHORT: &[(&str, &str)] = &[
    ("cloud-account", "account"),
    ("cloud-account", "accounts"),
    ("network", "net"),
    ("project", "proj"),
    ("security-group", "sg"),
    ("server", "srv"),
];

/// What a command is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The kind; none for a view.
    pub(crate) kind: Option<&'static Kind>,
    /// As in paths: a kind's plural, or a view.
    pub(crate) plural: String,
    /// From `KIND/ID`.
    pub(crate) id: Option<String>,
}

impl Subject {
    pub(crate) fn of(kind: &'static Kind, id: Option<String>) -> Self {
        Self { kind: Some(kind), plural: kind.plural.to_owned(), id }
    }

    /// One of it, in words.
    pub(crate) fn singular(&self) -> &str {
        self.kind.map_or(self.plural.as_str(), |kind| kind.name)
    }
}

/// Reads a [`Subject`]; knows every word for suggestions and completions.
#[derive(Clone)]
pub(crate) struct SubjectParser {
    views: bool,
}

impl SubjectParser {
    /// Kinds only.
    pub(crate) fn kinds() -> Self {
        Self { views: false }
    }

    /// Kinds and views.
    pub(crate) fn all() -> Self {
        Self { views: true }
    }

    fn values(&self) -> Vec<PossibleValue> {
        let kinds = KINDS.iter().map(|kind| {
            let short =
                SHORT.iter().filter(|(name, _)| *name == kind.name).map(|(_, short)| *short);
            PossibleValue::new(kind.plural).help(kind.summary).alias(kind.name).aliases(short)
        });
        let views = PATHS.iter().filter(|_| self.views).map(|(path, name, summary)| {
            PossibleValue::new(path.as_str()).help(*summary).alias(*name)
        });
        kinds.chain(views).collect()
    }
}

/// Views and lenses: as in paths, by name, in a sentence.
static PATHS: LazyLock<Vec<(String, &str, &str)>> = LazyLock::new(|| {
    let views = VIEWS.iter().map(|view| (view.name(), view.summary()));
    let lenses = LENSES.iter().map(|lens| (lens.name, lens.summary));
    views.chain(lenses).map(|(name, summary)| (name.replace('_', "-"), name, summary)).collect()
});

impl TypedValueParser for SubjectParser {
    type Value = Subject;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Subject, clap::Error> {
        let text = value.to_string_lossy().into_owned();
        let (word, id) = match text.split_once('/') {
            Some((word, id)) if !id.is_empty() => (word, Some(id.to_owned())),
            _ => (text.as_str(), None),
        };
        let word = word.to_lowercase();
        let parser = PossibleValuesParser::new(self.values());
        let word = parser.parse_ref(command, argument, OsStr::new(&word))?;
        let short = SHORT.iter().find(|(_, short)| *short == word).map(|(name, _)| *name);
        let kind = kinds::by_plural(&word).or_else(|| kinds::by_name(short.unwrap_or(&word)));
        Ok(match kind {
            Some(kind) => Subject::of(kind, id),
            None => Subject { kind: None, plural: word.replace('_', "-"), id },
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values().into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Subject, String> {
        let command = clap::Command::new("x");
        SubjectParser::all()
            .parse_ref(&command, None, OsStr::new(text))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_kind_has_a_singular_a_plural_and_perhaps_a_short_name() {
        for word in ["sg", "security-group", "security-groups", "SG"] {
            assert_eq!(read(word).unwrap().plural, "security-groups", "{word}");
        }
        assert_eq!(read("sync_runs").unwrap().plural, "sync-runs");
        let one = read("server/0199").unwrap();
        assert_eq!((one.singular(), one.id.as_deref()), ("server", Some("0199")));
    }

    #[test]
    fn short_names_belong_to_kinds_and_to_no_two() {
        for (name, short) in SHORT {
            assert!(kinds::by_name(name).is_some(), "{name}");
            assert!(kinds::by_name(short).is_none() && kinds::by_plural(short).is_none());
        }
    }
}
