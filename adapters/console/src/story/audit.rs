//! Step 12: replay, the Merkle tree, and an export that somebody tampers with.

use serde_json::Value;

use super::{Memory, Stage, Teller, Told, Untrue, ensure};
use crate::show;

pub(super) async fn verify(stage: &mut impl Stage, memory: &Memory, teller: &mut Teller) -> Told {
    teller.step("Trust nothing: verify")?;
    let head = memory.head().await?;
    stage.stop().await?;
    teller.say("The server is stopped; what follows needs only its folder, then not even that.")?;
    let data = stage.data();
    let path = |name: &str| data.join(name).display().to_string();
    let folder = data.display().to_string();

    teller.typed("replay --verify --threads 2 --data …")?;
    let words = ["replay", "--verify", "--threads", "2", "--data", &folder, "-o", "json"];
    let (code, text) = stage.tool(&words).await?;
    let views: Vec<Value> =
        serde_json::from_str(&text).map_err(|_| Untrue(format!("replay says: {text}")))?;
    let word = |view: &Value, name: &str| crate::columns::plain(&view[name]);
    let rows = views
        .iter()
        .map(|view| {
            let digest = |name| word(view, name).chars().take(12).collect();
            vec![word(view, "view"), word(view, "rows"), digest("live"), digest("replayed")]
        })
        .collect();
    let headings = ["view", "row versions", "live", "replayed"];
    teller.table(show::grid(&headings, rows, teller.style()))?;
    ensure(code == 0, format!("replay ends with {code}: {text}"))?;
    ensure(
        !views.is_empty() && views.iter().all(|view| view["live"] == view["replayed"]),
        "every view is bit-identical with its replay",
    )?;
    teller.checked(&format!("{head} events folded again: every view bit-identical"))?;

    teller.typed("export -o ledger.jsonl --data …")?;
    teller.typed("audit verify ledger.jsonl --key … --witness …")?;
    let (export, key, witness) = (path("ledger.jsonl"), path("keys/witness.pub"), path("witness"));
    let (code, text) = stage.tool(&["export", "--data", &folder, "-o", &export]).await?;
    ensure(code == 0, format!("export ends with {code}: {text}"))?;
    let words = ["audit", "verify", &export, "--key", &key, "--witness", &witness];
    let (code, text) = stage.tool(&words).await?;
    ensure(code == 0, format!("audit verify ends with {code}: {text}"))?;
    teller.checked(text.trim())?;

    teller.say("Now one letter of one record is changed in a copy.")?;
    let forged = path("forged.jsonl");
    let line = forge(&std::fs::read_to_string(&export)?)?;
    std::fs::write(&forged, &line.1)?;
    let words = ["audit", "verify", &forged, "--key", &key, "--witness", &witness];
    let (code, text) = stage.tool(&words).await?;
    ensure(code == 6, format!("a forged export ends with {code}: {text}"))?;
    let place = format!("position {}", line.0);
    ensure(text.contains(&place), format!("the verdict does not name {place}: {text}"))?;
    teller.quote(text.lines().next().unwrap_or_default())?;
    teller.checked(&format!("exit code 6, and the record is named: {place}"))?;
    std::fs::remove_file(&forged)?;
    Ok(())
}

/// Changes one letter of a record's name in the middle of an export: its position, and all of it.
fn forge(export: &str) -> Told<(usize, String)> {
    let mut lines: Vec<String> = export.lines().map(str::to_owned).collect();
    let forged = lines
        .iter()
        .position(|line| line.contains("demo-web"))
        .ok_or_else(|| Untrue("the export does not have demo-web".to_owned()))?;
    lines[forged] = lines[forged].replacen("demo-web", "demo-wed", 1);
    // The first line is the heading: the record of line 1 has position 1.
    Ok((forged, lines.join("\n") + "\n"))
}
