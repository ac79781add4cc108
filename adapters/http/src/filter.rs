//! The grammar of `filter` and `order_by`: a subset of AIP-160 and AIP-132.
//!
//! ```text
//! filter     = condition { "AND" condition }
//! condition  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//!            | field [ "NOT" ] "IN" "(" value { "," value } ")"
//! field      = column | "tags." name | "state." path        names other than [A-Za-z0-9_-] quoted
//! value      = "text" | word | null | true | false          text escapes as in JSON: \" \\ \n …
//! order_by   = column [ "asc" | "desc" ] [ "," column [ "asc" | "desc" ] ]
//! ```
//!
//! `name = "web*"` means *begins with* (`\*` is a star), `:` means *contains*, letter case aside.
//! What a row has nothing of differs from every value; `= null` finds it. Columns named `…_at` are
//! compared with times (RFC 3339). There is no `OR`: `IN` does what most need it for.

use ::commands::ports::{Cell, Filter, Op, Order};
use chrono::DateTime;
use projections::view::{Column, ColumnType};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Most conditions in a filter, and most values in one of them: what one query may cost.
const CONDITIONS_MAX: usize = 20;
const VALUES_MAX: usize = 200;
/// Most columns that a list is sorted by; the port's own bound.
const ORDERS_MAX: usize = 2;

/// Reads a filter for rows with these columns; the error names the place and what is wrong there.
pub fn filters(text: &str, columns: &[Column]) -> Result<Vec<Filter>, String> {
    filters_of(text, columns, &["tags", "state"])
}

/// The same where other words have a path behind them than `tags` and `state`.
pub fn filters_of(
    text: &str,
    columns: &[Column],
    families: &[&str],
) -> Result<Vec<Filter>, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("a filter has at most {FILTER_BYTES_MAX} bytes"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, columns, families };
    let mut out = Vec::new();
    if parser.peek().is_none() {
        return Ok(out);
    }
    loop {
        out.push(parser.condition()?);
        match parser.next() {
            None => return Ok(out),
            Some(token) if token.is_word("and") => {}
            Some(token) if token.is_word("or") => {
                return Err(token.wrong("OR is not known here, use IN (…)"));
            }
            Some(token) => return Err(token.wrong("expected AND")),
        }
        if out.len() == CONDITIONS_MAX {
            return Err(format!("a filter has at most {CONDITIONS_MAX} conditions"));
        }
    }
}

/// Reads the columns to sort by.
pub fn orders(text: &str, columns: &[Column]) -> Result<Vec<Order>, String> {
    let mut out: Vec<Order> = Vec::new();
    for part in text.split(',') {
        let mut words = part.split_ascii_whitespace();
        let name = words.next().ok_or("a column is missing")?;
        let column = columns
            .iter()
            .find(|column| column.name == name)
            .ok_or_else(|| format!("there is no column {name:?}, only {}", names(columns)))?;
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(format!("{other:?} is neither asc nor desc")),
        };
        if words.next().is_some() || out.iter().any(|one| one.column == column.name) {
            return Err(format!("{name} is named twice, or followed by too much"));
        }
        out.push(Order { column: column.name.to_owned(), descending });
    }
    if out.len() > ORDERS_MAX {
        return Err(format!("a list is sorted by {ORDERS_MAX} columns at most"));
    }
    Ok(out)
}

