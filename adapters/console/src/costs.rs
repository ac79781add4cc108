//! Costs as tables: sums by group, where a number comes from, and what came of a bill's file.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::Value;

use crate::{
    columns::plain,
    format::{bare, heading},
    style::Style,
};

/// Digits behind the point that people are shown; `-o json` has all of them.
const SHOWN: usize = 2;

/// A decimal with two digits behind the point, rounded half to even, and never said to be less
/// than it is: what is not zero and would be shown as zero is shown with the digits it has.
pub fn amount(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if part.len() <= SHOWN {
        return format!("{sign}{whole}.{part:0<SHOWN$}");
    }
    let (kept, lost) = part.split_at(SHOWN);
    let half = format!("5{}", "0".repeat(lost.len() - 1));
    let odd = kept.bytes().last().is_some_and(|digit| digit % 2 == 1);
    let up = lost > half.as_str() || (lost == half && odd);
    let mut number: Vec<u8> = format!("{whole}{kept}").into_bytes();
    if up {
        let mut carry = true;
        for digit in number.iter_mut().rev() {
            carry = *digit == b'9';
            *digit = if carry { b'0' } else { *digit + 1 };
            if !carry {
                break;
            }
        }
        if carry {
            number.insert(0, b'1');
        }
    }
    if number.iter().all(|digit| *digit == b'0') {
        return text.to_owned();
    }
    let number = String::from_utf8_lossy(&number).into_owned();
    let (whole, part) = number.split_at(number.len() - SHOWN);
    format!("{sign}{whole}.{part}")
}

/// Columns side by side, nothing before the first and behind the last.
pub(crate) fn close(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if place == last { 0 } else { 2 }));
    }
}

pub(crate) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// Sums by group, and what they come to.
///
/// # Errors
/// What the output says.
pub fn table(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let groups: Vec<&str> = items(answer, "group_by").iter().filter_map(Value::as_str).collect();
    let mut table = bare(style);
    // Every sum is in one currency, and says which.
    let own: Vec<&str> = groups.iter().copied().filter(|name| *name != "currency").collect();
    let rows = items(answer, "items");
    let compared = answer["compared_with"].is_object();
    let more: &[&str] = if compared { &["before", "difference", "growth"] } else { &[] };
    let headings = own.iter().chain(&["amount"]).chain(more).chain(&["currency", "lines"]);
    table.set_header(headings.map(|name| heading(name)));
    for row in rows {
        let mut cells: Vec<Cell> = own
            .iter()
            .map(|name| match plain(&row["group"][*name]) {
                value if value.is_empty() => Cell::new("–"),
                value => Cell::new(value),
            })
            .collect();
        cells.push(right(amount(text(row, "amount"))));
        if compared {
            cells.push(right(amount(text(row, "other"))));
            cells.push(right(amount(text(row, "difference"))));
            cells.push(right(match row["growth"].as_str() {
                Some(growth) => format!("{growth} %"),
                None => "–".to_owned(),
            }));
        }
        cells.push(Cell::new(text(row, "currency")));
        cells.push(right(plain(&row["lines"])));
        table.add_row(cells);
    }
    close(&mut table);
    if rows.is_empty() {
        writeln!(out, "no line is asked for")?;
    } else {
        writeln!(out, "{table}")?;
    }
    let more = answer["groups"].as_u64().unwrap_or_default().saturating_sub(rows.len() as u64);
    if more > 0 {
        writeln!(out, "… and {more} more groups, all of them in the total")?;
    }
    for (currency, total) in answer["totals"].as_object().into_iter().flatten() {
        let total = format!("{} {currency}", amount(text(total, "amount")));
        writeln!(out, "\n{} {}", style.bold("total"), style.bold(&total))?;
    }
    writeln!(
        out,
        "{}{} of {} bills at position {}",
        text(answer, "basis"),
        if answer["repriced"] == true { ", re-priced," } else { "" },
        plain(&answer["bills"]),
        plain(&answer["position"])
    )
}

/// What applies to the lines of a bill, and what it makes of them.
fn term(out: &mut dyn Write, term: &Value) -> io::Result<()> {
    let (rate, repricing) = (&term["exchange_rate"], &term["repricing"]);
    let currency = if rate.is_object() { text(rate, "to") } else { text(term, "currency") };
    writeln!(
        out,
        "\n{} {} → {} {currency}  {}, {} lines, bill {}",
        plain(&term["before"]),
        text(term, "currency"),
        plain(&term["after"]),
        text(term, "month"),
        plain(&term["lines"]),
        text(term, "bill"),
    )?;
    if repricing.is_object() {
        let price = match repricing["price"]["discount-percent"].as_str() {
            Some(percent) => format!("{percent} % less"),
            None => format!("times {}", text(&repricing["price"], "factor")),
        };
        let (name, from) = (text(repricing, "name"), text(repricing, "from"));
        let (id, revision) = (text(repricing, "id"), plain(&repricing["revision"]));
        writeln!(out, "  {price} by {name} from {from}, re-pricing {id}, revision {revision}")?;
    }
    if rate.is_object() {
        let known = match rate["known_at_closing"].as_bool() {
            None => "as known now",
            Some(true) => "as known when the bill was closed",
            Some(false) => "as known now, for none was when the bill was closed",
        };
        let source = match text(rate, "source") {
            "" => String::new(),
            source => format!(", {source}"),
        };
        writeln!(
            out,
            "  times {} of {}{source}, {known}, exchange rate {}, revision {}",
            text(rate, "rate"),
            text(rate, "day"),
            text(rate, "id"),
            plain(&rate["revision"]),
        )?;
    }
    Ok(())
}

