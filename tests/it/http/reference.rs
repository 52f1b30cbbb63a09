//! `/docs`: the OpenAPI document as a page, generated into `src/http/page/docs.html`.
//!
//! `UPDATE_DOCS=1 cargo test --test it -- docs` rewrites it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::document::{
    DOCUMENT, Node, Operation, entries, fields, is_required, items, operations, reference, resolve, text,
};

const BEGIN: &str = "\
<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>octostore: HTTP routes</title>
<link rel=\"icon\" href=\"data:,\">
<link rel=\"stylesheet\" href=\"/page/style.css\">
</head>
<body class=\"docs\">
<header>
<h1>octostore: HTTP routes</h1>
<nav aria-label=\"Other pages\"><a href=\"/\">Keys</a> <a href=\"/openapi.yaml\">openapi.yaml</a></nav>
</header>
<main>
";

/// A first session, which can be pasted into a shell.
const EXAMPLE: &str = "\
<p>Two sessions exclude each other: the first command takes the lock, the second one finds it held.</p>
<pre tabindex=\"0\">session() { curl -s -X POST localhost:7380/sessions -H 'content-type: application/json' -d '{}' | cut -d '\"' -f 4; }
take() { curl -s -X POST localhost:7380/locks/demo/acquire -H 'content-type: application/json' \\
  -d \"{\\\"session_id\\\": \\\"$1\\\", \\\"ephemeral\\\": true, \\\"ttl_seconds\\\": 30}\"; echo; }
take \"$(session)\"
take \"$(session)\"</pre>
";

const END: &str = "</main>\n</body>\n</html>\n";

/// Text as HTML, with code between backticks.
fn html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let parts = escaped.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect()
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", html(text))
}

fn description(node: &'static Node) -> String {
    html(text(resolve(node), "description").unwrap_or_default())
}

fn table(page: &mut String, columns: &[&str], rows: &[Vec<String>]) {
    let head: String = columns.iter().map(|column| format!("<th scope=\"col\">{column}</th>")).collect();
    let _ = writeln!(page, "<table>\n<thead><tr>{head}</tr></thead>\n<tbody>");
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(page, "<tr>{cells}</tr>");
    }
    page.push_str("</tbody>\n</table>\n");
}

/// A value without parts, as text.
fn scalar(node: &'static Node) -> Option<String> {
    let number = || node.as_integer().map(|number| number.to_string());
    node.as_str().map(str::to_owned).or_else(number).or_else(|| node.as_bool().map(|is| is.to_string()))
}

