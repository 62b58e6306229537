"use strict";
// One search in full: the first results of two models side by side.

function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value > 0 ? "+" : "−") + text;
}

function direction(change) {
  return change > 0 ? "better" : change < 0 ? "worse" : "same";
}

const ARROW = { better: "▲ ", worse: "▼ ", same: "= " };

function frame(data, product, place) {
  const [, , picture] = product;
  const inside = picture >= 0
    ? element("img", { src: data.pictures[picture], alt: "", decoding: "async", width: 96, height: 96 })
    : element("span", { class: "nothing", text: "no picture" });
  return element("span", { class: "frame" }, inside, place ? element("span", { class: "place", text: place }) : null);
}

function mark(relevance, graded) {
  if (relevance === null) return ["unjudged", "? not judged"];
  if (relevance === "twin") return ["unjudged", "? not judged, same as a relevant one"];
  if (relevance > 0) return ["relevant", graded ? `✓ relevant, ${Number(relevance.toPrecision(4))}` : "✓ relevant"];
  return ["wrong", "✗ not relevant"];
}

function resultCard(data, view, result, place, moved) {
  const [number, score, relevance, , twin, kind] = result;
  const [look, word] = mark(relevance, view.graded);
  const same = kind === "content" ? `same product data as ${twin}` : `same title as ${twin}`;
  return element("li", { class: `card ${look}` },
    frame(data, data.products[number], place),
    element("span", { class: "mark", text: word }),
    element("span", { class: "name", dir: "auto", text: data.products[number][0], title: data.products[number][0] }),
    twin ? element("small", { class: "twin", text: same }) : null,
    moved ? element("small", { text: moved }) : null,
    element("small", { text: `score ${score.toFixed(3)}` }));
}

function missedCard(data, view, [number, relevance, places], pair) {
  const where = pair.map((model) => `${data.labels[model]}: ${places[model] ? "place " + places[model] : "not found"}`);
  return element("li", { class: "card relevant" },
    frame(data, data.products[number]),
    element("span", { class: "mark", text: mark(relevance, view.graded)[1] }),
    element("span", { class: "name", dir: "auto", text: data.products[number][0] }),
    ...where.map((text) => element("small", { text })));
}

// Where the other model has it; the base is what was, the other what is now.
function movement(places, here, there) {
  const before = there < here;
  if (!places[there]) return before ? "not found before" : "no longer found";
  return places[there] === places[here] ? "" : `${before ? "was" : "now"} place ${places[there]}`;
}

function story(data, view, pair) {
  const hits = pair.map((model) => view.lists[model].filter((result) => result[2] !== null && result[2] !== "twin" && result[2] > 0).length);
  const total = view.relevant + view.outside;
  const shown = pair.map((model, i) => `${data.labels[model]} shows ${hits[i]}`).join(", ");
  const outside = view.outside ? ` ${view.outside} of them ${view.outside === 1 ? "is" : "are"} not in this catalog.` : "";
  return `${total.toLocaleString("en")} relevant ${total === 1 ? "product is" : "products are"} known.${outside} Among the first ${data.top}, ${shown}.`;
}

// pair: the models compared, [base, other], or [only one].
function fullView(data, row, pair) {
  const [, , , index, values] = row;
  const figures = (model) => data.metrics.map((metric, m) => `${metric.replace("ndcg", "nDCG")} ${values[model][m].toFixed(3)}`).join(" · ");
  if (index < 0) {
    const why = `Results are embedded for ${data.details.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} searches; not for this one.`;
    return [element("p", { text: why }), element("p", { text: pair.map((model) => `${data.labels[model]}: ${figures(model)}`).join("; ") })];
  }
  const view = data.details[index];
  const sides = pair.map((model, side) => element("section", { "aria-label": `Results of ${data.labels[model]}` },
    element("h3", {}, data.labels[model], element("span", { text: figures(model) })),
    view.lists[model].length
      ? element("ol", { class: "cards" }, ...view.lists[model].map((result, i) =>
          resultCard(data, view, result, i + 1, pair.length > 1 ? movement(result[3], model, pair[1 - side]) : "")))
      : element("p", { text: "Nothing was found." })));
  const missed = view.missed.length
    ? element("div", { class: "missed" },
        element("h3", { text: `Relevant, but not among the first ${data.top}` + (view.missed_count > view.missed.length ? ` (${view.missed.length} of ${view.missed_count})` : "") }),
        element("ul", { class: "cards" }, ...view.missed.map((entry) => missedCard(data, view, entry, pair))))
    : null;
  return [element("p", { text: story(data, view, pair) }), element("div", { class: "sides" }, ...sides), ...(missed ? [missed] : [])];
}
