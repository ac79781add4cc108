//! The OpenAPI 3.1 document: routes × kinds × views, with each verb's own body.

use std::collections::BTreeSet;

use ::commands::plan::{Fact, Plan};
use domain::kernel::{Caller, Kind, Role, Verb};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    agents,
    commands::creating,
    params::{Parameter, Place},
    problem::PROBLEMS,
    routes::{Access, ROUTES, Route, Scope, Verb as Method},
    source::{Source, Subject},
};

const SCHEMAS: &str = "#/components/schemas/";

/// The document. It depends on the program alone, so that it can be checked in.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut document =
        Document { generator: settings.into_generator(), schemas: Map::new(), paths: Map::new() };
    document.answers();
    for route in ROUTES {
        for subject in route.subjects() {
            document.route(route, subject);
        }
    }
    document.finish()
}

struct Document {
    generator: SchemaGenerator,
    /// Ours; schemars' own come at the end.
    schemas: Map<String, Value>,
    paths: Map<String, Value>,
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{SCHEMAS}{name}") })
}

fn role(caller: Caller) -> &'static str {
    match caller {
        Caller::Person(Role::Agent) => "agent",
        Caller::Person(Role::Viewer) => "viewer",
        Caller::Person(Role::Operator) => "operator",
        Caller::Person(Role::Admin) => "admin",
        Caller::System => "system",
    }
}

