//! One run of a tool of the host: with a deadline, and with what it said when it failed.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// Most that is kept of what a tool writes to standard error, in bytes: a fault is read by people.
const SAID_MAX: usize = 2_048;
/// Most that is read of a tool's answer, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// A tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolFault {
    /// It is not installed, or cannot be started.
    #[error("{tool} cannot be run")]
    Start {
        /// Its name.
        tool: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long, and was killed.
    #[error("{tool} took longer than {}s and was killed", limit.as_secs_f32())]
    Late {
        /// Its name and arguments.
        tool: String,
        /// How long it might take.
        limit: Duration,
    },
    /// It ended badly.
    #[error("{tool}: {said}")]
    Failed {
        /// Its name and arguments.
        tool: String,
        /// Its exit code; none when a signal ended it.
        code: Option<i32>,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// It ended well, and what it wrote does not read.
    #[error("{tool} answered what does not read: {what}")]
    Nonsense {
        /// Its name.
        tool: String,
        /// What was wrong.
        what: String,
    },
}

/// One run to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    program: String,
    arguments: Vec<String>,
    input: Option<Vec<u8>>,
    limit: Duration,
}

impl Tool {
    /// A tool with its arguments; it has 30 seconds unless said otherwise.
    pub fn new<A: Into<String>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.to_owned(), arguments, input: None, limit: Duration::from_secs(30) }
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// As a person would type it, for faults and for plans. What it reads is left out: that may be
    /// secret.
    pub fn line(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.arguments)
            .map(|word| {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
                if !word.is_empty() && word.chars().all(plain) {
                    return word.clone();
                }
                format!("'{}'", word.replace('\'', r"'\''"))
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Begins it and leaves it alone: it goes on when this process has ended. What it says on standard error
    /// goes into this file.
    ///
    /// # Errors
    /// [`ToolFault::Start`].
    pub fn leave(&self, said: std::fs::File) -> Result<(), ToolFault> {
        let start = |source| ToolFault::Start { tool: self.program.clone(), source };
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            // What ends this process by its terminal does not end that one.
            .process_group(0)
            .spawn();
        child.map(drop).map_err(start)
    }

    /// Begins it, to be written to and read from; it is killed when what is given here is dropped. What it says on
    /// standard error [`said`] tells.
    ///
    /// # Errors
    /// [`ToolFault::Start`].
    pub fn talk(&self) -> Result<Child, ToolFault> {
        let start = |source| ToolFault::Start { tool: self.program.clone(), source };
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)
    }

    /// Runs it, and gives what it wrote to standard output.
    ///
    /// # Errors
    /// Every way in which it may not have ended well; it does not run any more then.
    pub async fn run(&self) -> Result<Vec<u8>, ToolFault> {
        let start = |source| ToolFault::Start { tool: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let (Some(mut pipe), Some(input)) = (stdin, &self.input) {
                // A tool that does not want to read all of it says so by how it ends.
                let _ = pipe.write_all(input).await;
                let _ = pipe.shutdown().await;
            }
        };
        let read = async |pipe: Option<_>| {
            let mut bytes = Vec::new();
            if let Some(pipe) = pipe {
                read_all(pipe, &mut bytes).await?;
            }
            Ok::<_, std::io::Error>(bytes)
        };
        let errors = async {
            let mut bytes = Vec::new();
            if let Some(pipe) = stderr {
                read_all(pipe, &mut bytes).await?;
            }
            Ok::<_, std::io::Error>(bytes)
        };
        let work = async { tokio::join!(write, read(stdout), errors, child.wait()) };
        let done = tokio::time::timeout(self.limit, work).await;
        let Ok(((), answer, said, status)) = done else {
            // Waited for, so that nothing of it goes on behind our back.
            let _ = child.kill().await;
            return Err(ToolFault::Late { tool: self.line(), limit: self.limit });
        };
        let (answer, said, status) =
            (answer.map_err(start)?, said.map_err(start)?, status.map_err(start)?);
        if !status.success() {
            let said = String::from_utf8_lossy(&said);
            let said = said.trim();
            let from = said.ceil_char_boundary(said.len().saturating_sub(SAID_MAX));
            let said = if said.is_empty() { "it said nothing" } else { &said[from..] }.to_owned();
            return Err(ToolFault::Failed { tool: self.line(), code: status.code(), said });
        }
        Ok(answer)
    }

    /// Runs it, and gives what it wrote as text.
    ///
    /// # Errors
    /// As [`Self::run`]; and when it is not UTF-8.
    pub async fn text(&self) -> Result<String, ToolFault> {
        String::from_utf8(self.run().await?).map_err(|_| self.nonsense("it is not UTF-8"))
    }

    /// Its answer does not read.
    pub fn nonsense(&self, what: impl ToString) -> ToolFault {
        ToolFault::Nonsense { tool: self.program.clone(), what: what.to_string() }
    }
}

/// What a tool that was begun has said on standard error: all of it once it has ended, and before that what it says
/// within a second.
pub async fn said(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        let mut pipe = pipe.take(SAID_MAX as u64);
        let _ = tokio::time::timeout(Duration::from_secs(1), pipe.read_to_end(&mut said)).await;
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if said.is_empty() { "it said nothing".to_owned() } else { said }
}

async fn read_all(
    pipe: impl tokio::io::AsyncRead + Unpin,
    bytes: &mut Vec<u8>,
) -> std::io::Result<()> {
    pipe.take(ANSWER_MAX).read_to_end(bytes).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_tool_says_is_in_the_answer_or_in_the_fault() {
        let echo = Tool::new("cat", [] as [&str; 0]).input("a line");
        assert_eq!(echo.text().await.unwrap(), "a line");
        let fault = Tool::new("sh", ["-c", "echo no such disk >&2; exit 5"]).run().await;
        match fault.unwrap_err() {
            ToolFault::Failed { code, said, .. } => {
                assert_eq!((code, said.as_str()), (Some(5), "no such disk"));
            }
            other => panic!("{other}"),
        }
        let missing = Tool::new("no-such-tool", ["--help"]).run().await.unwrap_err();
        assert!(matches!(missing, ToolFault::Start { .. }), "{missing}");
    }

    #[tokio::test]
    async fn what_a_tool_says_that_is_talked_to_is_known_when_it_has_ended_and_before() {
        let mut ends = Tool::new("sh", ["-c", "echo no such port >&2; exit 5"]).talk().unwrap();
        assert_eq!(said(&mut ends).await, "no such port");
        let mut goes_on = Tool::new("sh", ["-c", "echo it waits >&2; exec cat"]).talk().unwrap();
        assert_eq!(said(&mut goes_on).await, "it waits");
        assert_eq!(said(&mut goes_on).await, "it said nothing");
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("echo $$ >{}; exec sleep 600", pid.display());
        let hangs = Tool::new("sh", ["-c", &script]).limit(Duration::from_millis(300));
        let fault = hangs.run().await.unwrap_err();
        assert!(matches!(fault, ToolFault::Late { .. }), "{fault}");
        let pid = std::fs::read_to_string(pid).unwrap();
        let alive = std::path::Path::new("/proc").join(pid.trim()).exists();
        assert!(!alive, "it still runs");
    }

    #[test]
    fn a_line_can_be_typed_again() {
        let line = Tool::new("sh", ["-c", "echo 'it is'", ""]).line();
        assert_eq!(line, r"sh -c 'echo '\''it is'\''' ''");
    }
}
