"use strict";
// One search in full: the first results of two models side by side.

function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value > 0 ? "+" : "−") + text;
}

function direction(change) {
  return change > 0 ? "better" : change < 0 ? "worse" : "same";
}

const ARROW = { better: "▲ ", worse: "▼ ", same: "= ", unsure: "? " };
const shown = { side: 1 }; // of two models, the one that a narrow screen shows

function picturesOf(data, items) {
  return items.some((item) => data.products[item[0]][2] >= 0);
}

function frame(data, product, place) {
  const [, , picture] = product;
  const inside = picture >= 0
    ? element("img", { src: data.pictures[picture], alt: "", decoding: "async", width: 96, height: 96 })
    : element("span", { class: "nothing", text: "no picture" });
  return element("span", { class: "frame" }, inside, place ? element("span", { class: "place", text: place }) : null);
}

function mark(relevance, highest) {
  if (relevance === null) return ["unjudged", "? not judged"];
  if (relevance === "twin") return ["unjudged", "? not judged, same as a relevant one"];
  if (relevance > 0) return ["relevant", highest ? `✓ relevant, ${Number(relevance.toPrecision(4))} of ${Number(highest.toPrecision(4))}` : "✓ relevant"];
  return ["wrong", "✗ not relevant"];
}

// A result names what it is: data-task, data-query, data-document, and data-grade: its relevance or "not judged".
function named(data, row, product, relevance) {
  const grade = relevance === null || relevance === "twin" ? "not judged" : String(relevance);
  return { "data-task": data.names[row[0]], "data-query": row[2], "data-document": product[1], "data-grade": grade };
}

function resultCard(data, row, view, result, place, moved, pictured) {
  const [number, score, relevance, , twin, kind] = result;
  const [look, word] = mark(relevance, view.highest);
  const same = kind === "content" ? `same product data as ${twin}` : `same title as ${twin}`;
  return element("li", { class: `card ${look}`, ...named(data, row, data.products[number], relevance) },
    pictured ? frame(data, data.products[number], place) : element("span", { class: "place plain", text: place }),
    element("span", { class: "mark", text: word }),
    element("span", { class: "name", dir: "auto", text: data.products[number][0], title: data.products[number][0] }),
    twin ? element("small", { class: "twin", text: same }) : null,
    moved ? element("small", { text: moved }) : null,
    element("small", { text: `score ${score.toFixed(3)}` }));
}

function missedCard(data, row, view, [number, relevance, places], pair, pictured) {
  const where = pair.map((model) => `${data.labels[model]}: ${places[model] ? "place " + places[model] : "not found"}`);
  return element("li", { class: "card relevant", ...named(data, row, data.products[number], relevance) },
    pictured ? frame(data, data.products[number]) : null,
    element("span", { class: "mark", text: mark(relevance, view.highest)[1] }),
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

// On a narrow screen one model at a time: two buttons choose it, for every search.
function chooser(data, pair) {
  const buttons = pair.map((model, side) => element("button", {
    class: "plain-button", type: "button", text: data.labels[model], "aria-pressed": String(shown.side === side),
    on: { click: () => {
      shown.side = side;
      document.querySelectorAll(".sides").forEach((sides) => { sides.dataset.shown = side; });
      document.querySelectorAll(".chooser").forEach((one) => [...one.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === side))));
    } },
  }));
  return element("div", { class: "chooser", role: "group", "aria-label": "Model shown" }, ...buttons);
}

// pair: the models compared, [base, other], or [only one].
function fullView(data, row, pair, tools) {
  const [, , , index, values] = row;
  const figures = (model) => data.metrics.map((metric, m) => `${metric} ${values[model][m].toFixed(3)}`).join(" · ");
  if (index < 0) {
    const why = `Its results are not in this file, which shows ${data.details.length.toLocaleString("en")} of ${data.total.toLocaleString("en")} searches in full: to see them, open the search page (gcl search), or look into tasks/ of the run.`;
    return [element("p", {}, why, tools), element("p", { text: pair.map((model) => `${data.labels[model]}: ${figures(model)}`).join("; ") })];
  }
  const view = data.details[index];
  const pictured = picturesOf(data, pair.flatMap((model) => view.lists[model]));
  const look = pictured ? "cards" : "cards plain";
  const sides = pair.map((model, side) => element("section", { "aria-label": `Results of ${data.labels[model]}` },
    element("h3", {}, data.labels[model], element("span", { text: figures(model) })),
    view.lists[model].length
      ? element("ol", { class: look }, ...view.lists[model].map((result, i) =>
          resultCard(data, row, view, result, i + 1, pair.length > 1 ? movement(result[3], model, pair[1 - side]) : "", pictured)))
      : element("p", { text: "Nothing was found." })));
  const missed = view.missed.length
    ? element("div", { class: "missed" },
        element("h3", { text: `Relevant, but not among the first ${data.top}` + (view.missed_count > view.missed.length ? ` (${view.missed.length} of ${view.missed_count})` : "") }),
        element("ul", { class: look }, ...view.missed.map((entry) => missedCard(data, row, view, entry, pair, pictured))))
    : null;
  return [element("p", {}, story(data, view, pair), tools), pair.length > 1 ? chooser(data, pair) : null,
    element("div", { class: "sides", "data-shown": pair.length > 1 ? shown.side : null }, ...sides), missed].filter(Boolean);
}