impl Document {
    fn answers(&mut self) {
        let _ = self.generator.subschema_for::<Plan>();
        let _ = self.generator.subschema_for::<Fact>();
        let page = |items: Value, more: Value| {
            let mut properties = json!({
                "items": {"type": "array", "items": items},
                "next_page_token": {"type": ["string", "null"]},
                "position": {"type": "integer"},
            });
            if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
                properties.extend(more);
            }
            json!({"type": "object", "required": ["items", "position"], "properties": properties})
        };
        let event = json!({"type": "object", "required": ["position", "type", "data"]});
        let count = json!({
            "count": {"type": "integer"},
            "count_is_lower_bound": {"type": "boolean"},
        });
        let fields = json!({"type": "array", "items": {
            "type": "object",
            "required": ["field", "before", "after"],
            "properties": {"field": {"type": "string"}, "before": {}, "after": {}},
        }});
        let outcome = json!({
            "type": "object",
            "required": ["kind", "id", "revision", "position", "events", "status", "order", "repeated"],
            "properties": {
                "kind": {"type": "string"},
                "id": {"type": "string", "format": "uuid"},
                "revision": {"type": "integer"},
                "position": {"type": "integer"},
                "events": {"type": "array", "items": reference("Fact")},
                "status": {"type": "string"},
                "order": {"description": "What it waits for; null when for nothing."},
                "repeated": {"type": "boolean", "description": "Whether the request was answered before."},
                "secret": {"type": "string", "description": "Shown once: a new token's secret."},
            },
        });
        let codes: Vec<&str> = PROBLEMS
            .iter()
            .chain(domain::kernel::REFUSALS)
            .map(|code| code.code)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let problem = json!({
            "type": "object",
            "description": "Problem details (RFC 9457).",
            "required": ["type", "title", "status", "detail", "code", "advice", "instance", "request_id"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string", "enum": codes},
                "advice": {"type": "string"},
                "instance": {"type": "string"},
                "request_id": {"type": "string"},
                "moved": {"type": "array", "description": "For a stale plan: what has moved."},
                "revision": {"type": "integer", "description": "For another revision: the present one."},
            },
        });
        for (name, schema) in [
            (
                "Change",
                json!({
                    "type": "object",
                    "required": ["key", "change", "fields"],
                    "properties": {
                        "key": {"type": "string"},
                        "change": {"enum": ["added", "changed", "none", "removed"]},
                        "before": {"type": ["object", "null"]},
                        "after": {"type": ["object", "null"]},
                        "fields": fields,
                    },
                }),
            ),
            ("EventPage", page(event, json!({}))),
            ("Outcome", outcome),
            ("Problem", problem),
            (
                "Resource",
                json!({
                    "type": "object",
                    "required": ["kind", "id", "revision", "status", "created_at", "updated_at", "state"],
                    "properties": {
                        "kind": {"type": "string"},
                        "id": {"type": "string", "format": "uuid"},
                        "revision": {"type": "integer"},
                        "status": {"type": "string"},
                        "created_at": {"type": "string", "format": "date-time"},
                        "updated_at": {"type": "string", "format": "date-time"},
                        "state": {"type": "object"},
                        // While something is moved for it that this process hears of.
                        "progress": {"$ref": "#/components/schemas/Progress"},
                    },
                }),
            ),
            ("RowPage", page(json!({"type": "object"}), count)),
        ] {
            self.schemas.insert(name.to_owned(), schema);
        }
    }

    fn route(&mut self, route: &'static Route, subject: Subject) {
        let path = route.path_for(subject);
        match (route.scope, subject) {
            (Scope::EachKind, Subject::Kind(kind)) if route.method == Method::Post => {
                for verb in (kind.verbs)() {
                    if matches!(verb.caller, Caller::Person(_)) {
                        let path = path.replace("{verb}", verb.name);
                        let id = format!("{}-{}", kind.name, verb.name);
                        self.command(route, kind, verb, path, id);
                    }
                }
            }
            (Scope::EachCreated, Subject::Kind(kind)) => {
                if let Some(verb) = creating(kind) {
                    self.command(route, kind, verb, path, format!("{}-new", kind.name));
                }
            }
            (_, Subject::Kind(kind)) => {
                let id = format!("{}-{}", kind.name, route.operation);
                let operation = Self::query(route, id, kind.plural, &path);
                self.add(path, route.method, operation);
            }
            (_, Subject::Source(source)) => {
                let id = format!("{}-{}", route.operation, source.path());
                let mut operation = Self::query(route, id, "views", &path);
                operation["summary"] = json!(source.summary);
                describe_columns(&mut operation, source);
                self.add(path, route.method, operation);
            }
            (_, Subject::Nothing) => {
                let tag = match path.as_str() {
                    path if path.starts_with("/v1/audit") => "audit",
                    "/v1/allocations"
                    | "/v1/amortisations"
                    | "/v1/anomaly-detections"
                    | "/v1/bill-imports"
                    | "/v1/budget-evaluations"
                    | "/v1/budgets:status"
                    | "/v1/forecasts"
                    | "/v1/hints"
                    | "/v1/kpis"
                    | "/v1/ratings"
                    | "/v1/usage-imports" => "costs",
                    path if path.starts_with("/v1/costs") => "costs",
                    path if ["/devices", "/leaving", "/machines"]
                        .iter()
                        .any(|part| path.ends_with(part)) =>
                    {
                        "hosts"
                    }
                    path if path.starts_with("/v1/hosts") => "agents",
                    path if path.starts_with("/v1/images") => "images",
                    path if path.starts_with("/v1/servers") => "servers",
                    "/v1/placements" => "servers",
                    path if path.starts_with("/v1/reports") => "reports",
                    _ => "server",
                };
                let mut operation = Self::query(route, route.operation.to_owned(), tag, &path);
                if let Some(body) = agents::body(route.operation, &mut self.generator) {
                    operation["requestBody"] = json!({
                        "required": true,
                        "content": {"application/json": {"schema": body}},
                    });
                }
                if route.operation == "placements" {
                    operation["requestBody"] = json!({
                        "required": true,
                        "description": "What `launch server` takes; the name may be left out.",
                        "content": {"application/json": {"schema": self.launch()}},
                    });
                }
                self.add(path, route.method, operation);
            }
        }
    }

    /// What a launch takes, by any name or none.
    fn launch(&mut self) -> Value {
        let kind = domain::kinds::by_name("server");
        let Some((kind, verb)) = kind.and_then(|kind| Some((kind, kind.verb("launch")?))) else {
            return json!({"type": "object"});
        };
        let mut body = self.body(kind, verb);
        if let Some(required) = body["required"].as_array_mut() {
            required.retain(|field| field != "name");
        }
        body["title"] = json!("launch that is asked about");
        body
    }

    fn add(&mut self, path: String, method: Method, operation: Value) {
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method.name().to_lowercase()] = operation;
    }

    fn query(route: &Route, id: String, tag: &str, path: &str) -> Value {
        let schema = match route.operation {
            "list" | "rows" | "view" => Some("RowPage"),
            "get" => Some("Resource"),
            "history" | "audit-events" => Some("EventPage"),
            "diff" if path.starts_with("/v1/diff") => None,
            "diff" => Some("Change"),
            _ => None,
        };
        let content = match route.operation {
            "console-page" => json!({"text/html": {"schema": {"type": "string"}}}),
            "console-page-file" => {
                let file = json!({"schema": {"type": "string"}});
                json!({"text/css": file, "text/javascript": file})
            }
            "metrics" => json!({"text/plain": {"schema": {"type": "string"}}}),
            "export-bills" => json!({"text/csv": {"schema": {"type": "string"}}}),
            "audit-watch" => json!({"text/event-stream": {"schema": {
                "type": "object",
                "description": "One event of the feed.",
                "required": ["data"],
                "properties": {
                    "id": {"type": "string", "description": "The record's position; progress has none."},
                    "event": {"type": "string", "enum": ["message", "progress"], "description": "message, which is what an event is that does not say, is a record; progress is how far a transfer is."},
                    "data": {"type": "string", "contentMediaType": "application/json", "description": "The record; of progress: kind, id, order, done_bytes and total_bytes."},
                },
            }}}),
            "report-answer" | "report-run-answer" => {
                let file = json!({"schema": {"type": "string"}});
                json!({
                    "application/json": {"schema": {"type": "object"}},
                    "application/vnd.apache.parquet": file,
                    "text/csv": file,
                })
            }
            _ => {
                let schema = schema.map_or(json!({"type": "object"}), reference);
                json!({"application/json": {"schema": schema}})
            }
        };
        let mut responses = json!({"200": {"description": "The answer.", "content": content}});
        if ["agent-console", "server-console"].contains(&route.operation) {
            responses = json!({"101": {
                "description": "The connection is a WebSocket (RFC 6455) from now on.",
            }});
        }
        if route.operation == "get" {
            responses["304"] =
                json!({"description": "It still has the revision of If-None-Match."});
        }
        if route.operation == "readyz" {
            responses["503"] =
                json!({"description": "Not ready; the body says why.", "content": content});
        }
        let mut operation = json!({
            "operationId": id,
            "tags": [tag],
            "summary": route.summary,
            "parameters": parameters(route, path),
            "responses": failing(responses),
            "security": security(route),
        });
        if matches!(route.operation, "import-bill" | "upload-image") {
            operation["requestBody"] = json!({
                "required": true,
                "description": "The file as it is.",
                "content": {"application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"},
                }},
            });
        }
        operation
    }

    fn command(
        &mut self,
        route: &Route,
        kind: &'static Kind,
        verb: &Verb,
        path: String,
        id: String,
    ) {
        let body = self.body(kind, verb);
        let done = |what: &str| {
            json!({
                "description": what,
                "headers": {
                    "ETag": {"description": "The revision.", "schema": {"type": "string"}},
                    "Location": {"description": "The resource.", "schema": {"type": "string"}},
                    "Skyledger-Position": {
                        "description": "What was written, or is known.",
                        "schema": {"type": "integer"},
                    },
                },
                "content": {"application/json": {"schema": reference("Outcome")}},
            })
        };
        let mut ok = done("Done; with validate_only the plan.");
        ok["content"]["application/json"]["schema"] =
            json!({"anyOf": [reference("Outcome"), reference("Plan")]});
        let responses = json!({
            "200": ok,
            "201": done("Done: it begins with this."),
            "202": done("Logged; an order is still out."),
        });
        let operation = json!({
            "operationId": id,
            "tags": [kind.plural],
            "summary": verb.summary,
            "description": format!("Needs the role {}.", role(verb.caller)),
            "parameters": parameters(route, &path),
            "requestBody": {
                "required": body["required"].as_array().is_some_and(|all| !all.is_empty()),
                "content": {"application/json": {"schema": reference(&self.name(kind, verb, body))}},
            },
            "responses": failing(responses),
            "security": security(route),
        });
        self.add(path, route.method, operation);
    }

    fn name(&mut self, kind: &Kind, verb: &Verb, body: Value) -> String {
        let name = format!("{}.{}", kind.name, verb.name);
        self.schemas.insert(name.clone(), body);
        name
    }

    /// The content of one variant of the kind's commands.
    fn body(&mut self, kind: &Kind, verb: &Verb) -> Value {
        let schema = (kind.command_schema)(&mut self.generator);
        let mut schema = schema.to_value();
        schema = self.referred(schema);
        let none = Vec::new();
        let variants = schema["oneOf"].as_array().unwrap_or(&none);
        let variant = variants.iter().find(|one| {
            let tag = &one["properties"]["type"];
            tag["const"] == verb.name || tag["enum"] == json!([verb.name])
        });
        let body = variant.map_or(json!({}), |one| one["properties"]["data"].clone());
        // Written out: beside a reference, that there are no other fields would be said of all of them.
        let mut body = self.referred(body);
        if !body.is_object() {
            body = json!({});
        }
        body["type"] = json!("object");
        body["title"] = json!(format!("{} {}", verb.name, kind.name));
        body["additionalProperties"] = json!(false);
        if let Some(description) = variant.map(|one| one["description"].clone())
            && description.is_string()
        {
            body["description"] = description;
        }
        body
    }

    /// What a schema refers to, when it is but a reference; else itself.
    fn referred(&self, schema: Value) -> Value {
        let name = schema["$ref"].as_str().and_then(|one| one.strip_prefix(SCHEMAS));
        match name {
            Some(name) => self.generator.definitions().get(name).cloned().unwrap_or_default(),
            None => schema,
        }
    }

    fn finish(mut self) -> Value {
        let defined = self.generator.take_definitions(true);
        let mut schemas = self.schemas;
        // Of schemars' definitions only those that something refers to.
        let paths = Value::Object(self.paths);
        let mut wanted = Vec::new();
        references(&paths, &mut wanted);
        schemas.values().for_each(|schema| references(schema, &mut wanted));
        while let Some(name) = wanted.pop() {
            if !schemas.contains_key(&name)
                && let Some(schema) = defined.get(&name)
            {
                references(schema, &mut wanted);
                schemas.insert(name, schema.clone());
            }
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Skyledger",
                "version": "1",
                "summary": "An event-sourced ledger for private and public clouds.",
                "description": include_str!("openapi.md"),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "responses": {"HeadTooLarge": {
                    "description": "Path, query or headers are too large to be read; there is no body.",
                }},
                "schemas": schemas,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        })
    }
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) =
                members.get("$ref").and_then(|one| one.as_str()?.strip_prefix(SCHEMAS))
            {
                out.push(name.to_owned());
            }
            members.values().for_each(|member| references(member, out));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

