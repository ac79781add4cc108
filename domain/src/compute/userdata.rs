//! What a server does at its first boot, as its owner wrote it.
//!
//! Checked before anything is made: cloud-init and cloudbase-init say nothing to the owner when they
//! do not understand it, they only do nothing. What they are given in the end is in [`nocloud`].

mod multipart;
pub mod nocloud;

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::kernel::{Refusal, codes};

/// Longest userdata, in bytes: of its base64 (RFC 4648 §4, with padding, without line breaks). That
/// is 49,152 bytes of UTF-8. Clouds and older platforms have the same limit, so userdata can be moved.
pub const ENCODED_MAX: usize = 65_536;

/// What a server runs: it decides which forms make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux or BSD, with cloud-init.
    Linux,
    /// Windows, with cloudbase-init.
    Windows,
}

/// A form of userdata, told by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `#cloud-config`: YAML.
    CloudConfig,
    /// `#!`: a script for the interpreter that the line names.
    Script,
    /// `Content-Type: multipart/…`: several of the others.
    Multipart,
    /// `[bat]`: a script for the Windows command interpreter.
    Batch,
    /// `[powershell]`, or the element `<powershell>`: a script for PowerShell.
    Powershell,
}

/// Userdata that its system understands.
#[derive(Clone, PartialEq, Eq)]
pub struct Userdata {
    form: Form,
    content: String,
}

// It may hold passwords.
impl fmt::Debug for Userdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Userdata({:?}, {} bytes)", self.form, self.content.len())
    }
}

impl Userdata {
    /// Reads what an owner wrote.
    ///
    /// # Errors
    /// `userdata-invalid`: it is too long, has no known form, or a form that the system does not
    /// understand.
    pub fn read(content: String, system: System) -> Result<Self, Refusal> {
        let encoded = encoded_length(content.len());
        if encoded > ENCODED_MAX {
            let detail =
                format!("it has {encoded} bytes in base64, and {ENCODED_MAX} is the most there is");
            return Err(refusal(detail));
        }
        if let Some(at) = content.chars().position(|c| c == '\0') {
            return Err(refusal(format!("character {} is a zero", at + 1)));
        }
        let form = form(&content)?;
        match (form, system) {
            (Form::Batch | Form::Powershell, System::Linux) => {
                return Err(refusal("a script for Windows, and the server runs Linux"));
            }
            (Form::Script, System::Windows) => {
                return Err(refusal(
                    "a script that begins with #!, and the server runs Windows: begin with \
                     [powershell] or [bat]",
                ));
            }
            (Form::CloudConfig, _) => check_cloud_config(&content)?,
            (Form::Script, _) => check_script(&content)?,
            (Form::Multipart, _) => multipart::check(&content)?,
            (Form::Batch, _) if body(&content).trim().is_empty() => {
                return Err(refusal("the script is empty"));
            }
            (Form::Batch, _) => {}
            (Form::Powershell, _) => {
                if powershell(&content)?.trim().is_empty() {
                    return Err(refusal("the script is empty"));
                }
            }
        }
        Ok(Self { form, content })
    }

    /// Its form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// As its owner wrote it.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// In base64, as it is kept and as clouds take it; at most [`ENCODED_MAX`] bytes.
    pub fn encoded(&self) -> String {
        BASE64_STANDARD.encode(&self.content)
    }

    /// As the server's own software understands it. It is run once for each instance id.
    pub fn delivered(&self) -> String {
        match self.form {
            Form::CloudConfig | Form::Script | Form::Multipart => self.content.clone(),
            Form::Batch => format!("rem cmd\r\n{}", crlf(body(&self.content))),
            Form::Powershell => {
                let script = powershell(&self.content).unwrap_or_default();
                format!("#ps1_sysnative\r\n{}", crlf(script))
            }
        }
    }
}

/// How long so many bytes are in base64.
const fn encoded_length(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

fn refusal(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::USERDATA_INVALID, format!("userdata: {}", detail.into()))
}

/// How the forms begin, for who wrote none of them.
const FORMS: &str =
    "#cloud-config, #!, Content-Type: multipart/, [powershell], <powershell> or [bat]";

