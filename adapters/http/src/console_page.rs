//! The page that shows consoles in a browser, and the files it is made of.
//!
//! Anybody may have it: it knows nothing, and opens nothing without a ticket or a token. What it is made of
//! is in this program, so that nothing is loaded from elsewhere, and the browser is told to keep it so.

#![expect(clippy::unused_async, reason = "every handler of a route is asynchronous")]

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use domain::kernel::{Refusal, codes};

use crate::{
    call::{Answer, Call},
    problem::Problem,
};

/// What the browser lets the page do: run these scripts and no other, speak to this server and no other,
/// show images of its own making (a guest's pointer), and be in no other page. Text never becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// A file of the page: name, type, content.
type File = (&'static str, &'static str, &'static str);

const PAGE: File = ("console", HTML, include_str!("console_page/page.html"));
/// Sorted by name.
static FILES: &[File] = &[
    ("keys.js", SCRIPT, include_str!("console_page/keys.js")),
    ("line.js", SCRIPT, include_str!("console_page/line.js")),
    ("page.css", STYLE, include_str!("console_page/page.css")),
    ("page.js", SCRIPT, include_str!("console_page/page.js")),
    ("rfb.js", SCRIPT, include_str!("console_page/rfb.js")),
    ("screen.js", SCRIPT, include_str!("console_page/screen.js")),
    ("terminal.js", SCRIPT, include_str!("console_page/terminal.js")),
];

pub(crate) async fn page(_: Call) -> Answer {
    Ok(shown(&PAGE))
}

pub(crate) async fn file(call: Call) -> Answer {
    let name = call.part("file");
    let file = FILES.iter().find(|file| file.0 == name).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        let detail = format!("the page of consoles has no file {name:?}");
        Problem::from(Refusal::new(&codes::NOT_FOUND, detail))
    })?;
    Ok(shown(file))
}

fn shown((_, kind, content): &File) -> Response<Body> {
    let mut response = Response::new(Body::from(*content));
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, kind);
    // Asked for again each time: a page and its scripts are of one build.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_the_page_holds_to_its_policy() {
        assert!(FILES.is_sorted_by_key(|file| file.0));
        for inline in ["<script>", " style=", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!PAGE.2.contains(inline), "{inline}");
        }
        // Every file that is named is there, and every file is named.
        for (name, _, content) in FILES.iter().chain([&PAGE]) {
            let ends = ["from \"./", "=\"console/"];
            for named in ends.iter().flat_map(|end| content.split(end).skip(1)) {
                let named = named.split('"').next().unwrap();
                assert!(FILES.iter().any(|file| file.0 == named), "{name} wants {named}");
            }
        }
        for (name, ..) in FILES {
            let is_named = |file: &File| file.2.contains(&format!("/{name}\""));
            assert!(FILES.iter().chain([&PAGE]).any(is_named), "{name}");
        }
        // Nothing of the page makes markup of text, or keeps anything in the browser.
        for (name, _, content) in FILES {
            for word in ["innerHTML", "eval(", "document.write", "localStorage", "sessionStorage"] {
                assert!(!content.contains(word), "{name} has {word}");
            }
        }
    }
}
