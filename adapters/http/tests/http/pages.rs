//! The page of consoles: what it is made of is there for anybody, and the browser is told what it may do.

use crate::world::{World, get};

#[tokio::test]
async fn the_page_of_consoles_runs_no_scripts_but_its_own_and_is_in_no_other_page() {
    let world = World::new().await;
    let page = world.send(get("/console")).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let named = page.text.split("=\"console/").skip(1);
    let mut wanted: Vec<String> =
        named.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    let mut seen = 0;
    while let Some(file) = wanted.pop() {
        let is_style = file.rsplit('.').next() == Some("css");
        let kind = if is_style { "text/css" } else { "text/javascript" };
        let path = format!("/console/{file}");
        let part = world.send(get(&path)).await;
        assert_eq!(part.header("content-type"), format!("{kind}; charset=utf-8"), "{file}");
        let imports = part.text.split("from \"./").skip(1);
        wanted.extend(imports.map(|rest| rest.split('"').next().unwrap().to_owned()));
        for reply in [&page, &part] {
            let policy = reply.header("content-security-policy");
            for rule in [
                "default-src 'none'",
                "script-src 'self';",
                "style-src 'self';",
                "connect-src 'self';",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(rule), "{rule}: {policy}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
            assert_eq!(reply.header("referrer-policy"), "no-referrer");
            assert_eq!(reply.header("cache-control"), "no-cache");
        }
        assert_eq!(part.status, 200, "{file}");
        seen += 1;
    }
    assert_eq!(page.status, 200);
    assert!(seen >= 7, "{seen}");
    world.send(get("/console/other.js")).await.problem(404, "not-found");
    world.send(get("/console/..%2Fpage.js")).await.problem(404, "not-found");
}
