"use strict";
// Search as one types, drops a picture, or moves a slider; the last request is the one that counts. The address says
// everything but a picture of one's own, which only this tab keeps.

const $ = (id) => document.getElementById(id);
const START = "Type what a shopper would type, or drop a picture anywhere on this page.";
const state = { text: "", picture: null, like: "", mix: null, weights: {}, filters: {}, shown: [], product: "" };
const pictures = []; // of this tab, by the number in the history
const last = { kind: "", time: 0, answer: null, running: null, timer: 0, preview: "", like: null };
let catalog;

function say(text, trouble = false) {
  $("status").textContent = text;
  $("status").classList.toggle("trouble", trouble);
}

// The address of this state; what is as it comes is left out.
function address() {
  const given = new URLSearchParams();
  if (state.text) given.set("q", state.text);
  if (state.like) given.set("like", state.like);
  if (state.mix !== null && state.mix !== catalog.mix) given.set("mix", state.mix);
  for (const [name, weight] of Object.entries(state.weights)) if (weight !== catalog.fields[name].weight) given.set(`w.${name}`, weight);
  for (const [name, wanted] of Object.entries(state.filters)) {
    if (Array.isArray(wanted)) wanted.forEach((value) => given.append(`f.${name}`, value));
    else given.set(`f.${name}`, `${wanted.from ?? ""}..${wanted.to ?? ""}`);
  }
  if (state.shown.join("\n") !== usual().join("\n")) state.shown.forEach((model) => given.append("show", model));
  if (state.product) given.set("product", state.product);
  const text = given.toString();
  return text ? `?${text}` : location.pathname;
}

function readAddress() {
  const given = new URLSearchParams(location.search);
  const number = (text) => text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
  Object.assign(state, { text: given.get("q") ?? "", like: given.get("like") ?? "", mix: number(given.get("mix")), product: given.get("product") ?? "" });
  state.picture = pictures[history.state?.picture] ?? null;
  state.weights = Object.fromEntries(Object.entries(catalog.fields).map(([name, field]) => [name, number(given.get(`w.${name}`)) ?? field.weight]));
  state.filters = {};
  for (const [name, about] of Object.entries(catalog.filters)) {
    const wanted = given.getAll(`f.${name}`);
    if (!wanted.length) continue;
    const ends = wanted[0].split("..").map(number);
    const range = Object.fromEntries([["from", ends[0]], ["to", ends[1]]].filter(([, end]) => end !== null && end !== undefined));
    if (about.values) state.filters[name] = wanted;
    else if (Object.keys(range).length) state.filters[name] = range;
  }
  state.shown = given.getAll("show").filter((model) => catalog.models.includes(model));
  if (!state.shown.length) state.shown = usual();
  showControls();
}

const narrow = matchMedia("(max-width: 40rem)");

function usual() {
  if (narrow.matches) return [catalog.models[1] ?? catalog.models[0]];
  return catalog.models.slice(0, catalog.models.length > 3 ? 2 : 3);
}

// One entry of the history for each thing done; going on typing or sliding is the same thing.
function remember(kind) {
  const now = Date.now();
  const goesOn = kind === last.kind && kind !== "step" && now - last.time < 2000;
  const picture = state.picture ? pictures.indexOf(state.picture) : undefined;
  history[goesOn ? "replaceState" : "pushState"]({ picture }, "", address());
  Object.assign(last, { kind, time: now });
}

function later(wait, kind) {
  if (kind) remember(kind);
  clearTimeout(last.timer);
  last.timer = setTimeout(search, wait);
}

async function search() {
  last.running?.abort();
  showChosen();
  if (!state.text.trim() && !state.picture && !state.like) {
    const lost = history.state?.picture !== undefined && !pictures.length;
    return refuse(lost ? "A picture is no part of an address: choose it again." : START, false);
  }
  if (!Object.values(state.weights).some((weight) => weight > 0)) return refuse("All weights are 0: give at least one field a weight.");
  const body = new FormData();
  const given = { text: state.text, picture: state.picture, like: state.like, mix: state.mix };
  Object.entries(given).forEach(([name, value]) => { if (value !== null && value !== "") body.set(name, value); });
  body.set("weights", JSON.stringify(state.weights));
  body.set("filters", JSON.stringify(state.filters));
  last.running = new AbortController();
  $("results").classList.add("waiting");
  try {
    const response = await fetch("/api/search", { method: "POST", body, signal: last.running.signal });
    const answer = await response.json();
    if (response.ok) show(answer);
    else refuse(answer.detail);
  } catch (error) {
    if (error.name === "AbortError") return;
    refuse("The server does not answer. Is gcl search still running?");
  }
  $("results").classList.remove("waiting");
}

