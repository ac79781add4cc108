//! Every kind's rows, with no code per kind: the decider's own `evolve`, folded.

use domain::{
    kernel::{State, write_canonical},
    kinds,
    log::Record,
};
use serde::Serialize;
use uuid::Uuid;

use crate::view::{Column, ColumnType, FoldFault, Indexing, RowState, Value, View};

/// The view.
pub(crate) struct Inventory;

const fn column(
    name: &'static str,
    column_type: ColumnType,
    indexing: Indexing,
    summary: &'static str,
) -> Column {
    Column { name, column_type, indexing, summary }
}

static COLUMNS: &[Column] = &[
    column("kind", ColumnType::Text, Indexing::Groups, "The kind, in the singular."),
    column("name", ColumnType::Text, Indexing::Finds, "What people call it."),
    column("status", ColumnType::Text, Indexing::Groups, "One word."),
    column("project", ColumnType::Text, Indexing::Groups, "Who owns it."),
    column("account", ColumnType::Text, Indexing::Groups, "The cloud account it lives in."),
    column("provider", ColumnType::Text, Indexing::None, "The account's provider."),
    column("region", ColumnType::Text, Indexing::Groups, "The provider's region id."),
    column("zone", ColumnType::Text, Indexing::None, "The provider's zone id."),
    column("external_id", ColumnType::Text, Indexing::Finds, "Its id in the cloud."),
    column("parent", ColumnType::Text, Indexing::Finds, "What it hangs in, by external id."),
    column("drifted", ColumnType::Boolean, Indexing::None, "Whether wanted and seen differ."),
    column("gone", ColumnType::Boolean, Indexing::None, "Whether it is not there any more."),
    column(
        "order_state",
        ColumnType::Text,
        Indexing::Sparse,
        "`pending` or `parked` while an order is out.",
    ),
    column("revision", ColumnType::Integer, Indexing::None, "How many events it has."),
    column(
        "created_at",
        ColumnType::Integer,
        Indexing::None,
        "When it began: Unix time in microseconds.",
    ),
    column(
        "updated_at",
        ColumnType::Integer,
        Indexing::None,
        "Its last event: Unix time in microseconds.",
    ),
];

/// A canonical object on its way, from members in the order of their names.
struct Members(Vec<u8>);

impl Members {
    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        write_canonical(value, &mut self.0);
    }

    fn some<T: Serialize>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.member(name, value);
        }
    }

    /// One whose value is canonical bytes already.
    fn written(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.0.extend_from_slice(value);
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        write_canonical(name, &mut self.0);
        self.0.push(b':');
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// One resource.
struct Resource {
    kind: &'static str,
    id: String,
    state: Box<dyn State>,
    revision: u64,
    created_at: i64,
    updated_at: i64,
    updated_by: String,
}

impl Resource {
    fn order_state(&self) -> Option<&'static str> {
        self.state.order().map(|out| if out.parked.is_some() { "parked" } else { "pending" })
    }

    /// A project belongs to itself: who reaches it sees it.
    fn project(&self, of: Option<Uuid>) -> Option<String> {
        if self.kind == "project" {
            return Some(self.id.clone());
        }
        of.map(|project| project.to_string())
    }
}