fn security(route: &Route) -> Value {
    match route.access {
        Access::Public => json!([]),
        Access::Any | Access::Token | Access::Estate => json!([{"token": []}]),
    }
}

fn failing(mut responses: Value) -> Value {
    responses["default"] = json!({
        "description": "A problem; `code` says which.",
        "content": {"application/problem+json": {"schema": reference("Problem")}},
    });
    for status in ["414", "431"] {
        responses[status] = json!({"$ref": "#/components/responses/HeadTooLarge"});
    }
    responses
}

/// Those of the path, then the route's own.
fn parameters(route: &Route, path: &str) -> Value {
    let of_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let of_path = of_path.map(|name| {
        let schema = match name {
            "call" | "id" => json!({"type": "string", "format": "uuid"}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let own = route.parameters.iter().map(|one: &&Parameter| {
        let place = match one.place {
            Place::Query => "query",
            Place::Header => "header",
        };
        let needed = match (route.operation, one.name) {
            ("agent-console", "epoch") | ("why", "field") => true,
            // The next page of a comparison of many brings both moments in its token.
            ("diff", "from") => route.scope == Scope::EachKind,
            _ => false,
        };
        json!({
            "name": one.name,
            "in": place,
            "required": needed,
            "description": one.summary,
            "schema": one.schema(),
        })
    });
    of_path.chain(own).collect()
}

fn describe_columns(operation: &mut Value, source: Source) {
    let columns: Vec<_> = source
        .view
        .columns()
        .iter()
        .map(|column| format!("- `{}`: {}", column.name, column.summary))
        .collect();
    operation["description"] =
        json!(format!("Columns to filter and sort by:\n\n{}", columns.join("\n")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sources;

    #[test]
    fn every_reference_leads_somewhere_and_operations_are_unique() {
        let document = openapi();
        let mut names = Vec::new();
        references(&document, &mut names);
        for name in names {
            assert!(document["components"]["schemas"][&name].is_object(), "{name}");
        }
        let mut ids = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(ids.insert(id.clone()), "{id}");
            }
        }
        assert!(ids.len() > sources().count());
    }
}
