//! Bars on long work: on standard error, only when it is a terminal, gone when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second: more is noise.
const REDRAWS: u8 = 10;

/// Work with an end.
const BAR: &str =
    "{msg:24!} {bar:30.cyan/blue} {percent}% {human_pos}/{human_len} ({per_sec}, {eta} left)";
/// The bar's full, half and empty place.
const CHARS: &str = "━╸─";
/// Work without one.
const COUNT: &str = "{spinner} {msg:24!} {human_pos} ({per_sec}, {elapsed})";

/// A bar or a spinner.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Work with a known end.
    pub fn bar(what: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target());
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars(CHARS));
        }
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// Work whose end is not known.
    pub fn spinner(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Work whose end is not known, but of which can be said how much is done.
    pub fn count(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        if let Ok(style) = ProgressStyle::with_template(COUNT) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Its end is known now: goes on as a bar, from nothing when it is said again with other words.
    pub fn to(&self, what: &str, total: u64) {
        if self.0.length() == Some(total) && self.0.message() == what {
            return;
        }
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            self.0.set_style(style.progress_chars(CHARS));
        }
        self.0.set_message(what.to_owned());
        self.0.set_length(total);
        self.0.reset_elapsed();
        self.0.reset_eta();
    }

    /// How far it is.
    pub fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    /// What is being done now.
    pub fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// Done: the bar goes away.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    // Hidden by itself when standard error is not a terminal.
    ProgressDrawTarget::stderr_with_hz(REDRAWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_reads_as_a_template() {
        for template in [BAR, COUNT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_count_becomes_a_bar_when_its_end_is_known() {
        let progress = Progress::count("verifying");
        progress.at(500);
        assert_eq!(progress.0.length(), None);
        progress.to("importing", 1_000);
        progress.at(250);
        progress.to("importing", 1_000);
        assert_eq!((progress.0.position(), progress.0.length()), (250, Some(1_000)));
        assert_eq!(progress.0.message(), "importing");
    }
}