/// Where a number comes from.
///
/// # Errors
/// What the output says.
pub fn explained(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    for (currency, total) in answer["totals"].as_object().into_iter().flatten() {
        let total = format!("{} {currency}", plain(total));
        writeln!(out, "{}  {}", style.bold(&total), text(answer, "formula"))?;
    }
    for one in items(answer, "terms") {
        term(out, one)?;
    }
    for (currency, flow) in answer["flows"].as_object().into_iter().flatten() {
        writeln!(
            out,
            "  {} of its own, {} received, {} given, {currency}",
            text(flow, "before"),
            text(flow, "received"),
            text(flow, "given")
        )?;
    }
    for moved in items(answer, "movements") {
        writeln!(
            out,
            "  {} {} {}: {} → {}, {} % of {}, {} {}",
            text(moved, "amount"),
            text(moved, "currency"),
            text(moved, "rule"),
            text(moved, "source"),
            text(moved, "target"),
            text(moved, "percent"),
            text(moved, "of"),
            text(moved, "month"),
            text(moved, "charge_category"),
        )?;
    }
    for part in items(answer, "parts") {
        let sums = part["sums"].as_object().into_iter().flatten();
        let sums: Vec<String> =
            sums.map(|(currency, sum)| format!("{} {currency}", plain(sum))).collect();
        let event = &part["event"];
        writeln!(
            out,
            "\n{} in {} lines of {}",
            sums.join(", "),
            plain(&part["lines"]),
            match text(part, "source") {
                "" => text(part, "source_digest"),
                name => name,
            }
        )?;
        writeln!(
            out,
            "  {} at position {}, {} by {}, bill {}{}",
            text(event, "type"),
            plain(&event["position"]),
            text(event, "recorded_at"),
            text(part, "imported_by"),
            text(part, "bill"),
            match part["version"].as_u64() {
                None | Some(0) => String::new(),
                Some(version) => format!(", version {version}"),
            }
        )?;
        writeln!(out, "  segment {}", text(part, "segment"))?;
    }
    let lines = items(answer, "lines");
    if lines.is_empty() {
        return writeln!(out, "no line is in it");
    }
    let mut table = bare(style);
    let placed = lines.iter().any(|line| line["placed"].is_object());
    let mut headings = vec!["line", "amount", "currency", "from", "service", "what"];
    headings.extend(if placed { &["centre", "placed by"][..] } else { &[] });
    table.set_header(headings.into_iter().map(heading));
    for line in lines {
        let resource = text(line, "resource");
        let what = if resource.is_empty() { text(line, "description") } else { resource };
        let mut row = vec![
            right(plain(&line["line"])),
            right(text(line, "amount")),
            Cell::new(text(line, "currency")),
            Cell::new(text(line, "charge_from")),
            Cell::new(text(line, "service")),
            Cell::new(what),
        ];
        if placed {
            let by = match text(&line["placed"], "rule") {
                "" => text(&line["placed"], "by").to_owned(),
                rule => format!("rule {rule}"),
            };
            row.extend([Cell::new(text(&line["placed"], "centre")), Cell::new(by)]);
        }
        table.add_row(row);
    }
    close(&mut table);
    writeln!(out, "\n{}\n{table}", style.bold("largest lines"))
}

