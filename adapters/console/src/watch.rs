//! Costs that are watched, as people read them.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::Value;

use crate::{
    columns::plain,
    costs::{amount, close},
    format::{bare, heading},
    style::Style,
};

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// An amount, or nothing where there is none.
fn money(value: &Value) -> String {
    value.as_str().map_or_else(|| "–".to_owned(), amount)
}

fn percents(value: &Value) -> String {
    value.as_str().map_or_else(|| "–".to_owned(), |share| format!("{share} %"))
}

/// What a look at costs came to.
///
/// # Errors
/// What the output says.
pub fn detected(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let count = |name: &str| answer[name].as_array().map_or(0, Vec::len);
    writeln!(
        out,
        "{} new, {} changed, {} cleared, {} as before, by {} rules at position {}",
        style.bold(&count("reported").to_string()),
        count("updated"),
        count("cleared"),
        plain(&answer["unchanged"]),
        plain(&answer["rules"]),
        plain(&answer["position"]),
    )?;
    for (rule, why) in answer["refused"].as_object().into_iter().flatten() {
        writeln!(out, "{} rule {rule} tells nothing: {}", style.red("!"), plain(why))?;
    }
    Ok(())
}

/// What the threshold of an alert is about, in a few words.
fn threshold(alert: &Value) -> String {
    let threshold = &alert["threshold"];
    let of = match threshold["percent"].as_u64() {
        Some(percent) => format!("{percent} %"),
        None => plain(&threshold["amount"]),
    };
    format!("{} {of}", plain(&threshold["on"]))
}

/// What an evaluation of budgets came to.
///
/// # Errors
/// What the output says.
pub fn evaluated(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    for (name, word) in [("alerted", style.red("reached")), ("withdrawn", style.green("withdrawn"))]
    {
        for one in items(answer, name) {
            let (alert, standing) = (&one["alert"], &one["alert"]["standing"]);
            writeln!(
                out,
                "{word} {} in {}: spent {}, forecast {}, budget {}",
                threshold(alert),
                plain(&standing["period"]),
                money(&standing["actual"]),
                money(&standing["forecast"]),
                plain(&one["budget"]),
            )?;
        }
    }
    for (budget, why) in answer["refused"].as_object().into_iter().flatten() {
        writeln!(out, "{} budget {budget} is not evaluated: {}", style.red("!"), plain(why))?;
    }
    Ok(())
}

/// Where budgets stand, and, when all are wanted, the periods before.
///
/// # Errors
/// What the output says.
pub fn budgets(out: &mut dyn Write, answer: &Value, all: bool, style: Style) -> io::Result<()> {
    let mut table: Table = bare(style);
    let headings =
        ["budget", "period", "spent", "share", "forecast", "of", "currency", "state", "alerts"];
    table.set_header(headings.map(heading));
    let mut rows = 0;
    for budget in items(answer, "items") {
        let before = if all { items(budget, "before") } else { &[] };
        for standing in [&budget["now"]].into_iter().chain(before).filter(|one| one.is_object()) {
            let colour = plain(&standing["colour"]);
            let state = match colour.as_str() {
                "green" => style.green(&colour),
                "orange" => style.yellow(&colour),
                _ => style.red(&colour),
            };
            let alerts: Vec<String> = items(standing, "alerts").iter().map(threshold).collect();
            table.add_row(vec![
                Cell::new(plain(&budget["name"])),
                Cell::new(plain(&standing["period"])),
                right(money(&standing["actual"])),
                right(percents(&standing["share"])),
                right(money(&standing["forecast"])),
                right(money(&budget["amount"])),
                Cell::new(plain(&budget["currency"])),
                Cell::new(state),
                Cell::new(alerts.join(", ")),
            ]);
            rows += 1;
        }
    }
    if rows == 0 {
        return writeln!(out, "no budget has a period with bills");
    }
    close(&mut table);
    writeln!(out, "{table}\nat position {}", plain(&answer["position"]))
}

