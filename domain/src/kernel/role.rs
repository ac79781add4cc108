//! Who may do what, where. Pure: the edge turns a token into a [`Principal`], rules ask it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::{Refusal, codes};

/// What a principal may do. Each role may do what the ones before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads what its projects hold.
    Viewer,
    /// Also runs commands on resources of its projects.
    Operator,
    /// Also manages accounts, projects and tokens.
    Admin,
}

/// Which projects a principal reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Every project, and what belongs to none.
    All,
    /// These projects only.
    Projects(Vec<Uuid>),
}

impl Reach {
    /// Whether something of this project is in reach. What belongs to no project is the
    /// estate's, and only [`Reach::All`] reaches it.
    pub fn covers(&self, project: Option<Uuid>) -> bool {
        match self {
            Self::All => true,
            Self::Projects(projects) => project.is_some_and(|one| projects.contains(&one)),
        }
    }
}

/// Who asks. The name is a pseudonym (a token's name), never a person's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// As it is written into events as `actor`, for instance `token:ci` or `system:observer`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where it may do it.
    pub reach: Reach,
}

impl Principal {
    /// Skyledger itself: the runner, the observer, first-start set-up.
    pub fn system(part: &str) -> Self {
        Self { name: format!("system:{part}"), role: Role::Admin, reach: Reach::All }
    }

    /// Whether this principal may act in this role on something of this project.
    pub fn authorise(&self, needed: Role, project: Option<Uuid>) -> Result<(), Refusal> {
        if self.role < needed {
            return Err(Refusal::new(
                &codes::ROLE_TOO_LOW,
                format!("{} has role {:?}, this needs {needed:?}", self.name, self.role)
                    .to_lowercase(),
            ));
        }
        if !self.reach.covers(project) {
            return Err(Refusal::new(
                &codes::OUT_OF_REACH,
                match project {
                    Some(project) => format!("{} does not reach project {project}", self.name),
                    None => format!("{} reaches single projects, this is the estate's", self.name),
                },
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scoped_operator_reaches_its_projects_and_nothing_else() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let who = Principal {
            name: "token:ci".into(),
            role: Role::Operator,
            reach: Reach::Projects(vec![mine]),
        };
        let check = |role, project| who.authorise(role, project).map_err(|no| no.code.code);
        assert_eq!(check(Role::Viewer, Some(mine)), Ok(()));
        assert_eq!(check(Role::Operator, Some(mine)), Ok(()));
        assert_eq!(check(Role::Admin, Some(mine)), Err("role-too-low"));
        assert_eq!(check(Role::Operator, Some(other)), Err("out-of-reach"));
        assert_eq!(check(Role::Viewer, None), Err("out-of-reach"));
    }
}