impl RowState for Resource {
    fn columns(&self) -> Vec<Value> {
        let facets = self.state.facets();
        vec![
            self.kind.into(),
            facets.name.into(),
            self.state.status().into(),
            self.project(facets.project).into(),
            facets.account.map(|account| account.to_string()).into(),
            facets.provider.into(),
            facets.region.into(),
            facets.zone.into(),
            facets.external_id.into(),
            facets.parent.into(),
            facets.drifted.into(),
            facets.gone.into(),
            self.order_state().map(str::to_owned).into(),
            (self.revision as i64).into(),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    fn body(&self) -> Vec<u8> {
        let facets = self.state.facets();
        let mut body = Members(Vec::with_capacity(1_024));
        // In the order of the names: that is canonical.
        body.some("account", facets.account.as_ref());
        body.member("created_at", &self.created_at);
        if let Some(drifted) = facets.drifted {
            let fields = self.state.drift();
            if !fields.is_empty() {
                body.member("drift", &fields);
            }
            body.member("drifted", &drifted);
        }
        body.some("external_id", facets.external_id.as_ref());
        if facets.gone {
            body.member("gone", &true);
        }
        body.member("id", &self.id);
        body.member("kind", self.kind);
        body.some("name", facets.name.as_ref());
        body.some("order", self.state.order().as_ref());
        body.some("parent", facets.parent.as_ref());
        body.some("project", self.project(facets.project).as_ref());
        body.some("provider", facets.provider.as_ref());
        body.some("region", facets.region.as_ref());
        body.member("revision", &self.revision);
        // The bytes it has: canonical, and large.
        body.written("state", &self.state.json());
        body.member("status", self.state.status());
        if !facets.tags.is_empty() {
            body.member("tags", &facets.tags);
        }
        body.member("updated_at", &self.updated_at);
        body.member("updated_by", &self.updated_by);
        body.some("zone", facets.zone.as_ref());
        body.finish()
    }

    fn boxed(&self) -> Box<dyn RowState> {
        Box::new(Self {
            kind: self.kind,
            id: self.id.clone(),
            state: self.state.clone(),
            revision: self.revision,
            created_at: self.created_at,
            updated_at: self.updated_at,
            updated_by: self.updated_by.clone(),
        })
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl View for Inventory {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn version(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Every resource of every kind, with its state."
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn sort_columns(&self) -> &'static [&'static str] {
        &["name", "updated_at"]
    }

    fn keys(&self, record: &Record) -> Vec<String> {
        match kinds::by_name(record.kind()) {
            Some(_) => vec![record.id().to_owned()],
            None => Vec::new(),
        }
    }

    fn fold(
        &self,
        key: &str,
        row: Option<Box<dyn RowState>>,
        record: &Record,
    ) -> Result<Option<Box<dyn RowState>>, FoldFault> {
        let fault =
            |reason: String| FoldFault { view: "inventory", position: record.position(), reason };
        let kind = kinds::by_name(record.kind())
            .ok_or_else(|| fault(format!("{} is not a kind", record.kind())))?;
        let now = record.recorded_at().timestamp_micros();
        let mut row = row.unwrap_or_else(|| {
            Box::new(Resource {
                kind: kind.name,
                id: key.to_owned(),
                state: (kind.empty)(),
                revision: 0,
                created_at: now,
                updated_at: now,
                updated_by: String::new(),
            })
        });
        let resource = row
            .as_any()
            .downcast_mut::<Resource>()
            .ok_or_else(|| fault("the row is another view's".to_owned()))?;
        resource
            .state
            .evolve(record.event_type(), record.data())
            .map_err(|error| fault(format!("{}: {error}", record.event_type())))?;
        resource.revision = record.revision();
        resource.updated_at = now;
        record.actor().clone_into(&mut resource.updated_by);
        Ok(Some(row))
    }

    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            kind: String,
            id: String,
            revision: u64,
            created_at: i64,
            updated_at: i64,
            updated_by: String,
            #[serde(borrow)]
            state: &'a serde_json::value::RawValue,
        }
        let body: Body<'_> = serde_json::from_slice(body)?;
        let kind = kinds::by_name(&body.kind)
            .ok_or_else(|| serde::de::Error::custom(format!("{} is not a kind", body.kind)))?;
        Ok(Box::new(Resource {
            kind: kind.name,
            id: body.id,
            state: (kind.read)(body.state.get().as_bytes())?,
            revision: body.revision,
            created_at: body.created_at,
            updated_at: body.updated_at,
            updated_by: body.updated_by,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_canonical_and_reads_back() {
        let kind = kinds::by_name("server").unwrap();
        let mut state = (kind.empty)();
        let discovered = br#"{"origin":{"account":"00000000-0000-0000-0000-000000000007","external_id":"i-1","provider":"aws","region":"eu-west-1"},"project":"00000000-0000-0000-0000-000000000008","seen":{"addresses":[],"disks":[],"image":"ami-1","name":"web \"north\"","network":"subnet-1","power":"running","security_groups":[],"shape":"m7g.large","tags":{"env":"prod"},"vpc":"vpc-1","zone":"eu-west-1a"}}"#;
        state.evolve("discovered", discovered).unwrap();
        let row = Resource {
            kind: kind.name,
            id: "s-1".to_owned(),
            state,
            revision: 3,
            created_at: 1,
            updated_at: 2,
            updated_by: "ann".to_owned(),
        };
        let body = row.body();
        let tree: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(domain::kernel::canonical_value(&tree), body);
        for name in ["account", "external_id", "name", "parent", "project", "region", "zone"] {
            assert!(tree[name].is_string(), "{name} in {tree}");
        }
        let again = Inventory.read(&body).unwrap();
        assert_eq!(again.columns()[13], Value::Integer(3));
    }
}