fn form(content: &str) -> Result<Form, Refusal> {
    if content.starts_with('\u{feff}') {
        return Err(refusal("it begins with a byte order mark: save it as UTF-8 without one"));
    }
    let first = content.lines().next().unwrap_or_default();
    let lower = first.to_ascii_lowercase();
    let word = lower.trim_end();
    if word == "#cloud-config" {
        Ok(Form::CloudConfig)
    } else if first.starts_with("#!") {
        Ok(Form::Script)
    } else if lower.starts_with("content-type:") || lower.starts_with("mime-version:") {
        Ok(Form::Multipart)
    } else if word == "[bat]" {
        Ok(Form::Batch)
    } else if word == "[powershell]" || lower.starts_with(OPEN) {
        Ok(Form::Powershell)
    } else if content.trim().is_empty() {
        Err(refusal("it is empty: leave it out instead"))
    } else {
        Err(refusal(format!("the first line says no form: begin with {FORMS}")))
    }
}

/// All but the first line.
fn body(content: &str) -> &str {
    content.split_once('\n').map_or("", |(_, rest)| rest)
}

/// With the line ends of Windows.
fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

const OPEN: &str = "<powershell>";
const CLOSE: &str = "</powershell>";

/// The script itself.
fn powershell(content: &str) -> Result<&str, Refusal> {
    let content = content.trim_end();
    if !content.to_ascii_lowercase().starts_with(OPEN) {
        return Ok(body(content));
    }
    // ASCII only is folded, so that places in both texts are the same.
    let lower = content.to_ascii_lowercase();
    let end = lower.find(CLOSE).ok_or_else(|| refusal("</powershell> is missing"))?;
    if end + CLOSE.len() != content.len() {
        return Err(refusal("there is more after </powershell>"));
    }
    Ok(&content[OPEN.len()..end])
}

/// Most brackets that may be open: what a YAML reader does grows with them, and people open a few.
const OPEN_MAX: usize = 256;

fn check_cloud_config(content: &str) -> Result<(), Refusal> {
    use serde_norway::Value;
    let mut open = 0_usize;
    for byte in content.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN_MAX {
            let why =
                format!("the cloud-config is no YAML: more than {OPEN_MAX} brackets are open");
            return Err(refusal(why));
        }
    }
    let read: Result<Value, _> = serde_norway::from_str(content);
    match read {
        Ok(Value::Mapping(_) | Value::Null) => Ok(()),
        Ok(_) => Err(refusal("a cloud-config is a mapping of names to settings")),
        Err(error) => Err(refusal(format!("the cloud-config is no YAML: {error}"))),
    }
}

