//! The OpenAPI document, parsed, and what it says about values.

use std::sync::LazyLock;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

/// The source of the document.
pub(super) const TEXT: &str = include_str!("../../../src/http/openapi.yaml");

pub(super) type Node = Yaml<'static>;

/// The document.
pub(super) static DOCUMENT: LazyLock<Node> =
    LazyLock::new(|| Yaml::load_from_str(TEXT).expect("YAML").pop().expect("a document"));

const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

/// An operation as the document has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) node: &'static Node,
    /// The parameters of its path, before its own.
    pub(super) common: &'static [Node],
}

impl Operation {
    /// Its responses by status.
    pub(super) fn responses(&self) -> impl Iterator<Item = (u16, &'static Node)> {
        entries(&self.node["responses"])
            .map(|(status, response)| (status.parse().expect("a status"), response))
    }

    pub(super) fn response(&self, status: u16) -> Option<&'static Node> {
        self.responses().find(|(own, _)| *own == status).map(|(_, response)| resolve(response))
    }

    /// Whether it needs no credentials, even if users are configured.
    pub(super) fn is_public(&self) -> bool {
        items(self.node, "security").is_some_and(<[Node]>::is_empty)
    }
}

/// All operations, in the document's order.
pub(super) fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, node) in entries(&DOCUMENT["paths"]) {
        let common = items(node, "parameters").unwrap_or_default();
        for (member, node) in entries(node) {
            let method = METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(member));
            operations.extend(method.map(|method| Operation { method, path, node, common }));
        }
    }
    operations
}

/// The members of a mapping, which may be absent.
pub(super) fn entries(node: &'static Node) -> impl Iterator<Item = (&'static str, &'static Node)> {
    let members = node.as_mapping().into_iter().flatten();
    members.map(|(key, value)| (key.as_str().expect("a key that is text"), value))
}

/// The items of the sequence `key` of a mapping.
pub(super) fn items(node: &'static Node, key: &str) -> Option<&'static [Node]> {
    node.as_mapping_get(key)?.as_vec().map(Vec::as_slice)
}

/// The text `key` of a mapping.
pub(super) fn text(node: &'static Node, key: &str) -> Option<&'static str> {
    node.as_mapping_get(key)?.as_str()
}

/// The path behind `#/` of a reference.
pub(super) fn reference(node: &'static Node) -> Option<&'static str> {
    text(node, "$ref")?.strip_prefix("#/")
}

/// The node itself, or the one that it refers to.
pub(super) fn resolve(node: &'static Node) -> &'static Node {
    reference(node).map_or(node, |path| path.split('/').fold(&*DOCUMENT, |node, part| &node[part]))
}

/// The schemas that a value must match all of: the schema itself and those of `allOf`.
fn parts(schema: &'static Node) -> Vec<&'static Node> {
    let schema = resolve(schema);
    let others = items(schema, "allOf").into_iter().flatten().flat_map(parts);
    std::iter::once(schema).chain(others).collect()
}

/// The fields of an object, those of `allOf` included.
pub(super) fn fields(schema: &'static Node) -> Vec<(&'static str, &'static Node)> {
    let parts = parts(schema).into_iter();
    parts.filter_map(|part| part.as_mapping_get("properties")).flat_map(entries).collect()
}

/// Whether an object must have the field.
pub(super) fn is_required(schema: &'static Node, field: &str) -> bool {
    let listed = |part: &'static Node| {
        items(part, "required").is_some_and(|names| names.iter().any(|name| name.as_str() == Some(field)))
    };
    parts(schema).into_iter().any(listed)
}

/// What is wrong about a value, or undocumented.
pub(super) fn faults(schema: &'static Node, value: &Value, at: &str) -> Vec<String> {
    let all = parts(schema);
    if value.is_null() {
        let is_nullable =
            |part: &&Node| part.as_mapping_get("nullable").and_then(Node::as_bool) == Some(true);
        let fault = (!all.iter().any(is_nullable)).then(|| format!("{at} is null"));
        return fault.into_iter().collect();
    }
    let mut faults: Vec<String> = all.into_iter().flat_map(|part| own_faults(part, value, at)).collect();
    let (fields, object) = (fields(schema), value.as_object());
    for (name, value) in object.into_iter().flatten() {
        let known: Vec<_> = fields.iter().filter(|(own, _)| own == name).map(|(_, schema)| *schema).collect();
        if known.is_empty() && !fields.is_empty() {
            faults.push(format!("{at}.{name} is not documented"));
        }
        let at = format!("{at}.{name}");
        faults.extend(known.into_iter().flat_map(|schema| self::faults(schema, value, &at)));
    }
    faults
}

/// What one part of a schema, without its fields, says against a value.
fn own_faults(part: &'static Node, value: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let kind = match value {
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    };
    if text(part, "type").is_some_and(|own| own != kind && (own, kind) != ("number", "integer")) {
        faults.push(format!("{at} is of type {kind}"));
    }
    let is_listed = |values: &[Node]| values.iter().any(|own| own.as_str() == value.as_str());
    if items(part, "enum").is_some_and(|values| !is_listed(values)) {
        faults.push(format!("{at} is {value}"));
    }
    let required = items(part, "required").unwrap_or_default().iter().filter_map(Node::as_str);
    let absent = required.filter(|name| value.get(name).is_none());
    faults.extend(absent.map(|name| format!("{at}.{name} is absent")));
    if let Some(alternatives) = items(part, "oneOf") {
        let all: Vec<_> = alternatives.iter().map(|schema| self::faults(schema, value, at)).collect();
        if all.iter().filter(|faults| faults.is_empty()).count() != 1 {
            faults.push(format!("{at} is not one of the alternatives: {all:?}"));
        }
    }
    if let (Some(schema), Some(values)) = (part.as_mapping_get("items"), value.as_array()) {
        let at = format!("{at}[]");
        faults.extend(values.iter().flat_map(|value| self::faults(schema, value, &at)));
    }
    faults
}
