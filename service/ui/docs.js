"use strict";

function element(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function resolve(spec, schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.replace("#/", "").split("/").reduce((node, key) => node[key], spec);
}

function typeName(spec, schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((option) => typeName(spec, option)).join(" or ");
  if (schema.type === "array") return `list of ${typeName(spec, schema.items || {})}`;
  const bounds = [
    schema.minimum !== undefined ? `≥ ${schema.minimum}` : "",
    schema.maximum !== undefined ? `≤ ${schema.maximum}` : "",
  ].filter(Boolean);
  return [schema.type || "any", ...bounds].join(" ");
}

function fieldTable(spec, schema) {
  const object = resolve(spec, schema);
  const table = element("table");
  const head = ["field", "type", "meaning"].map((name) => {
    const cell = element("th", name);
    cell.scope = "col";
    return cell;
  });
  table.append(element("thead", "", element("tr", "", ...head)));
  const rows = Object.entries(object.properties || {}).map(([name, field]) => {
    const required = (object.required || []).includes(name) ? " (required)" : "";
    return element(
      "tr", "",
      element("td", "", element("code", name)),
      element("td", typeName(spec, field) + required),
      element("td", field.description || ""),
    );
  });
  table.append(element("tbody", "", ...rows));
  return table;
}

function nestedTables(spec, schema) {
  const object = resolve(spec, schema);
  return Object.values(object.properties || {})
    .map((field) => field.$ref ? field : field.items)
    .filter((field) => field && field.$ref)
    .flatMap((field) => [element("h4", field.$ref.split("/").pop()), fieldTable(spec, field)]);
}

function curl(spec, method, path, schema) {
  const url = new URL(path.slice(1), document.baseURI).href;
  if (!schema) return `curl -s ${url}`;
  const example = (resolve(spec, schema).examples || [{}])[0];
  return `curl -s ${url} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(example)}'`;
}

function operation(spec, path, method, details) {
  const json = (content) => content && content["application/json"] && content["application/json"].schema;
  const request = json((details.requestBody || {}).content);
  const section = element("section", "", element("h2", `${method.toUpperCase()} ${path}`));
  section.className = "operation";
  section.append(element("p", details.description || details.summary || ""));
  section.append(element("pre", curl(spec, method, path, request)));
  if (request) section.append(element("h3", "Request"), fieldTable(spec, request));
  for (const [status, response] of Object.entries(details.responses || {})) {
    section.append(element("h3", `${status}: ${response.description}`));
    const schema = json(response.content);
    if (schema && status === "200") section.append(fieldTable(spec, schema), ...nestedTables(spec, schema));
  }
  return section;
}

async function draw() {
  const spec = await (await fetch("openapi.json")).json();
  const sections = Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, details]) => operation(spec, path, method, details)));
  const errors = element("section", "", element("h2", "Errors"));
  errors.className = "operation";
  errors.append(element("p", "Every error is JSON: an object `error` with these fields."));
  errors.append(fieldTable(spec, { $ref: "#/components/schemas/ErrorDetail" }));
  document.getElementById("operations").append(...sections, errors);
  document.getElementById("status").textContent = "";
}

draw().catch((error) => {
  document.getElementById("status").textContent = `openapi.json cannot be read: ${error.message}`;
});
