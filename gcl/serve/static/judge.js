"use strict";
// One pair of search and product after the other; what the server has answered is on its disk.

const $ = (id) => document.getElementById(id);
const KEPT = "gcl judge: name";
let judge = localStorage.getItem(KEPT) ?? "";
let pair = null;
let busy = false;

// spoken: what a screen reader says besides, and others see below.
function say(text, { trouble = false, spoken = "" } = {}) {
  $("status").replaceChildren(text, element("span", { class: "hidden", text: spoken }));
  $("status").classList.toggle("trouble", trouble);
}

async function ask(path, body) {
  if (busy) return null;
  busy = true;
  try {
    const response = await fetch(path, body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const answer = await response.json();
    if (response.ok) return answer;
    say(answer.detail, { trouble: true });
  } catch {
    say("The server does not answer, and nothing was kept of this. Is gcl judge still running?", { trouble: true });
  } finally {
    busy = false;
  }
  return null;
}

async function next(said = "") {
  const state = await ask("/api/next?" + new URLSearchParams({ judge }));
  if (state) show(state, said);
}

async function grade(value) {
  if (!pair) return;
  const state = await ask("/api/judge", { judge, pair: pair.key, grade: value });
  if (state) show(state, value === null ? "Skipped." : `Graded ${value}, ${state.grades[value]}.`);
}

async function undo() {
  const state = await ask("/api/undo", { judge });
  if (state) show(state, state.undone ? "Taken back: grade it again." : "There is nothing of yours to take back.");
}

function show(state, said) {
  const { progress, grades } = state;
  const percent = progress.pool ? Math.floor(100 * progress.graded / progress.pool) : 100;
  const agreement = progress.alpha === null ? "" : `, agreement ${progress.alpha.toFixed(2)} on ${progress.twice} graded by several`;
  const judges = Object.keys(progress.judges).length;
  document.title = `Judging ${state.catalog}`;
  $("catalog").textContent = `Judging ${state.catalog}`;
  $("progress").textContent = `${progress.graded.toLocaleString("en")} of ${progress.pool.toLocaleString("en")} graded (${percent} %), ${progress.mine.toLocaleString("en")} by you${judges > 1 ? `, ${judges} judges` : ""}${agreement}`;
  $("change").textContent = `I am not ${judge}`;
  $("change").hidden = false;
  if (!$("grades").children.length) {
    $("grades").replaceChildren(...grades.map((word, value) =>
      element("button", { type: "button", class: "plain-button", "aria-keyshortcuts": value, on: { click: () => grade(value) } },
        element("kbd", { text: value }), element("span", { text: word }))));
  }
  pair = state.pair;
  $("pair").hidden = !pair;
  if (!pair) {
    say(`${said} Nothing is left for you to judge. Thank you.`.trim());
    return;
  }
  const same = $("search").dataset.key === JSON.stringify(pair.key.slice(0, 2));
  $("search").dataset.key = JSON.stringify(pair.key.slice(0, 2));
  $("place").textContent = `Product ${pair.place} of ${pair.of} of this search`;
  $("search").replaceChildren(...[pair.search_picture && element("img", { src: pair.search_picture, alt: "the picture searched with" }), pair.search].filter(Boolean));
  $("picture").replaceChildren(pair.picture ? element("img", { src: pair.picture, alt: "the product" }) : element("span", { class: "nothing", text: "no picture" }));
  $("title").textContent = pair.title;
  $("fields").replaceChildren(...pair.fields.filter(([, text]) => text !== pair.title)
    .flatMap(([name, text]) => [element("dt", { text: name }), element("dd", { text, dir: "auto" })]));
  say(said, { spoken: ` ${same ? "" : `Search: ${pair.search || "a picture"}. `}Product: ${pair.title}` });
  $("pair").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function named() {
  $("naming").hidden = Boolean(judge);
  if (judge) next();
  else $("name").focus();
}

$("naming").addEventListener("submit", (event) => {
  event.preventDefault();
  judge = $("name").value.trim();
  if (judge) localStorage.setItem(KEPT, judge);
  named();
});
$("change").addEventListener("click", () => {
  judge = "";
  pair = null;
  localStorage.removeItem(KEPT);
  $("pair").hidden = $("change").hidden = true;
  say("");
  named();
});
$("skip").addEventListener("click", () => grade(null));
$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (!pair || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.activeElement !== document.body && !$("pair").contains(document.activeElement)) return;
  const key = event.key.toLowerCase();
  if (key >= "0" && key <= "4" && key.length === 1) grade(Number(key));
  else if (key === "s") grade(null);
  else if (key === "u") undo();
});
named();
