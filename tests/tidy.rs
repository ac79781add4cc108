//! House-keeping: what can be said of the sources without running them. Layers, lists, documents
//! and words; each test says everything that is wrong, not only the first.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its sources fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use projections::views::{LENSES, VIEWS};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }
    fn is_markdown(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "md")
    }
}

/// Every text file that people write.
fn sources() -> Vec<Source> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let ours = ![".git", ".venv", "target", "node_modules"].contains(&name.as_str());
            if path.is_dir() && ours {
                walk(&path, out);
            } else if path.is_file() && ours && name != "Cargo.lock" {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(root(), &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        // What is not UTF-8 is a picture or a sample, not a source.
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        Some(Source { path, text })
    };
    paths.into_iter().filter_map(source).collect()
}

#[track_caller]
fn check(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[track_caller]
fn check_sorted<'a>(list: &str, names: impl IntoIterator<Item = &'a str>) {
    let names: Vec<_> = names.into_iter().collect();
    let wrong = names.windows(2).filter(|pair| pair[0] >= pair[1]);
    let wrong = wrong.map(|pair| format!("{} comes after {}", pair[1], pair[0])).collect();
    check(&format!("{list} is sorted by name, without repetition"), wrong);
}

/// Every package that a package of ours is built with, transitively.
fn dependencies(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let names: BTreeSet<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(package), "cargo tree names {package} itself: {text}");
    names.into_iter().filter(|name| *name != package).map(str::to_owned).collect()
}

fn adapters() -> Vec<String> {
    let folders = fs::read_dir(root().join("adapters")).unwrap();
    let mut names: Vec<_> = folders
        .map(|folder| format!("adapters-{}", folder.unwrap().file_name().to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// What belongs to the edge: asynchrony, I/O, time and chance.
const EDGE: &[&str] = &[
    "axum",
    "getrandom",
    "hyper",
    "rand",
    "reqwest",
    "rusqlite",
    "rustls",
    "tokio",
    "tokio-postgres",
];

#[test]
fn inner_layers_are_built_without_outer_ones() {
    let mut wrong = Vec::new();
    for (package, never) in [
        ("domain", &["async-trait", "commands", "futures", "projections", "tracing"][..]),
        ("commands", &["projections"]),
        ("projections", &["async-trait", "commands", "futures", "tracing"]),
    ] {
        let dependencies = dependencies(package);
        let banned = never.iter().chain(EDGE).map(|name| (*name).to_owned()).chain(adapters());
        let found = banned.filter(|name| dependencies.contains(name));
        wrong.extend(found.map(|name| format!("{package} is built with {name}")));
    }
    check("layers (docs/architecture.md)", wrong);
}

#[test]
fn what_is_pure_takes_nothing_of_the_world_from_std() {
    const WORLD: &[&str] = &[
        "Instant",
        "RandomState",
        "SystemTime",
        "print!",
        "println!",
        "std::env",
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::time",
    ];
    // `use std::{fs, …}` names a module without what stands before it.
    const MODULES: &[&str] = &["env", "fs", "net", "process", "thread", "time"];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        if !["domain/src/", "projections/src/"].iter().any(|part| source.path.starts_with(part)) {
            continue;
        }
        let code = source.text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code: Vec<_> = code.collect();
        for (index, line) in code.iter().enumerate() {
            for banned in WORLD.iter().filter(|banned| line.contains(**banned)) {
                wrong.push(format!("{}:{}: {banned}", source.path, index + 1));
            }
        }
        for list in code.join(" ").split("use std::{").skip(1) {
            let list = list.split(';').next().unwrap_or_default();
            let names = list.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let found = names.filter(|name| MODULES.contains(name));
            wrong.extend(found.map(|name| format!("{}: std::{{{name}}}", source.path)));
        }
    }
    check("the domain and the views ask nothing of the world", wrong);
}

#[test]
fn no_adapter_is_built_with_another() {
    const NBD: &str = "adapters-nbd";
    const OWN: &[&str] = &["commands", "domain", "projections"];
    let adapters = adapters();
    let mut wrong = Vec::new();
    for package in &adapters {
        for name in dependencies(package) {
            // What the stores share is a library of theirs (ADR 0012).
            let shared = name == "adapters-store-kit" && package.starts_with("adapters-store-");
            // kvm is the driver of a host: libvirt is its wire, and it writes backups. Nobody else does.
            let wire = ["adapters-backup", "adapters-libvirt"].contains(&name.as_str())
                && package == "adapters-kvm";
            // NBD is a wire alone, of backups and of machines that are moved here; no port, nothing of ours.
            let nbd = name == NBD;
            if package == NBD && OWN.contains(&name.as_str()) {
                wrong.push(format!("{package} is a wire, and is built with {name}"));
            }
            if (adapters.contains(&name) && !shared && !wire && !nbd) || name == "skyledger" {
                wrong.push(format!("{package} is built with {name}"));
            }
        }
    }
    check("adapters know ports, never each other", wrong);
}

#[test]
fn lists_are_sorted() {
    check_sorted("KINDS", domain::kinds::KINDS.iter().map(|kind| kind.name));
    for kind in domain::kinds::KINDS {
        check_sorted(kind.name, (kind.verbs)().iter().map(|verb| verb.name));
    }
    check_sorted("REFUSALS", domain::kernel::REFUSALS.iter().map(|code| code.code));
    check_sorted("PROBLEMS", adapters_http::problem::PROBLEMS.iter().map(|code| code.code));
    check_sorted("VIEWS", VIEWS.iter().map(|view| view.name()));
    check_sorted("LENSES", LENSES.iter().map(|lens| lens.name));
    check_sorted("PROVIDERS", adapters_clouds::PROVIDERS.iter().map(|entry| entry.name));
    for entry in adapters_clouds::PROVIDERS {
        check_sorted(entry.name, entry.table.iter().map(|support| support.kind));
        for support in entry.table {
            check_sorted(support.kind, support.orders.iter().copied());
        }
    }
}

#[test]
fn dependencies_are_sorted() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with("Cargo.toml")) {
        let (mut inside, mut before) = (false, "");
        for line in source.text.lines() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            }
            // A blank line begins a new block: ours, then others'.
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if line.is_empty() || line.starts_with('[') {
                before = "";
            } else if inside && !line.starts_with('#') {
                if name <= before {
                    wrong.push(format!("{}: {name} comes after {before}", source.path));
                }
                before = name;
            }
        }
    }
    check("dependencies are sorted", wrong);
}