/// Costs by centre before and after the rules, and how they came there.
///
/// # Errors
/// What the output says.
pub fn allocated(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let draft = answer["draft"] == true;
    let mut table = bare(style);
    let more: &[&str] = if draft { &["published", "difference"] } else { &[] };
    let headings = ["centre", "before", "shared", "after"].iter().chain(more).chain(&["currency"]);
    table.set_header(headings.map(|name| heading(name)));
    for item in items(answer, "items") {
        let mut cells = vec![Cell::new(text(item, "centre"))];
        let columns = ["before", "shared", "after"].iter().chain(more);
        cells.extend(columns.map(|name| right(amount(text(item, name)))));
        cells.push(Cell::new(text(item, "currency")));
        table.add_row(cells);
    }
    close(&mut table);
    writeln!(out, "{table}")?;
    for placed in items(answer, "placed") {
        let by = match text(placed, "rule") {
            "" => text(placed, "by").to_owned(),
            rule => format!("rule {rule}"),
        };
        writeln!(out, "  placed by {by}: {} lines", plain(&placed["lines"]))?;
    }
    for moved in items(answer, "movements") {
        writeln!(
            out,
            "  {}: {} {} {} → {}",
            text(moved, "rule"),
            amount(text(moved, "amount")),
            text(moved, "currency"),
            text(moved, "source"),
            text(moved, "target"),
        )?;
    }
    writeln!(
        out,
        "{} costs by {} at position {}",
        text(answer, "basis"),
        match answer["rule_set"]["revision"].as_u64() {
            _ if draft => "the draft".to_owned(),
            revision => format!("revision {} of the rules", revision.unwrap_or_default()),
        },
        plain(&answer["position"])
    )?;
    for project in items(answer, "created") {
        writeln!(out, "created project {}", plain(project))?;
    }
    Ok(())
}

/// What a run has made of bills.
///
/// # Errors
/// What the output says.
pub fn renewed(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let planned = answer["validate_only"] == true;
    let what = |bill: &Value| match (bill["changed"] == true, planned) {
        (false, _) => "as it was",
        (true, true) => "would change",
        (true, false) => "changed",
    };
    for bill in items(answer, "bills") {
        let sums = bill["sums"].as_object().into_iter().flatten();
        let sums: Vec<String> = sums
            .map(|(currency, sums)| {
                let (billed, effective) = (text(sums, "billed"), text(sums, "effective"));
                format!("billed {}, effective {} {currency}", amount(billed), amount(effective))
            })
            .collect();
        writeln!(
            out,
            "{} {}  {} lines{}{}  ({}, {})",
            style.bold(text(bill, "month")),
            text(bill, "billing_account"),
            plain(&bill["lines"]),
            if sums.is_empty() { "" } else { ", " },
            sums.join("; "),
            text(bill, "status"),
            what(bill),
        )?;
    }
    if items(answer, "bills").is_empty() {
        writeln!(out, "there are no lines to make")?;
    }
    for finding in items(answer, "findings") {
        let (code, name) = (text(finding, "code"), text(finding, "name"));
        writeln!(out, "  finding {code}: {name}: {}", text(finding, "detail"))?;
    }
    for (meter, count) in answer["unrated"].as_object().into_iter().flatten() {
        writeln!(out, "  no rate for {meter}: {} uses are not priced", plain(count))?;
    }
    Ok(())
}

/// What came of a file of servers' use.
///
/// # Errors
/// What the output says.
pub fn measured(out: &mut dyn Write, file: &str, answer: &Value, style: Style) -> io::Result<()> {
    let (days, left_out) = (&answer["days"], &answer["left_out"]);
    let would = if answer["validate_only"] == true { "would be " } else { "" };
    writeln!(
        out,
        "{}  {} servers: {} days {would}measured, {} {would}measured anew, {} as they were",
        style.bold(file),
        plain(&answer["servers"]),
        plain(&days["measured"]),
        plain(&days["remeasured"]),
        plain(&days["unchanged"]),
    )?;
    for (count, what) in [
        (&days["settled"], "days are too long ago"),
        (&left_out["running_days"], "days are not over"),
        (&left_out["gaps"], "times between samples are too long"),
        (&left_out["resets"], "times have a counter that began anew"),
        (&left_out["without_vcpus"], "servers have nobody who counts their processors"),
    ] {
        if *count != 0 {
            writeln!(out, "  left out: {} {what}", plain(count))?;
        }
    }
    for (sort, what) in [("unmatched", "no server is"), ("ambiguous", "several servers are")] {
        let series = &left_out[format!("{sort}_series")];
        if *series == 0 {
            continue;
        }
        let names = left_out[sort].as_object().into_iter().flatten();
        let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
        let names = names.join(", ");
        writeln!(out, "  finding {sort}: {what} called {names}: {} series", plain(series))?;
    }
    Ok(())
}