/// The type of a value, in words.
fn type_of(schema: &'static Node) -> String {
    if let Some(name) = reference(schema).and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    let limit = |key| schema.as_mapping_get(key).and_then(scalar);
    let all = |key| items(schema, key).map(|parts| parts.iter().map(type_of));
    let mut words = match (text(schema, "type"), text(schema, "format")) {
        (Some("array"), _) if is_inline(&schema["items"]) => "array of objects".into(),
        (Some("array"), _) => format!("array of {}", type_of(&schema["items"])),
        (Some("object"), _) if !fields(schema).is_empty() => {
            let fields = fields(schema).into_iter();
            fields
                .map(|(name, field)| format!("{} {}", code(name), type_of(field)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        (Some(kind), Some(format)) if format != "int64" => format!("{kind} ({format})"),
        (kind, _) => kind.unwrap_or_default().to_owned(),
    };
    if let Some(parts) = all("allOf") {
        words += &parts.collect::<Vec<_>>().join(" with ");
    }
    if let Some(parts) = all("oneOf") {
        words += &parts.collect::<Vec<_>>().join(" or ");
    }
    if let Some(values) = items(schema, "enum") {
        let values: Vec<_> = values.iter().filter_map(Node::as_str).map(code).collect();
        let _ = write!(words, " {}", values.join(", "));
    }
    if let (Some(min), Some(max)) = (limit("minimum"), limit("maximum")) {
        let _ = write!(words, ", {min} to {max}");
    }
    if let Some(max) = limit("maxLength") {
        let _ = write!(words, ", at most {max} characters");
    }
    if let Some(pattern) = text(schema, "pattern") {
        let _ = write!(words, ", {}", code(pattern));
    }
    if limit("nullable").as_deref() == Some("true") {
        let null = if words.is_empty() { "null" } else { ", or null" };
        words += null;
    }
    if let Some(value) = limit("default") {
        let _ = write!(words, "; {value} by default");
    }
    words.trim_start().to_owned()
}

/// Whether a schema is an object whose fields are listed where it is used.
fn is_inline(schema: &'static Node) -> bool {
    reference(schema).is_none()
        && items(schema, "allOf").is_none_or(|all| all.len() > 1)
        && !fields(schema).is_empty()
}

/// The rows of an object's fields, and of the fields of objects in them.
fn field_rows(schema: &'static Node, before: &str, rows: &mut Vec<Vec<String>>) {
    for (name, field) in fields(schema) {
        let need = if is_required(schema, name) { "" } else { "optional" };
        let (items, name) = (field.as_mapping_get("items"), format!("{before}{name}"));
        rows.push(vec![code(&name), type_of(field), need.into(), description(field)]);
        let (inner, name) = items.map_or((field, format!("{name}.")), |items| (items, format!("{name}[].")));
        if is_inline(inner) {
            field_rows(inner, &name, rows);
        }
    }
}

fn parameter_row(parameter: &'static Node) -> Vec<String> {
    let parameter = resolve(parameter);
    let place = text(parameter, "in").expect("a place");
    let is_required = parameter.as_mapping_get("required").is_some();
    let optional = if is_required { "" } else { ", optional" };
    let name = code(text(parameter, "name").expect("a name"));
    vec![name, format!("{place}{optional}"), type_of(&parameter["schema"]), description(parameter)]
}

/// The status of a response, its meaning, and what it has.
fn response_row(status: u16, response: &'static Node) -> Vec<String> {
    let response = resolve(response);
    let mut content = Vec::new();
    for (media, node) in response.as_mapping_get("content").into_iter().flat_map(entries) {
        let media = if media == "application/json" { String::new() } else { format!("{}: ", code(media)) };
        content.push(format!("{media}{}", type_of(&node["schema"])));
    }
    let headers = response.as_mapping_get("headers").into_iter().flat_map(entries);
    let headers = headers.filter(|(name, _)| *name != "x-request-id");
    content.extend(headers.map(|(name, _)| format!("<a href=\"#{name}\">{name}</a>")));
    vec![code(&status.to_string()), description(response), content.join("<br>")]
}

fn anchor(operation: &Operation) -> &'static str {
    text(operation.node, "operationId").expect("an id")
}

fn title(operation: &Operation) -> String {
    format!("{} {}", code(operation.method), code(operation.path))
}

fn section(page: &mut String, operation: &Operation) {
    let (id, node) = (anchor(operation), operation.node);
    let _ = writeln!(page, "<section aria-labelledby=\"{id}\">\n<h3 id=\"{id}\">{}</h3>", title(operation));
    let _ = writeln!(page, "<p>{}.</p>", html(text(node, "summary").expect("a summary")));
    let access = if operation.is_public() { "Needs no credentials." } else { "" };
    let more = [description(node), access.to_owned()].join(" ");
    if !more.trim().is_empty() {
        let _ = writeln!(page, "<p>{}</p>", more.trim());
    }
    let own = items(node, "parameters").unwrap_or_default();
    let parameters: Vec<_> = operation.common.iter().chain(own).map(parameter_row).collect();
    if !parameters.is_empty() {
        table(page, &["Parameter", "In", "Type", "Meaning"], &parameters);
    }
    if let Some(body) = node.as_mapping_get("requestBody") {
        let _ = writeln!(page, "<p>Body: {}</p>", type_of(&body["content"]["application/json"]["schema"]));
    }
    let mut responses: Vec<_> = operation.responses().collect();
    responses.sort_by_key(|(status, _)| *status);
    let responses: Vec<_> =
        responses.into_iter().map(|(status, response)| response_row(status, response)).collect();
    table(page, &["Status", "Meaning", "Body, headers"], &responses);
    page.push_str("</section>\n");
}

/// The page.
fn rendered() -> String {
    let mut page = String::from(BEGIN);
    let (operations, components) = (operations(), &DOCUMENT["components"]);
    let _ =
        writeln!(page, "<p>{}</p>\n{EXAMPLE}<h2 id=\"routes\">Routes</h2>", description(&DOCUMENT["info"]));
    let rows: Vec<_> = operations
        .iter()
        .map(|operation| {
            let link = format!("<a href=\"#{}\">{}</a>", anchor(operation), title(operation));
            vec![link, html(text(operation.node, "summary").expect("a summary"))]
        })
        .collect();
    table(&mut page, &["Route", "Purpose"], &rows);
    for tag in items(&DOCUMENT, "tags").expect("tags") {
        let name = text(tag, "name").expect("a name");
        let _ = writeln!(page, "<h2>{name}</h2>\n<p>{}.</p>", description(tag));
        let has_tag = |operation: &&Operation| operation.node["tags"][0].as_str() == Some(name);
        operations.iter().filter(has_tag).for_each(|operation| section(&mut page, operation));
    }
    page.push_str("<h2>Objects</h2>\n");
    for (name, schema) in entries(&components["schemas"]) {
        let _ = writeln!(page, "<section aria-labelledby=\"{name}\">\n<h3 id=\"{name}\">{name}</h3>");
        let mut rows = Vec::new();
        field_rows(schema, "", &mut rows);
        table(&mut page, &["Field", "Type", "Presence", "Meaning"], &rows);
        page.push_str("</section>\n");
    }
    let responses = operations.iter().flat_map(Operation::responses).map(|(_, response)| resolve(response));
    let headers = responses.filter_map(|response| response.as_mapping_get("headers")).flat_map(entries);
    let headers: BTreeMap<_, _> = headers.collect();
    page.push_str("<h2>Headers of responses</h2>\n");
    let row = |(name, header)| {
        let type_of = type_of(&resolve(header)["schema"]);
        vec![format!("<code id=\"{name}\">{name}</code>"), type_of, description(header)]
    };
    table(&mut page, &["Header", "Type", "Meaning"], &headers.into_iter().map(row).collect::<Vec<_>>());
    page + END
}

#[test]
fn docs_page_shows_the_openapi_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page/docs.html");
    let expected = rendered();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).expect("a writable page");
    } else {
        let found = std::fs::read_to_string(&path).expect("the page");
        assert!(found == expected, "docs.html is out of date; UPDATE_DOCS=1 cargo test --test it -- docs");
    }
}