/// What stands between back-ticks, code blocks aside.
fn quoted(markdown: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut in_block = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            out.extend(line.split('`').skip(1).step_by(2));
        }
    }
    out
}

/// The targets of relative links.
fn links(markdown: &str) -> Vec<&str> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

/// Whether something in back-ticks means a file or folder of the repository.
fn is_path(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let folders =
        [".cargo", ".ci", "adapters", "commands", "docs", "domain", "projections", "src", "tests"];
    let plain = !text.contains(|c: char| " *<>{}…()".contains(c) || c.is_control());
    plain && text.contains('/') && folders.contains(&first)
}

#[test]
fn what_documents_point_at_is_there() {
    let sources = sources();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.is_markdown()) {
        for text in quoted(&source.text).into_iter().filter(|text| is_path(text)) {
            // `path::test` names a test of that file.
            let (path, test) = text.split_once("::").unwrap_or((text, ""));
            let there = root().join(path);
            let has_test = || {
                let text = fs::read_to_string(&there).unwrap_or_default();
                text.contains(&format!("fn {test}("))
            };
            if !there.exists() || (!test.is_empty() && !has_test()) {
                wrong.push(format!("{}: there is no `{text}`", source.path));
            }
        }
        let folder = root().join(&source.path).parent().unwrap().to_path_buf();
        for target in links(&source.text) {
            if !folder.join(target).exists() {
                wrong.push(format!("{}: the link to {target} leads nowhere", source.path));
            }
        }
    }
    for source in sources.iter().filter(|source| source.is_rust()) {
        for text in source.text.split('`').filter(|text| text.starts_with("docs/")) {
            if is_path(text) && !root().join(text).exists() {
                wrong.push(format!("{}: there is no `{text}`", source.path));
            }
        }
    }
    check("paths in documents", wrong);
}

