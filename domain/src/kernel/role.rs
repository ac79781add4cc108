//! Who may do what, where. Pure: the edge turns a token into a [`Principal`], rules ask it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::{Refusal, codes};

/// What a principal may do. From `viewer` on each role may do what the ones before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Works for one host, and does nothing else.
    Agent,
    /// Reads what its projects hold.
    Viewer,
    /// Also runs commands on resources of its projects.
    Operator,
    /// Also manages accounts, projects and tokens.
    Admin,
}

/// Where a principal may do what its role allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Every project, and what belongs to none.
    All,
    /// The work of this host's agent, and nothing of any project.
    Host(Uuid),
    /// These projects only.
    Projects(Vec<Uuid>),
}

impl Reach {
    /// Whether something of this project is in reach. What belongs to no project is the
    /// estate's, and only [`Reach::All`] reaches it.
    pub fn covers(&self, project: Option<Uuid>) -> bool {
        match self {
            Self::All => true,
            Self::Host(_) => false,
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

    /// Whether this principal may work for a host: its agent may, and so may an admin of everything, who
    /// could give an agent access as well.
    ///
    /// # Errors
    /// `out-of-reach`, `role-too-low`.
    pub fn authorise_agent(&self, host: Uuid) -> Result<(), Refusal> {
        match (self.role, &self.reach) {
            (Role::Admin, Reach::All) => Ok(()),
            (Role::Agent, Reach::Host(own)) if *own == host => Ok(()),
            (Role::Agent, _) => {
                let detail = format!("{} does not work for host {host}", self.name);
                Err(Refusal::new(&codes::OUT_OF_REACH, detail))
            }
            _ => {
                let detail = format!("{} is no agent of host {host}", self.name);
                Err(Refusal::new(&codes::ROLE_TOO_LOW, detail))
            }
        }
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
                    None if self.role == Role::Agent => {
                        format!("{} works for a host, and does nothing else", self.name)
                    }
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

    #[test]
    fn an_agent_works_for_its_host_and_does_nothing_else() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let who = |role, reach| Principal { name: "token:kvm-1".into(), role, reach };
        let agent = who(Role::Agent, Reach::Host(mine));
        assert_eq!(agent.authorise_agent(mine), Ok(()));
        let code = |result: Result<(), Refusal>| result.unwrap_err().code.code;
        assert_eq!(code(agent.authorise_agent(other)), "out-of-reach");
        for project in [None, Some(mine), Some(other)] {
            assert_eq!(code(agent.authorise(Role::Viewer, project)), "role-too-low");
            assert!(!agent.reach.covers(project));
        }
        assert_eq!(who(Role::Admin, Reach::All).authorise_agent(mine), Ok(()));
        for no in [who(Role::Operator, Reach::All), who(Role::Admin, Reach::Projects(vec![mine]))] {
            assert_eq!(code(no.authorise_agent(mine)), "role-too-low");
        }
    }
}
