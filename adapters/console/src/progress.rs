//! Bars on long work: on standard error, only when it is a terminal, gone when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second: more is noise.
const REDRAWS: u8 = 10;

/// A bar or a spinner.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Work with a known end.
    pub fn bar(what: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target());
        let style = ProgressStyle::with_template(
            "{msg:24!} {bar:30.cyan/blue} {human_pos}/{human_len} ({per_sec}, {eta} left)",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
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
