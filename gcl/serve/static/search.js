"use strict";
// Search as one types, drops a picture, or moves a field's weight; the last request is the one that counts.

const $ = (id) => document.getElementById(id);
const state = { picture: null, weights: {}, trained: {}, running: null, timer: 0, preview: "" };

function say(text, trouble = false) {
  $("status").textContent = text;
  $("status").classList.toggle("trouble", trouble);
}

function later(wait) {
  clearTimeout(state.timer);
  state.timer = setTimeout(search, wait);
}

async function search() {
  const text = $("text").value.trim();
  history.replaceState(null, "", text ? "?" + new URLSearchParams({ q: text }) : location.pathname);
  state.running?.abort();
  if (!text && !state.picture) {
    $("results").replaceChildren();
    say("Type what a shopper would type, or drop a picture anywhere on this page.");
    return;
  }
  if (!Object.values(state.weights).some((weight) => weight > 0)) {
    refuse("All weights are 0: give at least one field a weight.");
    return;
  }
  const body = new FormData();
  if (text) body.set("text", text);
  if (state.picture) body.set("picture", state.picture);
  body.set("weights", JSON.stringify(state.weights));
  state.running = new AbortController();
  $("results").classList.add("waiting");
  try {
    const response = await fetch("/api/search", { method: "POST", body, signal: state.running.signal });
    const answer = await response.json();
    if (response.ok) show(answer);
    else refuse(answer.detail);
  } catch (error) {
    if (error.name === "AbortError") return;
    refuse("The server does not answer. Is gcl search still running?");
  }
  $("results").classList.remove("waiting");
}

function refuse(sentence) {
  $("results").replaceChildren();
  say(sentence, true);
}

function show({ models, milliseconds }) {
  $("results").replaceChildren(element("div", { class: "sides" }, ...models.map((one, side) => results(one, models, side))));
  const [first, last] = [models[0], models.at(-1)];
  const common = first.results.filter((product) => product.places[last.model]).length;
  const shared = models.length > 1 ? ` ${common} of ${first.results.length} results are common to ${first.model} and ${last.model}; the others are framed in blue and marked “only here”.` : "";
  say(first.results.length ? `Found in ${Math.round(milliseconds)} ms.${shared}` : "No product has a field that counts. Give another field a weight.");
}

function results({ model, results: products }, models, side) {
  const other = models.length > 1 ? models[side === 0 ? models.length - 1 : 0].model : null;
  return element("section", { "aria-label": `Results of ${model}` },
    element("h2", { text: model, dir: "auto" }),
    element("ol", { class: "cards" }, ...products.map((product) => card(product, other))));
}

function card(product, other) {
  const there = other === null ? 0 : product.places[other];
  const own = other !== null && !there;
  const moved = own ? "only here" : other !== null && there !== product.place ? `place ${there} with ${other}` : "";
  const inside = product.picture
    ? element("img", { src: product.picture, alt: "", loading: "lazy" })
    : element("span", { class: "nothing", text: "no picture" });
  return element("li", { class: own ? "card own" : "card" },
    element("span", { class: "frame" }, inside, element("span", { class: "place", text: product.place })),
    element("span", { class: "name", dir: "auto", text: product.title, title: product.title }),
    moved ? element("small", { class: own ? "moved" : "", text: moved }) : null,
    element("small", { text: `score ${product.score.toFixed(3)}` }));
}

function slider(name, weight, most) {
  const control = element("input", { type: "range", id: `weight-${name}`, min: 0, max: most, step: most / 20 });
  const shown = element("span", { "aria-hidden": "true" });
  const set = (value, quiet) => {
    state.weights[name] = value;
    control.value = value;
    shown.textContent = Number(value.toFixed(3));
    control.setAttribute("aria-valuetext", shown.textContent);
    if (!quiet) later(60);
  };
  control.addEventListener("input", () => set(Number(control.value)));
  set(weight, true);
  state.trained[name] = () => set(weight);
  return element("div", { class: "weight" }, element("label", { text: name, for: control.id }), shown, control);
}

function choosePicture(file) {
  if (state.preview) URL.revokeObjectURL(state.preview);
  state.picture = file;
  state.preview = file ? URL.createObjectURL(file) : "";
  $("chosen").hidden = !file;
  if (file) $("preview").src = state.preview;
  else $("preview").removeAttribute("src");
  if (!file) $("picture").value = "";
  later(0);
}

function takeFiles(files) {
  if (files.length) choosePicture(files[0]);
}

async function start() {
  const catalog = await (await fetch("/api/catalog")).json();
  document.title = `Search ${catalog.name}`;
  $("name").textContent = catalog.name;
  $("about").textContent = `${catalog.products.toLocaleString("en")} products, searched with ${catalog.models.join(" and ")}`;
  const fields = Object.entries(catalog.fields);
  const most = Math.max(1, ...fields.map(([, field]) => field.weight));
  $("sliders").replaceChildren(...fields.map(([name, field]) => slider(name, field.weight, most)));
  $("weights").hidden = fields.length < 2;
  $("text-field").hidden = !catalog.text;
  $("picture-field").hidden = !catalog.picture;
  $("form").addEventListener("submit", (event) => { event.preventDefault(); later(0); });
  $("text").addEventListener("input", () => later(250));
  $("picture").addEventListener("change", () => takeFiles($("picture").files));
  $("remove").addEventListener("click", () => { choosePicture(null); $("text").focus(); });
  $("reset").addEventListener("click", () => Object.values(state.trained).forEach((reset) => reset()));
  if (catalog.picture) {
    document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); takeFiles(event.dataTransfer.files); });
    document.addEventListener("paste", (event) => takeFiles(event.clipboardData.files));
  }
  const asked = new URLSearchParams(location.search).get("q");
  if (asked) { $("text").value = asked; later(0); }
}

start();
