//! A command's body, as people give it: a file of YAML or JSON, and single fields.

use std::{io::Read, path::Path};

use serde_json::{Map, Value};

/// Most bytes of a body; the server takes no more.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum InputFault {
    /// The file cannot be read.
    #[error("{name}: {source}")]
    File {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it has to be.
    #[error("{name}: {reason}")]
    Wrong {
        /// The file, or the field.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a file of YAML or JSON (`-` is standard input) as one object.
///
/// # Errors
/// Any [`InputFault`], naming the file and the line.
pub fn file(path: &Path) -> Result<Map<String, Value>, InputFault> {
    let standard = path == Path::new("-");
    let name = if standard { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |source| InputFault::File { name: name.clone(), source };
    let mut text = String::new();
    let read = if standard {
        std::io::stdin().take(BODY_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(BODY_BYTES_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(failed)?;
    let wrong = |reason: String| InputFault::Wrong { name: name.clone(), reason };
    if text.len() as u64 > BODY_BYTES_MAX {
        return Err(wrong("has more than 1 MiB".to_owned()));
    }
    match serde_norway::from_str(&text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(wrong("is not one object of fields".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Sets one field: `a.b=value`, the value as in YAML (`3`, `true`, `null`, `[a, b]`, `text`).
///
/// # Errors
/// [`InputFault::Wrong`] naming the field.
pub fn set(body: &mut Map<String, Value>, assignment: &str) -> Result<(), InputFault> {
    let wrong = |reason: &str| InputFault::Wrong {
        name: format!("--set {assignment}"),
        reason: reason.to_owned(),
    };
    let (path, text) = assignment.split_once('=').ok_or_else(|| wrong("needs FIELD=VALUE"))?;
    let mut steps: Vec<&str> = path.split('.').collect();
    if steps.iter().any(|step| step.is_empty()) {
        return Err(wrong("the field's name is empty"));
    }
    // What does not read as YAML in one line is text as it stands: `name=a: b`.
    let value = match serde_norway::from_str(text) {
        Ok(Value::Object(_)) if !text.trim_start().starts_with('{') => None,
        Ok(Value::Array(_)) if !text.trim_start().starts_with('[') => None,
        Ok(Value::Null) if text.is_empty() => None,
        Ok(value) => Some(value),
        Err(_) => None,
    };
    let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
    let last = steps.pop().unwrap_or_default();
    let mut place = body;
    for step in steps {
        let next = place.entry(step).or_insert_with(|| Value::Object(Map::new()));
        place =
            next.as_object_mut().ok_or_else(|| wrong("leads into a field that is no object"))?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_nest_and_values_read_as_yaml() {
        let mut body = Map::new();
        for one in ["a.b=3", "a.c=true", "d=text: with a colon", "e=null", "f=", "g=[x, 1]"] {
            set(&mut body, one).unwrap();
        }
        let expected = json!({"a": {"b": 3, "c": true}, "d": "text: with a colon", "e": null,
                              "f": "", "g": ["x", 1]});
        assert_eq!(Value::Object(body), expected);
    }

    #[test]
    fn a_field_that_cannot_be_is_named() {
        let mut body = Map::new();
        set(&mut body, "a=1").unwrap();
        for (wrong, says) in [("b", "FIELD=VALUE"), (".x=1", "empty"), ("a.b=1", "no object")] {
            let error = set(&mut body, wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains(says), "{error}");
        }
    }
}