fn names(columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

#[derive(Clone, Debug, PartialEq)]
enum Lexeme {
    Word(String),
    /// Text in quotes. The flag says that it ends in a star that is not escaped, which is left out.
    Text(String, bool),
    Sign(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    lexeme: Lexeme,
    /// Bytes before it.
    at: usize,
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(&self.lexeme, Lexeme::Word(own) if own.eq_ignore_ascii_case(word))
    }

    fn wrong(&self, what: &str) -> String {
        format!("at byte {}: {what}", self.at)
    }
}

const SIGNS: [&str; 12] = ["!=", "<=", ">=", "=", "<", ">", ":", "(", ")", ",", ".", "+"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let (lexeme, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first == '"' {
            quoted(rest).map_err(|what| format!("at byte {at}: {what}"))?
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (Lexeme::Word(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Lexeme::Sign(sign), sign.len())
        } else {
            return Err(format!("at byte {at}: {first:?} does not belong here"));
        };
        out.push(Token { lexeme, at });
        at += length;
    }
    Ok(out)
}

/// A text in quotes at the start of `rest`, and how many bytes it takes.
fn quoted(rest: &str) -> Result<(Lexeme, usize), &'static str> {
    let mut out = String::new();
    let mut star = false;
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                if star {
                    out.pop();
                }
                return if out.contains('\0') {
                    Err("a text has no NUL")
                } else {
                    Ok((Lexeme::Text(out, star), at + 1))
                };
            }
            '\\' => {
                star = false;
                out.push(match chars.next().map(|(_, c)| c) {
                    Some(c @ ('"' | '\\' | '/' | '*')) => c,
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    _ => return Err("an escape is one of \\\" \\\\ \\/ \\* \\n \\r \\t"),
                });
            }
            other => {
                star = other == '*';
                out.push(other);
            }
        }
    }
    Err("the text has no closing quote")
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    columns: &'a [Column],
    families: &'a [&'a str],
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn expect(&mut self, what: &str) -> Result<Token, String> {
        self.next().ok_or_else(|| format!("at the end: expected {what}"))
    }

    fn sign(&mut self, sign: &str) -> Result<(), String> {
        let token = self.expect(sign)?;
        if matches!(token.lexeme, Lexeme::Sign(own) if own == sign) {
            return Ok(());
        }
        Err(token.wrong(&format!("expected {sign}")))
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is =
            self.peek().is_some_and(|token| matches!(token.lexeme, Lexeme::Sign(s) if s == sign));
        self.at += usize::from(is);
        is
    }

    fn condition(&mut self) -> Result<Filter, String> {
        let (column, kind) = self.field()?;
        let token = self.expect("a comparison")?;
        let filter = |op, values| Ok(Filter { column: column.clone(), op, values });
        let sign = match &token.lexeme {
            Lexeme::Sign(sign) => *sign,
            Lexeme::Word(_) if token.is_word("in") => {
                return filter(Op::In, self.values(kind)?);
            }
            Lexeme::Word(_) if token.is_word("not") => {
                let token = self.expect("IN")?;
                if !token.is_word("in") {
                    return Err(token.wrong("expected IN after NOT"));
                }
                return filter(Op::NotIn, self.values(kind)?);
            }
            _ => return Err(token.wrong("expected a comparison")),
        };
        let value = self.expect("a value")?;
        if let ("=", ValueType::Text, Lexeme::Text(prefix, true)) = (sign, kind, &value.lexeme) {
            return filter(Op::Prefix, vec![Cell::Text(prefix.clone())]);
        }
        let cell = cell(&value, kind)?;
        let bounded = |by: i64| match (kind, &cell) {
            (ValueType::Integer | ValueType::Time, Cell::Integer(number)) => {
                Ok(vec![Cell::Integer(number.saturating_add(by))])
            }
            _ => Err(token.wrong("<= and >= compare numbers and times; use < or >")),
        };
        let one_side = |cell: Cell| match cell {
            Cell::Null | Cell::Boolean(_) => Err(value.wrong("has no order")),
            cell => Ok(vec![cell]),
        };
        match sign {
            "=" => filter(Op::In, vec![cell]),
            "!=" => filter(Op::NotIn, vec![cell]),
            "<" => filter(Op::Less, one_side(cell)?),
            ">" => filter(Op::Greater, one_side(cell)?),
            "<=" => filter(Op::Less, bounded(1)?),
            ">=" => filter(Op::Greater, bounded(-1)?),
            ":" if kind == ValueType::Text && cell != Cell::Null => {
                filter(Op::Contains, vec![cell])
            }
            ":" => Err(token.wrong(": looks into texts only")),
            _ => Err(token.wrong("expected a comparison")),
        }
    }

    /// A column, or a path into tags or state.
    fn field(&mut self) -> Result<(String, ValueType), String> {
        let token = self.expect("a column")?;
        let Lexeme::Word(first) = &token.lexeme else {
            return Err(token.wrong("expected a column"));
        };
        if !self.families.contains(&first.as_str()) || !self.takes(".") {
            let column = self.columns.iter().find(|column| column.name == first);
            let column = column.ok_or_else(|| {
                let known = names(self.columns);
                token.wrong(&format!("there is no column {first:?}, only {known}"))
            })?;
            return Ok((first.clone(), value_type(column)));
        }
        let mut path = first.clone();
        loop {
            let step = self.expect("a name")?;
            let name = match &step.lexeme {
                Lexeme::Word(name) | Lexeme::Text(name, false) if !name.is_empty() => name,
                _ => return Err(step.wrong("expected a name")),
            };
            path.push('.');
            path.push_str(name);
            if !self.takes(".") {
                break;
            }
        }
        if path.starts_with("state.") && crate::show::is_secret(&path) {
            return Err(token.wrong("secrets are not shown, nor compared"));
        }
        Ok((path, ValueType::Text))
    }

    fn values(&mut self, kind: ValueType) -> Result<Vec<Cell>, String> {
        self.sign("(")?;
        let mut out = Vec::new();
        loop {
            let token = self.expect("a value")?;
            out.push(cell(&token, kind)?);
            if out.len() > VALUES_MAX {
                return Err(format!("IN takes at most {VALUES_MAX} values"));
            }
            if self.takes(",") {
                continue;
            }
            self.sign(")")?;
            return Ok(out);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueType {
    Boolean,
    Integer,
    Text,
    /// Microseconds in the view.
    Time,
}

fn value_type(column: &Column) -> ValueType {
    match column.column_type {
        ColumnType::Boolean => ValueType::Boolean,
        ColumnType::Integer if column.name.ends_with("_at") => ValueType::Time,
        ColumnType::Integer => ValueType::Integer,
        ColumnType::Text => ValueType::Text,
    }
}

fn cell(token: &Token, kind: ValueType) -> Result<Cell, String> {
    let (text, star) = match &token.lexeme {
        Lexeme::Word(word) if word == "null" => return Ok(Cell::Null),
        Lexeme::Word(text) => (text, false),
        Lexeme::Text(text, star) => (text, *star),
        Lexeme::Sign(_) => return Err(token.wrong("expected a value")),
    };
    match kind {
        ValueType::Text if star => {
            Err(token.wrong("a star at the end goes with = only; write \\*"))
        }
        ValueType::Text => Ok(Cell::Text(text.clone())),
        ValueType::Boolean => match text.as_str() {
            "true" => Ok(Cell::Boolean(true)),
            "false" => Ok(Cell::Boolean(false)),
            _ => Err(token.wrong("expected true or false")),
        },
        ValueType::Integer => {
            text.parse().map(Cell::Integer).map_err(|_| token.wrong("expected a whole number"))
        }
        ValueType::Time => DateTime::parse_from_rfc3339(text)
            .map(|time| Cell::Integer(time.timestamp_micros()))
            .map_err(|_| token.wrong("expected a time as in RFC 3339, in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use projections::view::Indexing;

    use super::*;

    const fn column(name: &'static str, column_type: ColumnType) -> Column {
        Column { name, column_type, indexing: Indexing::None, summary: "" }
    }

    static COLUMNS: &[Column] = &[
        column("name", ColumnType::Text),
        column("gone", ColumnType::Boolean),
        column("revision", ColumnType::Integer),
        column("updated_at", ColumnType::Integer),
    ];

    fn text(value: &str) -> Cell {
        Cell::Text(value.to_owned())
    }

    #[track_caller]
    fn check(filter: &str, expected: &[(&str, Op, &[Cell])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(column, op, values)| Filter {
                column: (*column).to_owned(),
                op: *op,
                values: values.to_vec(),
            })
            .collect();
        assert_eq!(filters(filter, COLUMNS), Ok(expected), "{filter}");
    }

    #[test]
    fn conditions_read_as_the_grammar_says() {
        check("", &[]);
        check("name = web", &[("name", Op::In, &[text("web")])]);
        check("name=\"we b\"", &[("name", Op::In, &[text("we b")])]);
        check("name = \"web*\"", &[("name", Op::Prefix, &[text("web")])]);
        check("name = \"web\\*\"", &[("name", Op::In, &[text("web*")])]);
        check("name : \"eb\"", &[("name", Op::Contains, &[text("eb")])]);
        check("name != null", &[("name", Op::NotIn, &[Cell::Null])]);
        check("gone = true", &[("gone", Op::In, &[Cell::Boolean(true)])]);
        check("revision >= 3", &[("revision", Op::Greater, &[Cell::Integer(2)])]);
        check("revision < -3", &[("revision", Op::Less, &[Cell::Integer(-3)])]);
        check(
            "updated_at > \"2026-01-01T00:00:00Z\" AND tags.\"aws:x\" not in (a, \"b\")",
            &[
                ("updated_at", Op::Greater, &[Cell::Integer(1_767_225_600_000_000)]),
                ("tags.aws:x", Op::NotIn, &[text("a"), text("b")]),
            ],
        );
        check("state.a.b = 3", &[("state.a.b", Op::In, &[text("3")])]);
    }

    #[test]
    fn what_does_not_read_says_where_and_why() {
        for (filter, part) in [
            ("nome = x", "at byte 0: there is no column \"nome\", only name"),
            ("name", "at the end: expected a comparison"),
            ("name =", "at the end: expected a value"),
            ("name = x OR name = y", "use IN"),
            ("name = x name = y", "at byte 9: expected AND"),
            ("name = \"x", "no closing quote"),
            ("gone = maybe", "true or false"),
            ("revision = 1e9", "whole number"),
            ("revision = 99999999999999999999", "whole number"),
            ("updated_at > yesterday", "RFC 3339"),
            ("name <= x", "compare numbers"),
            ("name > null", "no order"),
            ("revision : 3", "texts only"),
            ("name IN ()", "expected a value"),
            ("name IN (a", "expected )"),
            ("name = x AND", "at the end: expected a column"),
            ("state.credential = x", "secrets"),
            ("name = ä", "does not belong"),
        ] {
            let fault = filters(filter, COLUMNS).unwrap_err();
            assert!(fault.contains(part), "{filter}: {fault}");
        }
    }

    #[test]
    fn sort_columns_are_known_ones_and_two_at_most() {
        let order = |column: &str, descending| Order { column: column.to_owned(), descending };
        assert_eq!(
            orders("name desc,updated_at", COLUMNS),
            Ok(vec![order("name", true), order("updated_at", false)])
        );
        for text in ["", "nome", "name down", "name,name", "name,gone,revision", "name desc x"] {
            assert!(orders(text, COLUMNS).is_err(), "{text}");
        }
    }
}