#[test]
fn every_invariant_names_the_test_that_holds_it() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let part = text.split("## Invariants").nth(1).expect("architecture.md says the invariants");
    let part = part.split("\n## ").next().unwrap_or_default();
    let rows: Vec<_> = part.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 10, "the invariants are a table");
    let without = rows.into_iter().filter(|row| !row.contains("::"));
    check("invariants without a test", without.map(str::to_owned).collect());
}

#[test]
fn decisions_are_numbered_without_gaps_and_linked_from_the_map() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let files = fs::read_dir(root().join("docs/adr")).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let mut wrong = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let text = fs::read_to_string(root().join("docs/adr").join(name)).unwrap();
        if !name.starts_with(&format!("{:04}-", index + 1)) {
            wrong.push(format!("{name} is not number {}", index + 1));
        }
        if !map.contains(&format!("adr/{name}")) && !text.contains("Superseded by") {
            wrong.push(format!("docs/architecture.md does not link {name}"));
        }
        for part in ["## Context", "## Decision", "## What we gave up"] {
            if !text.contains(part) {
                wrong.push(format!("{name} has no `{part}`"));
            }
        }
    }
    check("decisions", wrong);
}

/// The identifiers of a line, as words in lower case; comments and strings aside.
fn words(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let code: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in code.chars() {
        if !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && was_lower) {
            words.push(String::new());
        }
        if c.is_ascii_alphabetic() {
            words.last_mut().unwrap().push(c.to_ascii_lowercase());
        }
        was_lower = c.is_ascii_lowercase();
    }
    words
}

#[test]
fn one_word_for_one_thing() {
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let rows = glossary.lines().filter(|line| line.starts_with("| **"));
    // Only what stands in back-ticks in the column "not" is looked for: other words there are
    // wrong for this thing, and right for another.
    let never: BTreeSet<_> = rows
        .filter_map(|row| row.trim_end_matches([' ', '|']).rsplit(" | ").next())
        .flat_map(quoted)
        .collect();
    assert!(never.len() >= 10, "the glossary names words not to use: {never:?}");
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        let inner = ["commands/", "domain/", "projections/", "src/"];
        if !inner.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let found = words(line).into_iter().find(|word| never.contains(word.as_str()));
            if let Some(word) = found {
                wrong.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    check("words that the glossary does not want", wrong);
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    // Where this happens to be checked out, and whose home it is: neither belongs in a file.
    let here = format!("{}/", root().display());
    let home = std::env::var("HOME").map(|home| format!("{}/", home.trim_end_matches('/')));
    let home = home.ok().filter(|home| home.len() > 1);
    for source in sources().iter().filter(|source| source.path != "tests/tidy.rs") {
        let everywhere = [
            &here,
            home.as_deref().unwrap_or(&here),
            "crates.io",
            "deb.debian.org",
            "pypi.org",
            "pythonhosted.org",
            "FIXME",
            "TODO",
        ];
        let in_code = ["dbg!(", "todo!(", "unimplemented!(", "#[should_panic"];
        let in_code = in_code.iter().filter(|_| source.is_rust());
        let lines: Vec<_> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if source.is_rust() && line.contains("#[ignore") {
                wrong.push(format!("{}:{}: a test that is not run", source.path, index + 1));
            }
            for banned in everywhere.iter().chain(in_code.clone()) {
                if line.contains(banned) {
                    wrong.push(format!("{}:{}: {banned}", source.path, index + 1));
                }
            }
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            wrong.push(format!("{} does not end with a new line", source.path));
        }
    }
    check("left-overs", wrong);
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        if !source.text.starts_with("//!") {
            wrong.push(format!("{} has no header", source.path));
        }
        let lines = source.text.lines().count();
        if lines > 600 {
            // Not wrong, but worth a look: is there a noun hiding?
            println!("{} has {lines} lines", source.path);
        }
    }
    check("module headers", wrong);
}

#[test]
fn what_tests_need_is_set_by_the_test_command() {
    let command = fs::read_to_string(root().join("test")).unwrap();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        for rest in source.text.split("SKYLEDGER_TEST_").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(0);
            let name = format!("SKYLEDGER_TEST_{}", &rest[..end]);
            if end > 0 && !command.contains(&name) {
                wrong.push(format!("{} reads {name}, which ./test does not set", source.path));
            }
        }
    }
    check("what tests read from the environment", wrong);
}