/// An unquoted text with a comma, in braces, is a text and a key without a value.
fn assert_no_key_lacks_a_value(node: &'static Node) {
    for (key, value) in entries(node) {
        assert!(!value.is_null(), "{key:?} has no value");
        assert_no_key_lacks_a_value(value);
    }
    node.as_vec().into_iter().flatten().for_each(assert_no_key_lacks_a_value);
}

#[test]
fn docs_page_has_every_route_field_status_and_code() {
    assert_no_key_lacks_a_value(&DOCUMENT);
    let page = rendered();
    let shows = |text: &str| assert!(page.contains(&format!(">{text}</")), "{text}");
    for operation in operations() {
        shows(operation.path);
        let section = page.split(&format!("<h3 id=\"{}\">", anchor(&operation))).nth(1).expect("a section");
        let section = section.split("</section>").next().expect("its end");
        for (status, _) in operation.responses() {
            assert!(section.contains(&format!("<code>{status}</code>")), "{status} of {operation:?}");
        }
    }
    for (_, schema) in entries(&DOCUMENT["components"]["schemas"]) {
        fields(schema).iter().for_each(|(name, _)| shows(name));
    }
    let code =
        fields(&DOCUMENT["components"]["schemas"]["Error"]).into_iter().find(|(name, _)| *name == "code");
    let codes = items(code.expect("the code").1, "enum").expect("the codes");
    codes.iter().filter_map(Node::as_str).for_each(shows);
    for link in page.split("href=\"#").skip(1) {
        let target = link.split('"').next().expect("a target");
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
}
