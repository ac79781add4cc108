//! A provider that says yes to everything and does nothing.

use ::commands::ports::{
    Access, Bucket, Call, DriverFault, FilePage, Files, Identity, Intent, Listing, Pieces,
    Provider, Report, Sighting, Support, Task,
};
use async_trait::async_trait;
use domain::finops::bill_source::File;
use serde_json::Value;

pub(crate) struct Still;

static TABLE: &[Support] = &[
    Support {
        kind: "security-group",
        listed: true,
        regional: true,
        orders: &["apply", "create", "delete"],
        limits: &[],
    },
    Support {
        kind: "server",
        listed: true,
        regional: true,
        orders: &["reboot", "set-tags", "start", "stop", "tag"],
        limits: &[],
    },
];

#[async_trait]
impl Files for Still {
    async fn list(
        &self,
        _: &Access,
        _: &Bucket,
        _: &str,
        _: Option<&str>,
    ) -> Result<FilePage, DriverFault> {
        Ok(FilePage::default())
    }
    async fn open(&self, _: &Access, _: &Bucket, _: &File) -> Result<Pieces, DriverFault> {
        Err(DriverFault::NotFound("it has no file".into()))
    }
}

#[async_trait]
impl Provider for Still {
    fn name(&self) -> &'static str {
        "still"
    }
    fn table(&self) -> &'static [Support] {
        TABLE
    }
    fn check_credential(&self, credential: &Value) -> Vec<String> {
        if credential["key"].is_string() { Vec::new() } else { vec!["key: is needed".into()] }
    }
    fn check_order(&self, intent: &Intent<'_>) -> Result<(), String> {
        match intent.wanted().and_then(|wanted| wanted["name"].as_str()) {
            Some(name) if name.starts_with("sg-") => Err("a name does not begin with sg-".into()),
            _ => Ok(()),
        }
    }
    fn calls(&self, task: &Task) -> Vec<Call> {
        vec![Call { call: "still:Nothing".into(), effect: task.kind.into() }]
    }
    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
    async fn identity(&self, _: &Access) -> Result<Identity, DriverFault> {
        Ok(Identity { external_account: "1".into(), principal: "root".into() })
    }
    async fn regions(&self, _: &Access) -> Result<Vec<String>, DriverFault> {
        Ok(vec!["north".into()])
    }
    async fn list(
        &self,
        _: &Access,
        _: Option<&str>,
        _: &str,
        _: Option<&str>,
    ) -> Result<Listing, DriverFault> {
        Ok(Listing::default())
    }
    async fn find(
        &self,
        _: &Access,
        _: Option<&str>,
        _: &str,
        _: &str,
    ) -> Result<Option<Sighting>, DriverFault> {
        Ok(None)
    }
    async fn carry_out(&self, _: &Access, _: &Task) -> Result<Report, DriverFault> {
        Err(DriverFault::Rejected("it stands still".into()))
    }
}
