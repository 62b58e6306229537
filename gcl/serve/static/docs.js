"use strict";
// A small reader of this server's own openapi.json.

function named(schema, whole) {
  return schema?.$ref ? whole.components.schemas[schema.$ref.split("/").at(-1)] : schema;
}

function kind(schema, whole) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.filter((one) => one.type !== "null").map((one) => kind(one, whole)).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items, whole)}`;
  if (schema.contentMediaType || schema.format === "binary") return "file";
  if (schema.additionalProperties === true) return "anything by name";
  if (schema.additionalProperties) return `${kind(schema.additionalProperties, whole)} by name`;
  const limits = [["minimum", "from"], ["maximum", "to"], ["maxLength", "up to"]]
    .filter(([key]) => key in schema).map(([key, word]) => `${word} ${schema[key]}${key === "maxLength" ? " characters" : ""}`);
  return [[schema.type ?? "anything"].flat().join(" or "), ...limits].join(" ");
}

function table(caption, rows) {
  if (!rows.length) return null;
  const lines = rows.map(([name, type, about]) => element("tr", {},
    element("th", { scope: "row" }, element("code", { text: name })), element("td", { text: type }), element("td", { text: about ?? "" })));
  return element("table", {}, element("caption", { text: caption }), element("tbody", {}, ...lines));
}

function fields(schema, whole) {
  return Object.entries(named(schema, whole)?.properties ?? {}).map(([name, field]) => [name, kind(field, whole), field.description]);
}

function call(path, method, operation, whole) {
  const given = (operation.parameters ?? []).map((one) => [one.name, kind(one.schema, whole), one.description ?? one.schema.description]);
  const [[sent, body] = []] = Object.entries(operation.requestBody?.content ?? {});
  const answer = Object.values(operation.responses["200"].content ?? {})[0]?.schema;
  const problems = Object.entries(operation.responses).filter(([status]) => status !== "200").map(([status, one]) => [status, "", one.description]);
  return element("section", { class: "call" },
    element("h2", {}, element("code", { text: `${method.toUpperCase()} ${path}` })),
    element("p", { text: operation.summary }),
    table("Parameters", given), table(sent?.includes("json") ? "JSON" : "Form fields", fields(body?.schema, whole)),
    table(`Answer: ${kind(answer, whole)}`, fields(answer, whole)), table("Refusals", problems));
}

async function start() {
  const whole = await (await fetch("/openapi.json")).json();
  const { models } = await (await fetch("/api/catalog")).json();
  document.getElementById("about").textContent = whole.info.description;
  const example = [
    `curl ${location.origin}/api/search -F text="red shoes" -F k=5 -F picture=@shoe.jpg -F mix=0.3`,
    `curl ${location.origin}/api/searches --json '{"searches": [{"text": "red shoes"}, {"text": "blue bag", "k": 3}]}'`,
    `curl ${location.origin}/v1/embeddings --json '{"model": "${models.at(-1)}", "input": ["red shoes", "blue bag"]}'`,
  ].join("\n");
  const calls = Object.entries(whole.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => call(path, method, one, whole)));
  const shapes = Object.keys(whole.components.schemas).filter((name) => !/^Body_|Refusal|ValidationError/.test(name))
    .map((name) => table(`${name}: ${whole.components.schemas[name].description}`, fields(whole.components.schemas[name], whole)));
  document.getElementById("calls").append(element("pre", { tabindex: 0 }, element("code", { text: example })), ...calls,
    element("section", { class: "call" }, element("h2", { text: "Shapes" }), ...shapes));
}

start();