function refuse(sentence, trouble = true) {
  last.answer = null;
  $("results").replaceChildren();
  $("results").classList.remove("waiting");
  say(sentence, trouble);
}

const act = {
  open: (id) => { state.product = id; remember("step"); showProduct(); },
  close: () => { state.product = ""; remember("step"); showProduct(); },
  like: (id) => {
    Object.assign(state, { like: id, picture: null, product: "", text: "" });
    showControls();
    showProduct();
    later(0, "step");
    scrollTo({ top: 0 });
  },
};

function show(answer) {
  last.answer = answer;
  $("results").replaceChildren(lists(answer.models, state.shown, act));
  const found = answer.models[0].results.length;
  const why = Object.keys(state.filters).length ? "No product passes these filters." : "No product has a field that counts. Give another field a weight.";
  say(found ? `Found in ${Math.round(answer.milliseconds)} ms.` : why);
}

function product(id) {
  return fetch(`/api/products/${id.split("/").map(encodeURIComponent).join("/")}`);
}

async function showProduct() {
  if (!state.product) return $("product").close();
  const response = await product(state.product);
  const whole = await response.json();
  if (!response.ok) return say(whole.detail, true);
  const found = (last.answer?.models ?? []).flatMap(({ model, results }) =>
    results.filter((one) => one.id === whole.id).map((one) => [model, one.place, one.score]));
  $("product").replaceChildren(...inFull(whole, found, act));
  if (!$("product").open) $("product").showModal();
  $("product-title").focus();
}

function mixWords(share, other) {
  const percent = Math.round(100 * share);
  if (percent === 0) return `Only the words count, not the ${other}.`;
  if (percent === 100) return `Only the ${other} counts, not the words.`;
  if (percent === 50) return `Words and ${other} count the same: first come products that are near to both.`;
  return percent < 50 ? `The words count more (${100 - percent} %) than the ${other} (${percent} %).`
    : `The ${other} counts more (${percent} %) than the words (${100 - percent} %).`;
}

// What is searched with besides the words, and in which share.
function showChosen() {
  const other = state.like ? "product" : "picture";
  $("chosen").hidden = !state.picture && !state.like;
  $("chosen-name").textContent = state.like ? `Like ${last.like?.id === state.like ? last.like.title : state.like}` : state.picture?.name ?? "";
  $("mixing").hidden = $("chosen").hidden || !state.text.trim();
  $("mix").value = state.mix ?? catalog.mix;
  $("mix-other").textContent = state.like ? "Product" : "Picture";
  $("mix-says").textContent = mixWords(state.mix ?? catalog.mix, other);
  $("mix").setAttribute("aria-valuetext", $("mix-says").textContent);
}

async function showPreview() {
  if (last.preview) URL.revokeObjectURL(last.preview);
  last.preview = state.picture ? URL.createObjectURL(state.picture) : "";
  $("preview").hidden = true;
  if (state.like && last.like?.id !== state.like) {
    const response = await product(state.like);
    last.like = response.ok ? await response.json() : null;
    showChosen();
  }
  const shown = state.like ? last.like?.pictures[0] : last.preview;
  if (!shown) return;
  $("preview").src = shown;
  await $("preview").decode().then(() => { $("preview").hidden = false; }, () => {}); // what is no picture is named only
}

function showControls() {
  $("text").value = state.text;
  if (!state.picture) $("picture").value = "";
  showChosen();
  showPreview();
  const fields = Object.entries(catalog.fields);
  const most = Math.max(1, ...fields.map(([name, field]) => Math.max(field.weight, state.weights[name])));
  $("sliders").replaceChildren(...fields.map(([name]) => slider(name, most)));
  $("facets").replaceChildren(...Object.entries(catalog.filters).map(([name, about]) => facet(name, about, state.filters[name], (wanted) => {
    if (wanted) state.filters[name] = wanted;
    else delete state.filters[name];
    count();
    later(250, `filter ${name}`);
  })));
  $("show").hidden = catalog.models.length < 2;
  $("show").replaceChildren(...catalog.models.map((model) => element("button", { type: "button", class: "plain-button", text: model, dir: "auto",
    "aria-pressed": String(state.shown.includes(model)), on: { click: () => choose(model) } })));
  count();
}

