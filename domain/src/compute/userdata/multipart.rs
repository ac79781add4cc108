//! Userdata of several parts (MIME, RFC 2046 §5.1): each is what one of the other forms is, with its
//! type beside it.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{check_cloud_config, check_script, refusal};
use crate::kernel::Refusal;

/// Most parts: people have a handful.
const PARTS_MAX: usize = 64;
/// cloud-init looks for `MIME-Version` in so many bytes, and reads no parts when it is not there.
const VERSION_WITHIN: usize = 4_096;

/// The types of parts that cloud-init works on, sorted.
const TYPES: &[&str] = &[
    "text/cloud-boothook",
    "text/cloud-config",
    "text/cloud-config-archive",
    "text/jinja2",
    "text/part-handler",
    "text/x-include-once-url",
    "text/x-include-url",
    "text/x-shellscript",
    "text/x-shellscript-per-boot",
    "text/x-shellscript-per-instance",
    "text/x-shellscript-per-once",
];

/// Refuses what cloud-init would not read, or would read as nothing.
pub(super) fn check(content: &str) -> Result<(), Refusal> {
    let content = content.replace("\r\n", "\n");
    let (headers, rest) = split(&content)?;
    let kind = headers.get("content-type").ok_or_else(|| refusal("it has no Content-Type"))?;
    if !media_type(kind).starts_with("multipart/") {
        return Err(refusal(format!("{} is not multipart", media_type(kind))));
    }
    let from_start = content.to_ascii_lowercase().find("mime-version:");
    if from_start.is_none_or(|at| at >= VERSION_WITHIN) || !headers.has("mime-version") {
        return Err(refusal("MIME-Version: 1.0 is missing from its head"));
    }
    let boundary = boundary(kind).ok_or_else(|| refusal("its Content-Type names no boundary"))?;
    let parts = parts(rest, &boundary)?;
    for (at, part) in parts.iter().enumerate() {
        check_part(part).map_err(|why| {
            let why = why.detail.trim_start_matches("userdata: ").to_owned();
            refusal(format!("part {}: {why}", at + 1))
        })?;
    }
    Ok(())
}

fn check_part(part: &str) -> Result<(), Refusal> {
    let (headers, body) = split(part)?;
    let kind = headers.get("content-type").ok_or_else(|| refusal("it has no Content-Type"))?;
    let kind = media_type(kind);
    if !TYPES.contains(&kind.as_str()) {
        return Err(refusal(format!("{kind} is none of {}", TYPES.join(", "))));
    }
    let encoding = headers.get("content-transfer-encoding").unwrap_or("7bit").to_ascii_lowercase();
    let text = match encoding.as_str() {
        "7bit" | "8bit" | "binary" => body.to_owned(),
        "base64" => {
            let packed: String = body.split_whitespace().collect();
            let bytes = BASE64_STANDARD.decode(packed).map_err(|_| refusal("it is no base64"))?;
            String::from_utf8(bytes).map_err(|_| refusal("it is no UTF-8"))?
        }
        // Lines that are broken in two: what they say is for cloud-init to put together.
        "quoted-printable" => return Ok(()),
        other => return Err(refusal(format!("{other} is no transfer encoding"))),
    };
    match kind.as_str() {
        "text/cloud-config" => check_cloud_config(&text),
        kind if kind.starts_with("text/x-shellscript") => {
            // A part may lack the line end before its boundary, and the file begins with the body.
            if text.starts_with("#!") {
                check_script(&text)
            } else {
                Err(refusal("a script begins with #!"))
            }
        }
        _ => Ok(()),
    }
}

/// The parts between the boundaries.
fn parts<'a>(rest: &'a str, boundary: &str) -> Result<Vec<&'a str>, Refusal> {
    let (open, close) = (format!("--{boundary}"), format!("--{boundary}--"));
    let (mut parts, mut from, mut at) = (Vec::new(), None, 0);
    for line in rest.split_inclusive('\n') {
        let word = line.trim_end();
        if word == open || word == close {
            parts.extend(from.map(|from| &rest[from..at]));
            if parts.len() > PARTS_MAX {
                return Err(refusal(format!("it has more than {PARTS_MAX} parts")));
            }
            if word == close {
                return if parts.is_empty() { Err(refusal("it has no part")) } else { Ok(parts) };
            }
            from = Some(at + line.len());
        }
        at += line.len();
    }
    Err(refusal(format!("the last boundary, {close}, is missing")))
}

