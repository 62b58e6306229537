"use strict";
// Grades for results that nobody judged: kept in this browser, by catalog and task, and saved as qrels.csv.

const OPEN = ".card[data-grade='not judged']";

function judging(root, data) {
  const place = (task) => `gcl judgments ${data.catalog} ${task}`;
  const memory = {}; // where the browser keeps nothing
  let kept = true;
  const undone = []; // [task, query, document, what it was before]

  // {query: {document: grade}} of a task, as it is now: another tab may have graded too.
  function read(task) {
    try {
      return JSON.parse(localStorage.getItem(place(task))) ?? memory[task] ?? {};
    } catch {
      return memory[task] ?? {};
    }
  }

  function write(task, grades) {
    memory[task] = grades;
    try {
      localStorage.setItem(place(task), JSON.stringify(grades));
    } catch {
      kept = false;
    }
  }

  const keyOf = (card) => [card.dataset.task, card.dataset.query, card.dataset.document];
  const graded = ([task, query, document_]) => read(task)[query]?.[document_];
  const all = () => data.names.flatMap((task) => Object.entries(read(task)).flatMap(([query, own]) =>
    Object.entries(own).map(([document_, grade]) => [task, query, document_, grade])));

  function grade(key, value, back = false) {
    const [task, query, document_] = key;
    const grades = read(task);
    if (!back) undone.push([key, grades[query]?.[document_]]);
    grades[query] ??= {};
    if (value === undefined) delete grades[query][document_];
    else grades[query][document_] = value;
    write(task, grades);
    root.querySelectorAll(OPEN).forEach((card) => { if (keyOf(card).join("\n") === key.join("\n")) paint(card); });
    tell(value === undefined ? "Taken back. " : `Graded ${value}, ${data.grades[value]}. `);
  }

  function undo() {
    const last = undone.pop();
    if (!last) return;
    grade(last[0], last[1], true);
    const card = [...root.querySelectorAll(OPEN)].find((one) => keyOf(one).join("\n") === last[0].join("\n") && one.offsetParent);
    card?.querySelector("[tabindex='0']")?.focus();
  }

  // One stop of the Tab key for a card; arrows move among its grades.
  function paint(card) {
    const now = graded(keyOf(card));
    const name = card.querySelector(".name").textContent;
    let group = card.querySelector(".grades");
    if (!group) {
      card.dataset.said = card.querySelector(".mark").textContent;
      group = element("span", { class: "grades", role: "radiogroup", "aria-label": `Grade of ${name}` },
        ...data.grades.map((word, value) => element("button", {
          type: "button", role: "radio", text: value, title: word, "aria-label": `${value}, ${word}`,
          on: { click: () => grade(keyOf(card), value) },
        })));
      card.append(group);
    }
    [...group.children].forEach((button, value) => {
      button.setAttribute("aria-checked", String(now === value));
      button.tabIndex = value === (now ?? 0) ? 0 : -1;
    });
    card.classList.toggle("graded", now !== undefined);
    card.querySelector(".mark").textContent = now === undefined ? card.dataset.said : `you: ${now}, ${data.grades[now]}`;
  }

  function following(card) {
    const cards = [...card.closest(".view").querySelectorAll(OPEN)].filter((one) => one.offsetParent);
    const after = [...cards.slice(cards.indexOf(card) + 1), ...cards];
    return after.find((one) => graded(keyOf(one)) === undefined) ?? card;
  }

  root.addEventListener("keydown", (event) => {
    const card = event.target.closest(OPEN);
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = [...card.querySelectorAll(".grades button")];
    const here = buttons.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (/^[0-9]$/.test(event.key) && Number(event.key) < buttons.length) {
      grade(keyOf(card), Number(event.key));
      following(card).querySelector(".grades [tabindex='0']").focus();
    } else if (step && here >= 0) {
      buttons[(here + step + buttons.length) % buttons.length].focus();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (graded(keyOf(card)) !== undefined) grade(keyOf(card), undefined);
    } else if (event.key === "u") {
      undo();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });

  const status = element("p", { class: "status", role: "status" });
  const save = element("button", { class: "plain-button", type: "button", text: "Download qrels.csv", on: { click: () =>
    download("qrels.csv", [["task", "query_id", "product_id", "grade"], ...all()]) } });
  const back = element("button", { class: "plain-button", type: "button", text: "Undo", on: { click: undo } });

  function tell(said = "") {
    const lines = all();
    const searches = new Set(lines.map(([task, query]) => `${task}\n${query}`)).size;
    const count = (n, word, plural) => `${n.toLocaleString("en")} ${n === 1 ? word : plural}`;
    status.textContent = said + (lines.length
      ? `${count(lines.length, "result", "results")} of ${count(searches, "search", "searches")} graded here, ${kept ? "kept in this browser" : "kept until this page is closed"}. Measure with them: gcl evaluate … judgments=qrels.csv`
      : `Results that are “not judged” can be graded: choose one and press 0 (${data.grades[0]}) to ${data.grades.length - 1} (${data.grades.at(-1)}).`);
    save.hidden = !lines.length;
    back.hidden = !undone.length;
  }

  new MutationObserver(() => root.querySelectorAll(`${OPEN}:not(:has(.grades))`).forEach(paint)).observe(root, { childList: true, subtree: true });
  root.querySelectorAll(OPEN).forEach(paint);
  root.querySelector(".list").before(element("div", { class: "bar judged" }, status, back, save));
  addEventListener("storage", () => { root.querySelectorAll(OPEN).forEach(paint); tell(); });
  tell();
}

const open = (result) => result[2] === null || result[2] === "twin";
if (report.details.some((view) => view.lists.some((list) => list.some(open)))) judging(document.getElementById("browser"), report);
