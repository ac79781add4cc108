//! Colours, only where a person looks: on a terminal, without `NO_COLOR` (<https://no-color.org>).

use std::io::IsTerminal;

/// Whether text gets colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style(bool);

impl Style {
    /// No colours.
    pub const PLAIN: Self = Self(false);

    /// For standard output.
    pub fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && wanted())
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self(std::io::stderr().is_terminal() && wanted())
    }

    /// Whether there are colours.
    pub fn is_on(self) -> bool {
        self.0
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    /// For what is beside the point.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
    /// For what is wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    /// For what is right.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    /// For what needs somebody.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }
    /// For what can be typed.
    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
