//! The first start of a store makes a project and a token, once.

use crate::{
    says,
    server::{Server, Store},
};

#[test]
fn the_first_token_is_shown_at_the_first_start_and_never_again() {
    let folder = tempfile::tempdir().unwrap();
    let said = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    let start = || Server::listening(folder.path(), &Store::Embedded, &[]);
    let server = start();
    let first = said();
    says(&first, &["The first admin token, shown only now:", "export SKYLEDGER_TOKEN="]);
    let token = first.lines().find(|line| line.trim().starts_with("skyledger_")).unwrap().trim();
    let count = |server: &Server| {
        let events = server.run(&["--token", token, "events", "--kind", "token", "-o", "name"]);
        assert_eq!(events.code, 0, "{}", events.err);
        events.out.lines().count()
    };
    assert_eq!(count(&server), 1);
    assert_eq!(server.stop(), 0);
    let server = start();
    let second = said();
    assert!(!second.contains("skyledger_") && !second.contains("first admin token"), "{second}");
    assert_eq!(count(&server), 1);
}

#[test]
fn two_servers_that_start_on_one_empty_postgresql_make_one_project_and_one_token() {
    let store = Store::postgres();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let file = |folder: &tempfile::TempDir| folder.path().join("token");
    // Both on their way before either listens.
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starts: Vec<_> = folders
            .iter()
            .map(|folder| {
                let (store, file) = (&store, file(folder));
                scope.spawn(move || {
                    let more = ["--token-file", file.to_str().unwrap()];
                    Server::listening(folder.path(), store, &more)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let tokens: Vec<String> =
        folders.iter().filter_map(|folder| std::fs::read_to_string(file(folder)).ok()).collect();
    assert_eq!(tokens.len(), 1, "one of them was told a token");
    for server in &servers {
        // The log itself: views may be behind.
        for kind in ["project", "token"] {
            let token = tokens[0].trim();
            let events = server.run(&["--token", token, "events", "--kind", kind, "-o", "name"]);
            assert_eq!(events.code, 0, "{}", events.err);
            assert_eq!(events.out.lines().count(), 1, "{kind}: {}", events.out);
        }
    }
}