fn check_script(content: &str) -> Result<(), Refusal> {
    let first = content.split('\n').next().unwrap_or_default();
    if first.ends_with('\r') {
        let what = "the lines end as on Windows (CR LF): no interpreter is found then";
        return Err(refusal(what));
    }
    let interpreter = first.trim_start_matches("#!").split_whitespace().next().unwrap_or_default();
    if !interpreter.starts_with('/') {
        return Err(refusal("#! is followed by the absolute path of an interpreter"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, system: System) -> Result<Userdata, String> {
        Userdata::read(content.to_owned(), system).map_err(|refusal| refusal.detail)
    }

    #[test]
    fn every_form_is_told_by_how_it_begins() {
        use {Form::*, System::*};
        for (content, system, form) in [
            ("#cloud-config\npackages: [nginx]\n", Linux, CloudConfig),
            ("#cloud-config \r\npackages:\r\n- nginx\r\n", Linux, CloudConfig),
            ("#cloud-config\n", Windows, CloudConfig),
            ("#!/bin/sh\necho done\n", Linux, Script),
            ("#! /usr/bin/env -S python3 -u\nprint()\n", Linux, Script),
            ("[bat]\necho done", Windows, Batch),
            ("[powershell]\r\nWrite-Host done\r\n", Windows, Powershell),
            ("<powershell>Write-Host done</powershell>\n", Windows, Powershell),
        ] {
            assert_eq!(read(content, system).map(|read| read.form), Ok(form), "{content}");
        }
    }

    /// What `tests/servers/cloud_init_runs.sh` has the real cloud-init run.
    #[test]
    fn what_cloud_init_was_seen_to_run_is_taken() {
        for (content, form) in [
            (include_str!("userdata/golden/cloud-config"), Form::CloudConfig),
            (include_str!("userdata/golden/multipart"), Form::Multipart),
            (include_str!("userdata/golden/script"), Form::Script),
        ] {
            assert_eq!(read(content, System::Linux).map(|read| read.form), Ok(form), "{content}");
        }
    }

    #[test]
    fn what_nobody_would_understand_is_refused_with_the_reason() {
        use System::*;
        for (content, system, why) in [
            ("", Linux, "it is empty: leave it out instead"),
            ("\n\n", Linux, "it is empty: leave it out instead"),
            (
                "echo done",
                Linux,
                "the first line says no form: begin with #cloud-config, #!, Content-Type: \
                 multipart/, [powershell], <powershell> or [bat]",
            ),
            (
                "\u{feff}#!/bin/sh\n",
                Linux,
                "it begins with a byte order mark: save it as UTF-8 without one",
            ),
            ("#cloud-config\n- a\n", Linux, "a cloud-config is a mapping of names to settings"),
            (
                "#!/bin/sh\r\necho\r\n",
                Linux,
                "the lines end as on Windows (CR LF): no interpreter is found then",
            ),
            ("#!bash\n", Linux, "#! is followed by the absolute path of an interpreter"),
            ("#!/bin/sh\n\0", Linux, "character 11 is a zero"),
            ("[bat]\necho", Linux, "a script for Windows, and the server runs Linux"),
            ("[bat]\r\n", Windows, "the script is empty"),
            ("<powershell> </powershell>", Windows, "the script is empty"),
            ("<powershell>dir", Windows, "</powershell> is missing"),
            (
                "<powershell>dir</powershell><persist>true</persist>",
                Windows,
                "there is more after </powershell>",
            ),
            (
                "#!/bin/sh\n",
                Windows,
                "a script that begins with #!, and the server runs Windows: begin with \
                 [powershell] or [bat]",
            ),
        ] {
            assert_eq!(read(content, system), Err(format!("userdata: {why}")), "{content:?}");
        }
        let yaml = read("#cloud-config\na: [1\n", Linux).unwrap_err();
        assert!(yaml.starts_with("userdata: the cloud-config is no YAML: "), "{yaml}");
    }

    #[test]
    fn the_limit_is_of_the_encoded_bytes() {
        let script = |length: usize| format!("#!/bin/sh\n{}", "#".repeat(length - 10));
        let largest = read(&script(49_152), System::Linux).unwrap();
        assert_eq!(largest.encoded().len(), ENCODED_MAX);
        let more = read(&script(49_153), System::Linux).unwrap_err();
        let why = "userdata: it has 65540 bytes in base64, and 65536 is the most there is";
        assert_eq!(more, why);
        // Bytes count, not characters.
        let wide = format!("#!/bin/sh\n{}", "é".repeat(24_572));
        assert!(read(&wide, System::Linux).is_err());
    }

    #[test]
    fn yaml_that_grows_without_end_is_refused() {
        let deep = format!("#cloud-config\na: {}", "[".repeat(49_000));
        let mut wide = "#cloud-config\na0: &a0 [x]\n".to_owned();
        for at in 1..40 {
            let last = format!("*a{}", at - 1);
            let line = format!("a{at}: &a{at} [{}]\n", [last.as_str(); 10].join(", "));
            wide.push_str(&line);
        }
        for content in [deep, wide] {
            let why = read(&content, System::Linux).unwrap_err();
            assert!(why.starts_with("userdata: the cloud-config is no YAML: "), "{why}");
        }
    }

    #[test]
    fn windows_gets_the_marks_that_cloudbase_init_knows() {
        for (content, delivered) in [
            ("[bat]\ndir\necho\n", "rem cmd\r\ndir\r\necho\r\n"),
            ("[powershell]\r\nGet-Date\n", "#ps1_sysnative\r\nGet-Date"),
            ("<PowerShell>\nGet-Date\n</POWERSHELL>\n", "#ps1_sysnative\r\n\r\nGet-Date\r\n"),
        ] {
            assert_eq!(read(content, System::Windows).unwrap().delivered(), delivered);
        }
    }

    #[test]
    fn nothing_of_it_is_in_a_debug_line() {
        let userdata = read("#!/bin/sh\npasswd=secret\n", System::Linux).unwrap();
        assert_eq!(format!("{userdata:?}"), "Userdata(Script, 24 bytes)");
    }
}