function count() {
  const filters = Object.keys(state.filters).length;
  const moved = Object.entries(state.weights).filter(([name, weight]) => weight !== catalog.fields[name].weight).length;
  const words = [moved ? `${moved} weight${moved > 1 ? "s" : ""} changed` : "", filters ? `${filters} filter${filters > 1 ? "s" : ""}` : ""].filter(Boolean);
  $("settings-say").textContent = words.length ? ` (${words.join(", ")})` : "";
  $("reset").hidden = !moved;
  $("clear").hidden = !filters;
}

// Side by side where there is room, one at a time on a phone.
function choose(model) {
  const others = state.shown.filter((one) => one !== model);
  if (narrow.matches) state.shown = [model];
  else state.shown = others.length === state.shown.length ? catalog.models.filter((one) => one === model || others.includes(one)) : others.length ? others : [model];
  remember("step");
  for (const button of $("show").children) button.setAttribute("aria-pressed", String(state.shown.includes(button.textContent)));
  if (last.answer) show(last.answer);
}

function slider(name, most) {
  const weight = state.weights[name];
  const shown = element("span", { "aria-hidden": "true", text: Number(weight.toFixed(3)) });
  const control = element("input", { type: "range", id: `weight-${name}`, min: 0, max: most, step: most / 20, value: weight, "aria-valuetext": Number(weight.toFixed(3)) });
  control.addEventListener("input", () => {
    state.weights[name] = Number(control.value);
    shown.textContent = Number(state.weights[name].toFixed(3));
    control.setAttribute("aria-valuetext", shown.textContent);
    count();
    later(60, `weight ${name}`);
  });
  return element("div", { class: "weight" }, element("label", { text: name, for: control.id }), shown, control);
}

function takePicture(file) {
  Object.assign(state, { picture: file ?? null, like: "" });
  if (file && !pictures.includes(file)) pictures.push(file);
  if (!file) $("picture").value = "";
  showPreview();
  later(0, "step");
}

function listen() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); later(0); });
  $("text").addEventListener("input", () => { state.text = $("text").value.trim(); later(250, "text"); });
  $("mix").addEventListener("input", () => { state.mix = Number($("mix").value); showChosen(); later(60, "mix"); });
  $("picture").addEventListener("change", () => { if ($("picture").files.length) takePicture($("picture").files[0]); });
  $("remove").addEventListener("click", () => { takePicture(null); $("text").focus(); });
  $("reset").addEventListener("click", () => {
    Object.entries(catalog.fields).forEach(([name, field]) => { state.weights[name] = field.weight; });
    showControls();
    later(0, "step");
  });
  $("clear").addEventListener("click", () => { state.filters = {}; showControls(); later(0, "step"); });
  $("product").addEventListener("close", () => { if (state.product) act.close(); });
  addEventListener("popstate", () => { last.kind = ""; readAddress(); later(0); showProduct(); });
  if (!catalog.picture) return;
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) takePicture(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) takePicture(event.clipboardData.files[0]); });
}

async function start() {
  catalog = await (await fetch("/api/catalog")).json();
  document.title = `Search ${catalog.name}`;
  $("name").textContent = catalog.name;
  $("about").textContent = `${catalog.products.toLocaleString("en")} products, searched with ${catalog.models.join(", ").replace(/, ([^,]*)$/, " and $1")}`;
  $("weights").hidden = Object.keys(catalog.fields).length < 2;
  $("by-query").hidden = !catalog.by_query.length;
  $("by-query").textContent = `Each search weighs these for itself (${catalog.by_query.join(", ")}), unless you move one.`;
  $("filters").hidden = !Object.keys(catalog.filters).length;
  $("settings").hidden = $("weights").hidden && $("filters").hidden;
  $("settings").open = matchMedia("(min-width: 64rem)").matches;
  $("text-field").hidden = !catalog.text;
  $("picture-field").hidden = !catalog.picture;
  listen();
  readAddress();
  await search();
  if (state.product) showProduct();
}

start();
