//! Series out of files as Prometheus writes them: the text exposition with times, or answers of
//! range queries in JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::finops::ratio::{Ratio, parse};
use serde::Deserialize;

/// Most samples of one file.
const SAMPLES_MAX: usize = 5_000_000;

/// One series: a name, its labels, and what it was when, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Its labels but for the name, which is `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Moments and values, each moment once.
    pub samples: Vec<(DateTime<Utc>, Ratio)>,
}

impl Series {
    /// What it measures.
    pub fn name(&self) -> &str {
        self.label("__name__")
    }

    /// A label; empty when it has none of this name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    status: String,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    values: Vec<(serde_json::Number, String)>,
}

/// Reads a file: one or several answers in JSON after one another, or text.
///
/// # Errors
/// In words, with the line or the series, when it does not read.
pub fn read(file: &str) -> Result<Vec<Series>, String> {
    let mut series: BTreeMap<BTreeMap<String, String>, BTreeMap<DateTime<Utc>, Ratio>> =
        BTreeMap::new();
    let mut count = 0;
    let mut add = |labels: &BTreeMap<String, String>, at, value: &str| {
        count += 1;
        if count > SAMPLES_MAX {
            return Err(format!("the file has more than {SAMPLES_MAX} samples"));
        }
        // What a series does not know at a time (`NaN`) says nothing of that time.
        if matches!(value.trim_start_matches(['+', '-']), "NaN" | "Inf") {
            return Ok(());
        }
        let value = parse(value).ok_or_else(|| format!("{value:?} is not a number"))?;
        match series.get_mut(labels) {
            Some(samples) => samples.insert(at, value),
            None => series.entry(labels.clone()).or_default().insert(at, value),
        };
        Ok(())
    };
    if file.trim_start().starts_with('{') {
        for reply in serde_json::Deserializer::from_str(file).into_iter::<Reply>() {
            let reply =
                reply.map_err(|error| format!("not an answer of a range query: {error}"))?;
            if reply.status != "success" || reply.data.result_type != "matrix" {
                return Err("only answers of range queries that succeeded say from when to when \
                            something was: resultType is not matrix"
                    .to_owned());
            }
            for Found { metric, values } in reply.data.result {
                for (at, value) in values {
                    let at = moment(&at.to_string(), 1_000_000)?;
                    add(&metric, at, &value).map_err(|why| format!("{metric:?}: {why}"))?;
                }
            }
        }
    } else {
        for (number, line) in file.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let no = |why: String| format!("line {}: {why}", number + 1);
            let (labels, rest) = sample(line).ok_or_else(|| no("is not a sample".to_owned()))?;
            let mut rest = rest.split_ascii_whitespace();
            let (Some(value), Some(at)) = (rest.next(), rest.next()) else {
                return Err(no("has no time: export it with one".to_owned()));
            };
            let at = moment(at, 1_000).map_err(no)?;
            add(&labels, at, value).map_err(no)?;
        }
    }
    let sorted = |(labels, samples): (_, BTreeMap<_, _>)| Series {
        labels,
        samples: samples.into_iter().collect(),
    };
    Ok(series.into_iter().map(sorted).collect())
}

/// A time as a decimal of this many microseconds each.
fn moment(text: &str, micros: i128) -> Result<DateTime<Utc>, String> {
    let no = || format!("{text:?} is not a time");
    let exact = parse(text).ok_or_else(no)? * domain::finops::ratio::whole(micros);
    let micros = domain::finops::ratio::round_half_even(&exact).ok_or_else(no)?;
    let micros = i64::try_from(micros).map_err(|_| no())?;
    DateTime::from_timestamp_micros(micros)
        .filter(|at| (1970..9999).contains(&chrono::Datelike::year(at)))
        .ok_or_else(no)
}

/// A line of text without its value and time: name and labels; and the rest.
fn sample(line: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let ends = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let mut labels: BTreeMap<_, _> = [("__name__".to_owned(), line[..ends].to_owned())].into();
    let rest = line[ends..].trim_start();
    let Some(mut rest) = rest.strip_prefix('{') else { return Some((labels, rest)) };
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let mut text = String::new();
        let mut letters = after.trim_start().strip_prefix('"')?.char_indices();
        let quoted = after.trim_start().strip_prefix('"')?;
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => match letters.next()? {
                    (_, 'n') => text.push('\n'),
                    (_, other) => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), text);
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_answers_of_range_queries_read_to_the_same() {
        let text = "# HELP m of it\n# TYPE m gauge\n\
            m{pod=\"a\\\"b\",namespace=\"x\"} 1.5 1700000000000\n\
            m{namespace=\"x\",pod=\"a\\\"b\"} 2e+00 1700000060000\nup 1 1700000000000\n";
        let json = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"m","namespace":"x","pod":"a\"b"},
             "values":[[1700000000,"1.5"],[1700000060.000,"2"],[1700000120,"NaN"]]},
            {"metric":{"__name__":"up"},"values":[[1700000000,"1"]]}]}}"#;
        let series = read(text).unwrap();
        assert_eq!(series, read(json).unwrap());
        assert_eq!((series[0].name(), series[0].label("pod")), ("m", "a\"b"));
        assert_eq!(series[0].samples.len(), 2);
    }

    #[test]
    fn what_does_not_say_from_when_to_when_is_refused() {
        for (file, why) in [
            ("up 1\n", "line 1: has no time"),
            ("up{a=\"b} 1 1\n", "line 1: is not a sample"),
            ("up one 1700000000000", "not a number"),
            (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#, "matrix"),
            (r#"{"status":"#, "not an answer"),
        ] {
            let said = read(file).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
