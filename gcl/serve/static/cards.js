"use strict";
// What is shown of products: the lists of the models with their difference marked, and one product in full.

function lists(models, shown, act) {
  return element("div", { class: "sides" }, ...models.filter(({ model }) => shown.includes(model)).map((one) => {
    const marks = differences(one, models);
    return element("section", { "aria-label": `Results of ${one.model}` },
      element("h2", { text: one.model, dir: "auto" }),
      marks.words ? element("p", { class: "soft", text: marks.words }) : null,
      element("ol", { class: "cards" }, ...one.results.map((product) => card(product, marks.of(product), act))));
  }));
}

// Against the first model. The smaller group is marked: what both find, or what this one alone finds.
function differences({ model, results }, models) {
  const first = models[0].model;
  if (models.length < 2 || !results.length) return { words: "", of: () => "" };
  if (model === first) return { words: "What the others are compared with.", of: () => "" };
  const common = results.filter((product) => product.places[first]).length;
  const alone = results.length - common;
  if (!alone) return { words: `The same products as ${first}’s.`, of: () => "" };
  if (!common) return { words: `None of these is among ${first}’s.`, of: () => "" };
  const words = `${common} of ${results.length} also found by ${first};`;
  if (alone <= common) return { words: `${words} the rest is marked.`, of: (product) => product.places[first] ? "" : `not with ${first}` };
  return { words: `${words} marked.`, of: (product) => product.places[first] ? `${first}: place ${product.places[first]}` : "" };
}

function card(product, mark, act) {
  const inside = product.picture
    ? element("img", { src: product.picture, alt: "", loading: "lazy" })
    : element("span", { class: "nothing", text: "no picture" });
  return element("li", { class: "card" },
    element("span", { class: "frame" }, inside, element("span", { class: "place", text: product.place }),
      product.pictures > 1 ? element("span", { class: "several", text: `${product.pictures} pictures` }) : null),
    element("button", { type: "button", class: "name", dir: "auto", text: product.title, on: { click: () => act.open(product.id) } }),
    mark ? element("small", { class: "mark", text: mark }) : null,
    element("button", { type: "button", class: "like", title: "More like this", "aria-label": `More like ${product.title}`, text: "≈",
      on: { click: () => act.like(product.id) } }));
}

// product: of /api/products; found: [model, place, score] of the lists that have it.
function inFull(product, found, act) {
  const rows = [...Object.entries(product.texts), ...Object.entries(product.columns), ["id", product.id],
    ...found.map(([model, place, score]) => [model, `place ${place}, similarity ${score.toFixed(2)}`])];
  return [
    element("h2", { id: "product-title", dir: "auto", text: product.title, tabindex: "-1" }),
    product.pictures.length ? element("div", { class: "pictures" }, ...product.pictures.map((address, number) =>
      element("img", { src: `${address}&large=true`, alt: `Picture ${number + 1} of ${product.pictures.length}`, loading: "lazy" }))) : null,
    element("dl", {}, ...rows.flatMap(([name, text]) => [element("dt", { text: name, dir: "auto" }), element("dd", { text, dir: "auto" })])),
    element("div", { class: "buttons" },
      element("button", { type: "button", class: "plain-button", text: "More like this", on: { click: () => act.like(product.id) } }),
      product.link ? element("a", { href: product.link, rel: "noopener noreferrer", target: "_blank", text: "Its page in the shop" }) : null,
      element("button", { type: "button", class: "plain-button", text: "Close", on: { click: act.close } })),
  ].filter(Boolean);
}

// A column to filter by. set(value): a list of values, { from, to }, or null.
function facet(name, about, value, set) {
  const count = element("span", { class: "soft", text: value ? " (on)" : "" });
  const inside = about.values ? choices(about.values, value ?? [], set) : range(name, about, value ?? {}, set);
  return element("details", { class: "facet", open: Boolean(value) }, element("summary", { dir: "auto" }, name, count), inside);
}

function choices(values, chosen, set) {
  const boxes = Object.entries(values).map(([text, count]) => {
    const box = element("input", { type: "checkbox", value: text, checked: chosen.includes(text) });
    return element("label", {}, box, element("span", { text, dir: "auto" }), element("small", { text: count.toLocaleString("en") }));
  });
  const list = element("div", { class: "choices" }, ...boxes);
  list.addEventListener("change", () => {
    const now = [...list.querySelectorAll("input:checked")].map((box) => box.value);
    set(now.length ? now : null);
  });
  return list;
}

function range(name, { least, most }, ends, set) {
  const inputs = Object.fromEntries(["from", "to"].map((end) => [end, element("input", {
    type: "number", step: "any", "aria-label": `${name} ${end}`, placeholder: end === "from" ? least : most, value: ends[end] })]));
  const box = element("div", { class: "range" }, "from", inputs.from, "to", inputs.to);
  box.addEventListener("input", () => {
    const now = Object.fromEntries(Object.entries(inputs).filter(([, input]) => input.value !== "").map(([end, input]) => [end, Number(input.value)]));
    set(Object.keys(now).length ? now : null);
  });
  return box;
}
