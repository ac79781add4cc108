//! Every kind's rows, with no code per kind: the decider's own `evolve`, folded.

use domain::{
    kernel::{Facets, State, canonical_value},
    kinds,
    log::Record,
};
use serde_json::{Value as Json, json};

use crate::view::{Column, ColumnType, FoldFault, RowState, Value, View};

/// The view.
pub(crate) struct Inventory;

const fn column(
    name: &'static str,
    column_type: ColumnType,
    indexed: bool,
    summary: &'static str,
) -> Column {
    Column { name, column_type, indexed, summary }
}

static COLUMNS: &[Column] = &[
    column("kind", ColumnType::Text, true, "The kind, in the singular."),
    column("name", ColumnType::Text, true, "What people call it."),
    column("status", ColumnType::Text, true, "One word."),
    column("project", ColumnType::Text, true, "Who owns it."),
    column("account", ColumnType::Text, true, "The cloud account it lives in."),
    column("provider", ColumnType::Text, false, "The account's provider."),
    column("region", ColumnType::Text, true, "The provider's region id."),
    column("zone", ColumnType::Text, false, "The provider's zone id."),
    column("external_id", ColumnType::Text, true, "Its id in the cloud."),
    column("parent", ColumnType::Text, true, "What it hangs in, by external id."),
    column("drifted", ColumnType::Boolean, false, "Whether wanted and seen differ."),
    column("gone", ColumnType::Boolean, false, "Whether it is not there any more."),
    column("order_state", ColumnType::Text, true, "`pending` or `parked` while an order is out."),
    column("revision", ColumnType::Integer, false, "How many events it has."),
    column("created_at", ColumnType::Integer, false, "When it began: Unix time in microseconds."),
    column("updated_at", ColumnType::Integer, true, "Its last event: Unix time in microseconds."),
];

/// One resource.
struct Resource {
    kind: &'static str,
    id: String,
    state: Box<dyn State>,
    revision: u64,
    created_at: i64,
    updated_at: i64,
    updated_by: String,
    facets: Facets,
}

impl Resource {
    fn order_state(&self) -> Option<&'static str> {
        self.state.order().map(|out| if out.parked.is_some() { "parked" } else { "pending" })
    }

    fn project(&self) -> Option<String> {
        // A project belongs to itself: who reaches it sees it.
        if self.kind == "project" {
            return Some(self.id.clone());
        }
        self.facets.project.map(|project| project.to_string())
    }
}

impl RowState for Resource {
    fn columns(&self) -> Vec<Value> {
        let facets = &self.facets;
        vec![
            self.kind.into(),
            facets.name.clone().into(),
            self.state.status().into(),
            self.project().into(),
            facets.account.map(|account| account.to_string()).into(),
            facets.provider.clone().into(),
            facets.region.clone().into(),
            facets.zone.clone().into(),
            facets.external_id.clone().into(),
            facets.parent.clone().into(),
            facets.drifted.into(),
            facets.gone.into(),
            self.order_state().map(str::to_owned).into(),
            (self.revision as i64).into(),
            self.created_at.into(),
            self.updated_at.into(),
        ]
    }

    fn body(&self) -> Vec<u8> {
        let facets = &self.facets;
        let mut body = json!({
            "kind": self.kind,
            "id": self.id,
            "revision": self.revision,
            "status": self.state.status(),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "updated_by": self.updated_by,
        });
        let optional = [
            ("name", facets.name.clone()),
            ("project", self.project()),
            ("account", facets.account.map(|account| account.to_string())),
            ("provider", facets.provider.clone()),
            ("region", facets.region.clone()),
            ("zone", facets.zone.clone()),
            ("external_id", facets.external_id.clone()),
            ("parent", facets.parent.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body[name] = Json::String(value);
            }
        }
        if facets.gone {
            body["gone"] = Json::Bool(true);
        }
        if !facets.tags.is_empty() {
            body["tags"] = json!(facets.tags);
        }
        if let Some(drifted) = facets.drifted {
            body["drifted"] = Json::Bool(drifted);
            let fields = self.state.drift();
            if !fields.is_empty() {
                body["drift"] = json!(fields);
            }
        }
        if let Some(order) = self.state.order() {
            body["order"] = json!(order);
        }
        // The state goes in as the bytes it has: canonical, and large.
        let mut bytes = canonical_value(&body);
        bytes.pop();
        bytes.extend_from_slice(b",\"state\":");
        bytes.extend_from_slice(&self.state.json());
        bytes.push(b'}');
        bytes
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
            facets: self.facets.clone(),
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
        1
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
                facets: Facets::default(),
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
        resource.facets = resource.state.facets();
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
        let state = (kind.read)(body.state.get().as_bytes())?;
        let facets = state.facets();
        Ok(Box::new(Resource {
            kind: kind.name,
            id: body.id,
            state,
            revision: body.revision,
            created_at: body.created_at,
            updated_at: body.updated_at,
            updated_by: body.updated_by,
            facets,
        }))
    }
}