/// Numbers by which costs are judged, each with its formula.
///
/// # Errors
/// What the output says.
pub fn kpis(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let mut table = bare(style);
    table.set_header(["number", "value", "currency", "formula"].map(heading));
    for kpi in items(answer, "items") {
        let value = match (kpi["value"].as_str(), kpi["unit"].as_str()) {
            (Some(value), Some("percent")) => format!("{value} %"),
            (Some(value), _) => value.to_owned(),
            (None, _) => "–".to_owned(),
        };
        let formula = match kpi["reason"].as_str() {
            Some(reason) => format!("{reason} ({})", plain(&kpi["formula"])),
            None => plain(&kpi["formula"]),
        };
        table.add_row(vec![
            Cell::new(plain(&kpi["name"])),
            right(value),
            Cell::new(plain(&kpi["currency"])),
            Cell::new(formula),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}\nat position {}", plain(&answer["position"]))
}

/// A hint's money, one text for each currency: amount, currency, and who says so.
fn monthly(hint: &Value) -> Vec<[String; 3]> {
    let one = |one: &Value| {
        let by = format!("{} {}", plain(&one["by"]), plain(&one["month"]));
        [plain(&one["amount"]), plain(&one["currency"]), by]
    };
    items(hint, "monthly").iter().map(one).collect()
}

/// Why a hint is one, and what is suggested.
fn why(hint: &Value) -> String {
    let why = plain(&hint["evidence"]["threshold"]);
    match hint["suggestion"]["shape"].as_str() {
        Some(shape) => format!("{shape} is enough: {why}"),
        None => why,
    }
}

/// Where money can be saved.
///
/// # Errors
/// What the output says.
pub fn hints(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let hints = items(answer, "items");
    if hints.is_empty() {
        return writeln!(out, "no hint at position {}", plain(&answer["position"]));
    }
    let mut table = bare(style);
    table.set_header(["hint", "resource", "name", "a month", "", "by", "why"].map(heading));
    for hint in hints {
        let monthly = monthly(hint);
        let column = |at: usize| {
            let texts = monthly.iter().map(|one| match at {
                0 => amount(&one[0]),
                at => one[at].clone(),
            });
            texts.collect::<Vec<_>>().join("\n")
        };
        table.add_row(vec![
            Cell::new(plain(&hint["code"])),
            Cell::new(plain(&hint["resource"])),
            Cell::new(plain(&hint["name"])),
            right(if monthly.is_empty() { "–".to_owned() } else { column(0) }),
            Cell::new(column(1)),
            Cell::new(column(2)),
            Cell::new(why(hint)),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")?;
    for (code, sum) in answer["sums"].as_object().into_iter().flatten() {
        let sums = sum["monthly"].as_object().into_iter().flatten();
        let sums: Vec<String> =
            sums.map(|(currency, sum)| format!("{} {currency}", money(sum))).collect();
        let sums = if sums.is_empty() { "–".to_owned() } else { sums.join(", ") };
        writeln!(out, "{code}: {} hints, {sums} a month", plain(&sum["hints"]))?;
    }
    writeln!(out, "at position {}", plain(&answer["position"]))
}

/// The same as comma-separated values: one row for each hint and currency.
///
/// # Errors
/// What the output says.
pub fn hints_csv(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record([
        "code", "kind", "id", "resource", "name", "project", "amount", "currency", "by", "why",
        "advice",
    ])?;
    for hint in items(answer, "items") {
        let mut monthly = monthly(hint);
        if monthly.is_empty() {
            monthly.push(Default::default());
        }
        for [amount, currency, by] in monthly {
            let text = |name: &str| plain(&hint[name]);
            writer.write_record([
                text("code"),
                text("kind"),
                text("id"),
                text("resource"),
                text("name"),
                text("project"),
                amount,
                currency,
                by,
                why(hint),
                text("advice"),
            ])?;
        }
    }
    writer.flush()
}

/// What a run of a report gave.
///
/// # Errors
/// What the output says.
pub fn ran(out: &mut dyn Write, run: &Value, style: Style) -> io::Result<()> {
    writeln!(
        out,
        "{}  {} rows, {} bytes of {}, as of position {}",
        style.bold(&plain(&run["digest"])),
        plain(&run["rows"]),
        plain(&run["bytes"]),
        plain(&run["format"]),
        plain(&run["position"]),
    )
}
