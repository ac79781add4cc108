//! Heads and proofs from a server; the offline verifier, which needs neither server nor store.

use std::{
    fs::File,
    io::{BufReader, Write},
};

use adapters_console::{exit::Exit, format, progress::Progress, style::Style};
use adapters_keys::{read_verifier_key, read_witness, verify_signature};
use commands::transfer::{self, Lines};
use domain::log::Check;

use super::{Failure, grammar::Audit, query::pairs};
use crate::connection::Connection;

pub(super) async fn run(command: Audit, connection: &Connection) -> Result<Exit, Failure> {
    match command {
        Audit::Head(output) => {
            let head = connection.client()?.get("/v1/audit/head", &[]).await?.body;
            let out = &mut std::io::stdout().lock();
            if output.output.is_for_people() {
                let names = ["origin", "size", "root", "recorded_at", "verifier_key"];
                writeln!(out, "{}", pairs(&head, &names))?;
                if let Some(note) = head["note"].as_str() {
                    writeln!(out, "\n{}", note.trim_end())?;
                }
            } else {
                format::document(out, output.output, &head)?;
            }
            Ok(Exit::Ok)
        }
        Audit::Proof { position, from, to, output } => {
            let mut query = Vec::new();
            query.extend(position.map(|position| ("position", position.to_string())));
            query.extend(from.map(|from| ("from", from.to_string())));
            let name = if from.is_some() { "to" } else { "size" };
            query.extend(to.map(|to| (name, to.to_string())));
            let proof = connection.client()?.get("/v1/audit/proof", &query).await?.body;
            let format =
                if output.output.is_for_people() { format::Format::Json } else { output.output };
            format::document(&mut std::io::stdout().lock(), format, &proof)?;
            Ok(Exit::Ok)
        }
        Audit::Verify { export, witness, key, output } => {
            let key = match &key {
                Some(path) => Some(
                    read_verifier_key(path).map_err(|fault| Failure::usage(fault.to_string()))?,
                ),
                None => None,
            };
            let check: Check = verify_signature;
            let witness = match &witness {
                Some(path) => Some(
                    read_witness(path, key.as_ref().map(|key| (key, check)))
                        .map_err(|fault| Failure::new(Exit::Unverified, fault.to_string()))?,
                ),
                None => None,
            };
            let file = File::open(&export)
                .map_err(|error| Failure::usage(format!("{}: {error}", export.display())))?;
            let spinner = Progress::count("verifying");
            let mut source = Lines(BufReader::new(file));
            let key = key.map(|key| (key, check));
            let verdict = transfer::verify(&mut source, witness, key, &|done| spinner.at(done))
                .await
                .map_err(|fault| Failure::new(Exit::Fault, fault.to_string()))?;
            spinner.done();
            let bad = verdict.finding.is_some() || verdict.signature == domain::log::Signature::Bad;
            let out = &mut std::io::stdout().lock();
            if output.output.is_for_people() {
                let style = Style::stdout();
                let text = verdict.to_string();
                writeln!(out, "{}", if bad { style.red(&text) } else { style.green(&text) })?;
            } else {
                let value = serde_json::to_value(&verdict)
                    .map_err(|error| Failure::new(Exit::Fault, error.to_string()))?;
                format::document(out, output.output, &value)?;
            }
            Ok(if bad { Exit::Unverified } else { Exit::Ok })
        }
    }
}
