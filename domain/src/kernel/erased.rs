//! Kinds without their types: what the generic handler, the views, the routes and the documents
//! walk.

use std::{any::Any, fmt::Debug};

use schemars::{Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    canonical::{canonical_bytes, canonical_value},
    decider::{Companion, Decider, Facets, OnHost, Stamp, Verb},
    order::Outstanding,
    refusal::{Refusal, codes},
};
use crate::mapping::FieldDrift;

/// A fact on its way into the log: its type and its canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The event's tag.
    pub event_type: String,
    /// The event's content, canonical; `null` for an event that only has a type.
    pub data: Vec<u8>,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The facts, in order.
    pub steps: Vec<Step>,
    /// The claims their append must open.
    pub claims: Vec<String>,
    /// What their append must also do, in other streams.
    pub companions: Vec<Companion>,
    /// The state after them.
    pub state: Box<dyn State>,
}

/// A decider without its type.
pub trait State: Debug + Send + Sync {
    /// Decides a command given as verb and body. A body that does not read is a refusal with the
    /// code `malformed-command`.
    fn decide(&self, verb: &str, body: &Value, stamp: &Stamp) -> Result<Decided, Refusal>;
    /// Folds one stored fact.
    fn evolve(&mut self, event_type: &str, data: &[u8]) -> Result<(), serde_json::Error>;
    /// See [`Decider::order`].
    fn order(&self) -> Option<Outstanding<Value>>;
    /// See [`Decider::status`].
    fn status(&self) -> &'static str;
    /// See [`Decider::facets`].
    fn facets(&self) -> Facets;
    /// See [`Decider::on_host`].
    fn on_host(&self) -> Option<OnHost>;
    /// See [`Decider::stores`].
    fn stores(&self) -> Vec<Uuid>;
    /// See [`Decider::volumes`].
    fn volumes(&self) -> Vec<Uuid>;
    /// See [`Decider::drift`].
    fn drift(&self) -> Vec<FieldDrift>;
    /// The state, canonical.
    fn json(&self) -> Vec<u8>;
    /// With its type, for who knows it.
    fn as_any(&self) -> &dyn Any;
    /// A copy.
    fn boxed(&self) -> Box<dyn State>;
}

impl Clone for Box<dyn State> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// Adjacent tagging by hand, once: `{"type": …, "data": …}`; unit variants have no `data`.
fn tagged<T: DeserializeOwned>(tag: &str, data: Value) -> Result<T, serde_json::Error> {
    let with_data =
        if data.is_null() { json!({"type": tag}) } else { json!({"type": tag, "data": data}) };
    serde_json::from_value(with_data)
}

/// An event or command as tag and content.
pub(crate) fn untagged<T: Serialize>(value: &T) -> (String, Value) {
    let mut value = serde_json::to_value(value).expect("our types serialise to JSON");
    let tag = value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let data = value.get_mut("data").map(Value::take).unwrap_or_default();
    (tag, data)
}

impl<D: Decider> State for D {
    fn decide(&self, verb: &str, body: &Value, stamp: &Stamp) -> Result<Decided, Refusal> {
        let empty = body.as_object().is_some_and(serde_json::Map::is_empty);
        let command =
            tagged(verb, body.clone())
                // A command without fields is sent as `{}` or as nothing.
                .or_else(|first| {
                    if empty { tagged(verb, Value::Null).map_err(|_| first) } else { Err(first) }
                })
                .map_err(|error| Refusal::new(&codes::MALFORMED_COMMAND, error.to_string()))?;
        let events = Decider::decide(self, command, stamp)?;
        let (claims, companions) = (self.claims(&events), self.companions(&events));
        let mut state = self.clone();
        let mut steps = Vec::with_capacity(events.len());
        for event in events {
            let (event_type, data) = untagged(&event);
            steps.push(Step { event_type, data: canonical_value(&data) });
            state = Decider::evolve(state, event);
        }
        Ok(Decided { steps, claims, companions, state: Box::new(state) })
    }

    fn evolve(&mut self, event_type: &str, data: &[u8]) -> Result<(), serde_json::Error> {
        // The tag first and the data as it is: read in one go, without a tree of values between.
        let mut tagged = Vec::with_capacity(data.len() + event_type.len() + 24);
        tagged.extend_from_slice(b"{\"type\":");
        tagged.extend_from_slice(&serde_json::to_vec(event_type)?);
        if data != b"null" {
            tagged.extend_from_slice(b",\"data\":");
            tagged.extend_from_slice(data);
        }
        tagged.push(b'}');
        let event = serde_json::from_slice(&tagged)?;
        *self = Decider::evolve(std::mem::take(self), event);
        Ok(())
    }

    fn order(&self) -> Option<Outstanding<Value>> {
        Decider::order(self).map(|out| Outstanding {
            number: out.number,
            order: serde_json::to_value(out.order).expect("our types serialise to JSON"),
            parked: out.parked,
        })
    }

    fn status(&self) -> &'static str {
        Decider::status(self)
    }

    fn facets(&self) -> Facets {
        Decider::facets(self)
    }

    fn on_host(&self) -> Option<OnHost> {
        Decider::on_host(self)
    }

    fn stores(&self) -> Vec<Uuid> {
        Decider::stores(self)
    }

    fn volumes(&self) -> Vec<Uuid> {
        Decider::volumes(self)
    }

    fn drift(&self) -> Vec<FieldDrift> {
        Decider::drift(self)
    }

    fn json(&self) -> Vec<u8> {
        canonical_bytes(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn boxed(&self) -> Box<dyn State> {
        Box::new(self.clone())
    }
}

/// Reads a state from its canonical JSON.
pub type ReadState = fn(&[u8]) -> Result<Box<dyn State>, serde_json::Error>;

/// One entry of [`crate::kinds::KINDS`].
#[derive(Clone, Copy)]
pub struct Kind {
    /// See [`Decider::KIND`].
    pub name: &'static str,
    /// See [`Decider::PLURAL`].
    pub plural: &'static str,
    /// See [`Decider::SUMMARY`].
    pub summary: &'static str,
    /// See [`Decider::verbs`].
    pub verbs: fn() -> &'static [Verb],
    /// The state before any fact.
    pub empty: fn() -> Box<dyn State>,
    /// A state from its canonical JSON.
    pub read: ReadState,
    /// The schema of its commands: a `oneOf` by tag.
    pub command_schema: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of its events: a `oneOf` by tag.
    pub event_schema: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of its orders.
    pub order_schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Kind {
    /// The verb of this name.
    pub fn verb(&self, name: &str) -> Option<&'static Verb> {
        (self.verbs)().iter().find(|verb| verb.name == name)
    }
}

impl Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

/// Erases a decider's types: how an entry of the list is written.
pub const fn kind<D: Decider>() -> Kind {
    Kind {
        name: D::KIND,
        plural: D::PLURAL,
        summary: D::SUMMARY,
        verbs: D::verbs,
        empty: || Box::new(D::default()),
        read: |json| Ok(Box::new(serde_json::from_slice::<D>(json)?)),
        command_schema: |generator| generator.subschema_for::<D::Command>(),
        event_schema: |generator| generator.subschema_for::<D::Event>(),
        order_schema: |generator| generator.subschema_for::<D::Order>(),
    }
}
