//! Which lines somebody looks at: conditions on dimensions, and what they are grouped by. What
//! rules, budgets and reports have in common.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    attribution::Axis,
    cost::{Basis, GROUPS_MAX},
};
use crate::kernel::{Refusal, codes};

/// Most conditions: what one question may cost.
const CONDITIONS_MAX: usize = 20;
/// Most values of a condition.
const VALUES_MAX: usize = 200;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 1_000;

/// How a condition compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Equal to one of the values; the empty value is what has nothing there.
    #[default]
    Is,
    /// Equal to none of them.
    IsNot,
    /// Begins with the value, which is the only one.
    Begins,
    /// Contains the value, which is the only one, letter case aside.
    Contains,
}

/// One condition on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LineCondition {
    /// A dimension of costs, such as `service`, `project` or `tags.env`.
    pub dimension: String,
    /// How.
    #[serde(default)]
    pub compare: Comparison,
    /// With what.
    pub values: Vec<String>,
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

/// Whether these conditions may be saved. All of them must hold for a line.
pub(crate) fn check_conditions(conditions: &[LineCondition]) -> Result<(), Refusal> {
    if conditions.len() > CONDITIONS_MAX {
        return Err(invalid(format!("conditions: at most {CONDITIONS_MAX}")));
    }
    for LineCondition { dimension, compare, values } in conditions {
        dimension.parse::<Axis>().map_err(|what| invalid(format!("conditions: {what}")))?;
        let most = match compare {
            Comparison::Is | Comparison::IsNot => VALUES_MAX,
            Comparison::Begins | Comparison::Contains => 1,
        };
        if values.is_empty() || values.len() > most {
            return Err(invalid(format!("conditions: {dimension} has 1 to {most} values")));
        }
        if values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(invalid(format!("conditions: a value of {dimension} is too long")));
        }
    }
    Ok(())
}

/// Dimensions to group by, each once; not those that are kept for something else.
pub(crate) fn check_groups(names: &[String], taken: &[&str]) -> Result<(), Refusal> {
    let most = GROUPS_MAX;
    if names.len() > most || names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err(invalid(format!("group_by: at most {most} dimensions, each once")));
    }
    for name in names {
        name.parse::<Axis>().map_err(|what| invalid(format!("group_by: {what}")))?;
        if taken.contains(&name.as_str()) {
            return Err(invalid(format!("group_by: {name} is not possible here")));
        }
    }
    Ok(())
}

/// The basis of this name.
pub(crate) fn check_basis(name: &str) -> Result<Basis, Refusal> {
    Basis::by_name(name).ok_or_else(|| {
        let known = Basis::ALL.map(Basis::name).join(", ");
        invalid(format!("basis: is one of {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(dimension: &str, compare: Comparison, values: &[&str]) -> LineCondition {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        LineCondition { dimension: dimension.to_owned(), compare, values }
    }

    #[test]
    fn conditions_that_no_line_could_be_asked_are_not_saved() {
        use Comparison::{Begins, Is, IsNot};
        let check = |condition| check_conditions(&[condition]).is_ok();
        assert!(check(condition("tags.env", IsNot, &["prod", ""])));
        assert!(check(condition("project", Is, &["shop"])));
        assert!(!check(condition("servce", Is, &["a"])));
        assert!(!check(condition("service", Is, &[])));
        assert!(!check(condition("service", Begins, &["a", "b"])));
        assert!(!check(condition("service", Is, &[&"x".repeat(1_001)])));
    }

    #[test]
    fn dimensions_are_few_known_and_different() {
        let check = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            check_groups(&names, &["day"]).is_ok()
        };
        assert!(check(&["service", "tags.env"]));
        assert!(check(&["project", "level.team"]));
        for wrong in
            [&["service", "service"][..], &["day"], &["servce"], &["a", "b", "c", "d", "e"]]
        {
            assert!(!check(wrong), "{wrong:?}");
        }
    }
}
