//! The OpenAPI document: complete, and of the right shape.

use adapters_http::openapi;
use domain::{kernel::Caller, kinds::KINDS};
use serde_json::{Value, json};

use crate::world::{World, get};

#[test]
fn every_kind_has_its_reads_and_every_verb_its_own_body() {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    for kind in KINDS {
        let plural = kind.plural;
        for read in ["", "/{id}", "/{id}/diff", "/{id}/history", "/{id}/why"] {
            let path = format!("/v1/{plural}{read}");
            assert!(paths[&path]["get"].is_object(), "{path}");
        }
        for verb in (kind.verbs)() {
            let path = format!("/v1/{plural}/{{id}}/{}", verb.name);
            let operation = paths.get(&path).map(|item| &item["post"]);
            if verb.caller == Caller::System {
                assert!(operation.is_none(), "{path} is not for people");
                continue;
            }
            let operation = operation.unwrap_or_else(|| panic!("{path} is missing"));
            let content = &operation["requestBody"]["content"]["application/json"]["schema"];
            let name = format!("{}.{}", kind.name, verb.name);
            assert_eq!(content["$ref"], format!("#/components/schemas/{name}"));
            let body = &document["components"]["schemas"][&name];
            assert_eq!(body["type"], "object", "{name}");
            assert_eq!(body["additionalProperties"], false, "{name}");
            // With a reference beside it, no field would be allowed at all.
            assert!(body["$ref"].is_null(), "{name}: its fields are its own");
            let fields = body["required"].as_array().cloned().unwrap_or_default();
            let known = |field: &Value| body["properties"][field.as_str().unwrap()].is_object();
            assert!(fields.iter().all(known), "{name}: what it needs it has");
            assert_eq!(operation["requestBody"]["required"], !fields.is_empty(), "{name}");
        }
    }
    let declare = &document["components"]["schemas"]["security-group.declare"];
    assert_eq!(declare["required"], json!(["spec"]));
    assert!(declare["properties"]["provider"].is_null(), "the server fills it in");
    let issue = &document["components"]["schemas"]["token.issue"];
    assert!(issue["properties"]["secret_digest"].is_null(), "the server fills it in");
    let from = |path: &str| {
        let parameters = paths[path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|one| one["name"] == "from").unwrap()["required"].clone()
    };
    assert_eq!(from("/v1/servers/{id}/diff"), true);
    assert_eq!(from("/v1/diff"), false, "the next page's token brings it");
    for view in ["inventory", "mappings", "orders", "sync-runs", "freshness"] {
        assert!(paths[&format!("/v1/{view}")]["get"].is_object(), "{view}");
    }
}

#[test]
fn the_document_is_of_the_shape_that_openapi_3_1_asks_for() {
    let document = openapi();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with('/'));
        let in_path: Vec<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in item.as_object().unwrap() {
            assert!(matches!(method.as_str(), "get" | "post"), "{path} {method}");
            let parameters = operation["parameters"].as_array().unwrap();
            let declared: Vec<&str> = parameters
                .iter()
                .filter(|one| one["in"] == "path")
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            assert_eq!(declared, in_path, "{path}");
            let mut names: Vec<(&Value, &Value)> =
                parameters.iter().map(|one| (&one["in"], &one["name"])).collect();
            let given = names.len();
            names.sort_by_key(|(place, name)| format!("{place}{name}"));
            names.dedup();
            assert_eq!(names.len(), given, "{path}");
            for parameter in parameters {
                assert!(parameter["schema"].is_object(), "{path}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let shared = response["$ref"].as_str().and_then(|one| one.strip_prefix('#'));
                let response = shared.map_or(Some(response), |at| document.pointer(at)).unwrap();
                assert!(response["description"].is_string(), "{path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_served_document_is_the_same() {
    let world = World::new().await;
    assert_eq!(world.send(get("/openapi.json")).await.ok(200), openapi());
}