/// Headers of a message or a part, names in lower case.
struct Headers(Vec<(String, String)>);

impl Headers {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// The headers, and what comes after the empty line.
fn split(text: &str) -> Result<(Headers, &str), Refusal> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let words = line.trim_end();
        if words.is_empty() {
            return Ok((Headers(headers), &text[at..]));
        }
        if let (true, Some((_, value))) = (words.starts_with([' ', '\t']), headers.last_mut()) {
            value.push(' ');
            value.push_str(words.trim());
        } else if let Some((name, value)) = words.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        } else {
            return Err(refusal(format!("line {:?} is no header", shown(words))));
        }
    }
    Err(refusal("no empty line ends its headers"))
}

/// So much of a line that one can find it; what it says may be secret.
fn shown(line: &str) -> String {
    line.chars().take(12).collect()
}

fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn boundary(value: &str) -> Option<String> {
    let at = value.to_ascii_lowercase().find("boundary=")? + "boundary=".len();
    let rest = &value[at..];
    let boundary = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(|c: char| c == ';' || c.is_whitespace()).next()?,
    };
    (!boundary.is_empty() && boundary.len() <= 70).then(|| boundary.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Content-Type: multipart/mixed;\n boundary=\"==b==\"\nMIME-Version: 1.0\n\n";

    fn message(parts: &[&str]) -> String {
        let parts: Vec<_> = parts.iter().map(|part| format!("--==b==\n{part}\n")).collect();
        let parts = parts.concat();
        format!("{HEAD}{parts}--==b==--\n")
    }

    fn why(content: &str) -> String {
        check(content).map_or_else(|refusal| refusal.detail, |()| "none".to_owned())
    }

    const CONFIG: &str =
        "Content-Type: text/cloud-config; charset=\"utf-8\"\n\n#cloud-config\na: 1\n";
    const SCRIPT: &str = "MIME-Version: 1.0\nContent-Type: text/x-shellscript\n\
        Content-Transfer-Encoding: base64\n\nIyEvYmluL3NoCmVj\naG8K\n";

    #[test]
    fn several_parts_are_read() {
        let two = message(&[CONFIG, SCRIPT]);
        assert_eq!(why(&two), "none");
        assert_eq!(why(&two.replace('\n', "\r\n")), "none");
        assert_eq!(why(&two.replace("\"==b==\"", "==b==")), "none");
    }

    #[test]
    fn what_would_be_read_as_nothing_is_refused() {
        let two = message(&[CONFIG, SCRIPT]);
        for (content, expected) in [
            (
                two.replace("MIME-Version: 1.0\n\n--", "\n--"),
                "MIME-Version: 1.0 is missing from its head",
            ),
            (two.replace("--==b==--", ""), "the last boundary, --==b==--, is missing"),
            (two.replace("boundary", "border"), "its Content-Type names no boundary"),
            (two.replace("a: 1", "a: [1"), "part 1: the cloud-config is no YAML: "),
            (two.replace("IyEv", "I-Ev"), "part 2: it is no base64"),
            (two.replace("text/x-shellscript", "text/plain"), "part 2: text/plain is none of "),
            (two.replace("base64", "uuencode"), "part 2: uuencode is no transfer encoding"),
            (message(&[]), "it has no part"),
            (
                message(&["Content-Type: text/x-shellscript\n\necho\n"]),
                "part 1: a script begins with #!",
            ),
            (message(&["\nhello\n"]), "part 1: it has no Content-Type"),
            (message(&[CONFIG; 65]), "it has more than 64 parts"),
            (two.replace("multipart/mixed", "text/plain"), "text/plain is not multipart"),
        ] {
            let is = why(&content);
            assert!(is.starts_with(&format!("userdata: {expected}")), "{is}\n{content}");
        }
    }
}