/// Bills beside what their issuers say.
///
/// # Errors
/// What the output says.
pub fn reconciled(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    if items(answer, "items").is_empty() {
        return writeln!(out, "no bills of these months");
    }
    for bill in items(answer, "items") {
        writeln!(
            out,
            "{} {}  ({})",
            style.bold(text(bill, "month")),
            text(bill, "billing_account"),
            text(bill, "status"),
        )?;
        for one in items(bill, "disagreements") {
            let (mark, issuer) = (style.red("!"), text(one, "issuer"));
            writeln!(out, "  {mark} {issuer} says the month is {}", text(one, "says"))?;
        }
        let Some(invoices) = bill["invoices"].as_array() else {
            writeln!(out, "  its lines do not say their invoices")?;
            continue;
        };
        for one in invoices {
            let said = |name: &str| match one[name].as_str() {
                Some(sum) => format!("{} {}", amount(sum), text(one, "currency")),
                None => "–".to_owned(),
            };
            let number = match text(one, "invoice") {
                "" => "without an invoice",
                number => number,
            };
            let mark = if one["differs"] == true { style.red("! ") } else { "  ".to_owned() };
            let (issuer, lines, stated) = (text(one, "issuer"), said("lines"), said("stated"));
            writeln!(out, "  {mark}{number}  {issuer}  lines {lines}, stated {stated}")?;
        }
    }
    Ok(())
}

/// What a pull of bills came to.
///
/// # Errors
/// What the output says.
pub fn pulled(out: &mut dyn Write, last: &Value, style: Style) -> io::Result<()> {
    if let Some(code) = last["failed"].as_str() {
        let why = text(last, "reason");
        return writeln!(out, "{} the pull came to nothing ({code}): {why}", style.red("!"));
    }
    let sum = &last["sum"];
    let count = |name: &str| plain(&sum[name]);
    writeln!(
        out,
        "{} files, taken in {}, unchanged {}, refused {}",
        count("listed"),
        count("taken"),
        count("unchanged"),
        items(sum, "refused").len(),
    )?;
    for one in items(sum, "refused") {
        let (what, code, why) = (text(one, "delivery"), text(one, "code"), text(one, "reason"));
        writeln!(out, "  {} {what}  {code}: {why}", style.red("!"))?;
    }
    Ok(())
}

/// What came of a bill's file.
///
/// # Errors
/// What the output says.
pub fn imported(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    for project in items(answer, "created_projects") {
        writeln!(out, "created project {}", plain(project))?;
    }
    for bill in items(answer, "bills") {
        let sums = bill["sums"].as_object().into_iter().flatten();
        let sums: Vec<String> = sums
            .map(|(currency, sums)| format!("{} {currency}", amount(text(sums, "billed"))))
            .collect();
        writeln!(
            out,
            "{} {}  {} lines, billed {}  ({}{})",
            style.bold(text(bill, "month")),
            text(bill, "billing_account"),
            plain(&bill["lines"]),
            sums.join(", "),
            text(bill, "status"),
            if bill["repeated"] == true { ", these lines were there already" } else { "" },
        )?;
    }
    for bill in items(answer, "bills") {
        let lines = &bill["repeats"]["lines"];
        if lines.as_u64().is_some_and(|lines| lines > 0) {
            let (mark, first) = (style.red("!"), plain(&bill["repeats"]["shown"][0]));
            let lines = plain(lines);
            writeln!(out, "{mark} {lines} lines were there already, the first is line {first}")?;
        }
    }
    for one in items(answer, "statements") {
        let was = if one["repeated"] == true { ", which was stated already" } else { "" };
        let (set, kind) = (text(answer, "data_set"), text(one, "kind"));
        writeln!(out, "{set}: {kind} {}{was}", text(one, "id"))?;
    }
    for (code, finding) in answer["findings"].as_object().into_iter().flatten() {
        writeln!(
            out,
            "  finding {code}: {} lines, the first is {}",
            plain(&finding["lines"]),
            plain(&finding["first_line"])
        )?;
    }
    let quarantined = &answer["quarantined"];
    if quarantined["lines"].as_u64().unwrap_or_default() == 0 {
        return Ok(());
    }
    let missing = quarantined["missing"].as_object().into_iter().flatten();
    let missing: Vec<String> =
        missing.map(|(currency, sum)| format!("{} {currency}", plain(sum))).collect();
    writeln!(
        out,
        "{} {} lines were not booked{}",
        style.red("!"),
        plain(&quarantined["lines"]),
        if missing.is_empty() {
            String::new()
        } else {
            format!(", {} are missing", missing.join(", "))
        }
    )?;
    for one in items(quarantined, "shown") {
        let column = text(one, "column");
        let place = if column.is_empty() { String::new() } else { format!(", {column}") };
        writeln!(
            out,
            "  line {}{place}: {} {:?}",
            plain(&one["line"]),
            text(one, "reason"),
            text(one, "value"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::amount;

    #[test]
    fn amounts_are_shown_with_two_digits_unless_that_would_say_nothing() {
        let cases = [
            ("1", "1.00"),
            ("-1.5", "-1.50"),
            ("0.125", "0.12"),
            ("0.135", "0.14"),
            ("0.1250000001", "0.13"),
            ("9.999", "10.00"),
            ("-99.995", "-100.00"),
            ("0.000000800000", "0.000000800000"),
            ("0", "0.00"),
        ];
        for (given, shown) in cases {
            assert_eq!(amount(given), shown, "{given}");
        }
    }
}
