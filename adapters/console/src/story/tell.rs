//! How the story is told: numbered steps, what is said, what was checked and how long it took.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use comfy_table::Table;

use super::Told;
use crate::{format, show, style::Style};

/// Columns of a paragraph when nobody tells how wide the terminal is.
const WIDTH: usize = 92;
/// What stands before everything but headings.
const INDENT: usize = 4;

/// Tells on standard output.
pub struct Teller {
    clock: fn() -> DateTime<Utc>,
    style: Style,
    width: usize,
    step: u32,
    began: Instant,
    step_began: Instant,
    checks: u32,
}

impl Teller {
    /// With the machine's clock, which is not this crate's.
    pub fn new(clock: fn() -> DateTime<Utc>) -> Self {
        let width = format::width().map_or(WIDTH, |width| usize::from(width).clamp(40, 110));
        let now = Instant::now();
        let style = Style::stdout();
        Self { clock, style, width, step: 0, began: now, step_began: now, checks: 0 }
    }

    /// Now.
    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Colours or none.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Things checked so far.
    pub fn checks(&self) -> u32 {
        self.checks
    }

    /// Time since the beginning.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    fn line(text: &str) -> Told {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok(())
    }

    /// Before the first step.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn open(&self, title: &str, text: &str) -> Told {
        Self::line(&format!("\n{}\n", self.style.bold(title)))?;
        self.paragraph(text, 0)
    }

    /// A new step.
    pub(super) fn step(&mut self, title: &str) -> Told {
        self.step += 1;
        self.step_began = Instant::now();
        Self::line(&format!("\n{}", self.style.bold(&format!("{:>2}  {title}", self.step))))
    }

    /// Some sentences.
    pub(super) fn say(&self, text: &str) -> Told {
        self.paragraph(text, INDENT)
    }

    fn paragraph(&self, text: &str, indent: usize) -> Told {
        for line in wrap(text, self.width.saturating_sub(indent)) {
            Self::line(&format!("{}{line}", " ".repeat(indent)))?;
        }
        Ok(())
    }

    /// What somebody would type.
    pub(super) fn typed(&self, text: &str) -> Told {
        let text = self.style.cyan(&format!("$ skyledger {text}"));
        Self::line(&format!("{}{text}", " ".repeat(INDENT)))
    }

    /// A table or another block.
    pub(super) fn block(text: &str) -> Told {
        Self::line(&show::indent(text, INDENT + 2))
    }

    /// A table, no wider than the rest.
    pub(super) fn table(&self, mut table: Table) -> Told {
        let width = self.width.saturating_sub(INDENT + 2);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        Self::block(&table.trim_fmt())
    }

    /// Lines that somebody else wrote, broken where they are too long.
    pub(super) fn quote(&self, text: &str) -> Told {
        for line in text.lines() {
            let inner = line.len() - line.trim_start().len();
            self.paragraph(line, INDENT + 2 + inner)?;
        }
        Ok(())
    }

    /// Something that was checked and holds, with the time since the step began.
    pub(super) fn checked(&mut self, text: &str) -> Told {
        self.checks += 1;
        let took = self.style.dim(&format!("({})", short(self.step_began.elapsed())));
        let mark = self.style.green("✓");
        let mut lines = wrap(text, self.width.saturating_sub(INDENT + 12)).into_iter();
        let first = lines.next().unwrap_or_default();
        let rest: Vec<String> = lines.collect();
        let pad = " ".repeat(INDENT);
        if rest.is_empty() {
            return Self::line(&format!("{pad}{mark} {first} {took}"));
        }
        Self::line(&format!("{pad}{mark} {first}"))?;
        let last = rest.len() - 1;
        for (place, line) in rest.iter().enumerate() {
            let end = if place == last { format!(" {took}") } else { String::new() };
            Self::line(&format!("{pad}  {line}{end}"))?;
        }
        Ok(())
    }
}

/// A time in at most five characters.
fn short(time: Duration) -> String {
    let ms = time.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

/// Breaks a text into lines of at most so many characters, at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_a_long_word_stands_alone() {
        assert_eq!(wrap("a bb ccc dddddddd e", 5), ["a bb", "ccc", "dddddddd", "e"]);
        assert_eq!(wrap("", 5), Vec::<String>::new());
    }

    #[test]
    fn a_time_is_short() {
        assert_eq!(short(Duration::from_micros(12_900)), "12 ms");
        assert_eq!(short(Duration::from_millis(2_345)), "2.3 s");
    }
}
