"use strict";
// The list of searches: filter, sort, pages, keys.

const PAGE = 50;

function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

function browser(root, data) {
  const several = data.labels.length > 1;
  const state = { text: "", task: -1, show: "all", sort: several ? "losses" : "low", model: data.labels.length - 1, metric: 0, page: 0 };
  const haystack = data.rows.map((row) => folded(`${row[1]} ${row[2]}`));
  const pair = () => (several ? [0, state.model] : [0]);
  const value = (row, model) => row[4][model][state.metric];
  const change = (row) => (several ? value(row, state.model) - value(row, 0) : 0);
  const unsure = (row) => several && row.length > 5 && Boolean((row[5][state.model - 1] >> state.metric) & 1);
  const kindOf = (row) => (unsure(row) ? "unsure" : direction(change(row)));
  const place = (row) => `#q=${encodeURIComponent(data.names[row[0]])}/${encodeURIComponent(row[2])}`;
  const anyUnsure = data.rows.some((row) => row.length > 5);
  const opened = new Set();
  let matching = [];

  const status = element("p", { class: "status", role: "status" });
  const list = element("ol", { class: "list", "aria-label": "Searches" });
  const back = element("button", { class: "plain-button", type: "button", text: "← Previous", on: { click: () => turn(-1) } });
  const on = element("button", { class: "plain-button", type: "button", text: "Next →", on: { click: () => turn(1) } });
  const where = element("span", { class: "status" });

  function select(name, options, key, number) {
    const control = element("select", { id: `choice-${key}`, on: { change: () => { state[key] = number ? Number(control.value) : control.value; state.page = 0; refresh(); } } },
      ...options.map(([word, text]) => element("option", { value: word, text, selected: String(state[key]) === String(word) })));
    return labelled(name, control);
  }

  const field = element("input", { id: "find", type: "search", placeholder: "words of a search", autocomplete: "off", spellcheck: "false",
    on: { input: () => { state.text = folded(field.value.trim()); state.page = 0; refresh(); },
          keydown: (event) => { if (event.key === "ArrowDown") { event.preventDefault(); focusRow(0); } } } });

  function tools() {
    const last = data.labels[state.model];
    const sorts = several
      ? [["losses", "Losses first"], ["gains", "Gains first"], ["low", `Lowest with ${last}`], ["name", "A to Z"]]
      : [["low", "Lowest first"], ["high", "Highest first"], ["name", "A to Z"]];
    const shows = [["all", "All"], ...(several ? [["worse", "Got worse"], ["better", "Got better"], ["same", "Stayed the same"], ...(anyUnsure ? [["unsure", "Cannot tell"]] : [])] : []), ["full", "Shown in full"]];
    return element("div", { class: "tools", role: "search" },
      labelled("Find a search", field),
      select("Show", shows, "show"),
      select("Order", sorts, "sort"),
      data.tasks.length > 1 ? select("Task", [[-1, "All tasks"], ...data.tasks.map((name, i) => [i, name])], "task", true) : null,
      data.labels.length > 2 ? select(`${data.labels[0]} against`, data.labels.slice(1).map((name, i) => [i + 1, name]), "model", true) : null,
      data.metrics.length > 1 ? select("Metric", data.metrics.map((name, i) => [i, name]), "metric", true) : null);
  }

  // What can be told comes first: losses (or gains), then the others, then what nobody can tell, then what is the same.
  const RANKS = { losses: { worse: 0, better: 1, unsure: 2, same: 3 }, gains: { better: 0, worse: 1, unsure: 2, same: 3 } };

  function arrange() {
    const found = [];
    data.rows.forEach((row, i) => {
      if (state.task >= 0 && row[0] !== state.task) return;
      if (state.text && !state.text.split(/\s+/).every((word) => haystack[i].includes(word))) return;
      if (state.show === "full" ? row[3] < 0 : state.show !== "all" && kindOf(row) !== state.show) return;
      found.push(i);
    });
    const rows = data.rows;
    const worth = new Map(found.map((i) => [i, state.sort === "low" || state.sort === "high" ? value(rows[i], pair().at(-1)) : change(rows[i])]));
    if (state.sort === "name") found.sort((a, b) => rows[a][1].localeCompare(rows[b][1], "en", { numeric: true }) || a - b);
    else if (state.sort === "low") found.sort((a, b) => worth.get(a) - worth.get(b) || a - b);
    else if (state.sort === "high") found.sort((a, b) => worth.get(b) - worth.get(a) || a - b);
    else {
      const rank = new Map(found.map((i) => [i, RANKS[state.sort][kindOf(rows[i])]]));
      found.sort((a, b) => rank.get(a) - rank.get(b) || Math.abs(worth.get(b)) - Math.abs(worth.get(a)) || (rows[b][3] >= 0) - (rows[a][3] >= 0) || a - b);
    }
    return found;
  }

  function line(i, first) {
    const row = data.rows[i];
    const [task, text, id, index] = row;
    const picture = index >= 0 ? data.details[index].picture : -1;
    const name = text || (picture >= 0 ? "Search with a picture" : `Search ${id}`);
    const kind = kindOf(row);
    const view = element("div", { class: "view", id: `view-${i}`, hidden: true });
    const button = element("button", {
      class: index < 0 ? "row bare" : "row", type: "button", "aria-expanded": "false", "aria-controls": `view-${i}`, tabindex: first ? 0 : -1,
      on: { click: () => toggle(i, button, view), focus: () => rove(button) },
    },
      element("span", { class: "query" },
        picture >= 0 ? element("img", { src: data.pictures[picture], alt: "the picture searched with", width: 48, height: 48 }) : null,
        element("span", {}, element("span", { dir: "auto", text: name }), data.tasks.length > 1 ? element("small", { text: data.tasks[task] }) : null)),
      element("span", { class: "from-to", text: pair().map((model) => value(row, model).toFixed(3)).join(" → ") }),
      several ? element("span", { class: `change ${kind}`, text: ARROW[kind] + signed(change(row)) }, kind === "unsure" ? element("small", { text: "cannot tell" }) : null) : null);
    if (opened.has(i)) toggle(i, button, view);
    return element("li", { class: "search" }, button, view);
  }

  function toggle(i, button, view) {
    const open = view.hidden;
    view.replaceChildren(...(open ? fullView(data, data.rows[i], pair(), link(data.rows[i])) : []));
    if (open && unsure(data.rows[i])) view.prepend(element("p", { text: "Nobody can tell whether this search got better or worse: the change rests on results that nobody has judged. Among the judged results alone it is not there." }));
    view.hidden = !open;
    if (open) opened.add(i);
    else opened.delete(i);
    button.setAttribute("aria-expanded", String(open));
  }

  function link(row) {
    return element("a", { class: "link", href: place(row), text: "Link to this search" });
  }

  // #q=task/id opens a search wherever the list has it; #q=any words looks for them.
  function follow() {
    const asked = /^#q=([^/]*)\/?(.*)$/s.exec(location.hash);
    if (!asked) return;
    const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
    const [task, query] = asked.slice(1).map(decoded);
    const i = data.rows.findIndex((row) => row[2] === query && data.names[row[0]] === task);
    Object.assign(state, { show: "all", task: -1, text: "", page: 0 });
    const words = i < 0 ? [task, query].join(" ").replaceAll("+", " ") : "";
    field.value = words.trim();
    state.text = folded(words.trim());
    root.querySelector(".tools").replaceWith(tools());
    if (i >= 0) opened.add(i);
    matching = arrange();
    state.page = i < 0 ? 0 : Math.floor(matching.indexOf(i) / PAGE);
    draw();
    const button = i < 0 ? field : list.querySelector(`[aria-controls="view-${i}"]`);
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "start", behavior: "instant" });
  }

  // What is listed, in its order.
  function saveList() {
    const header = ["task", "query_id", "search", ...data.labels.flatMap((label) => data.metrics.map((metric) => `${label} ${metric}`)), ...(several ? ["change", "outcome"] : [])];
    const lines = matching.map((i) => data.rows[i]).map((row) =>
      [data.names[row[0]], row[2], row[1], ...row[4].flat(), ...(several ? [Number(change(row).toFixed(6)), { unsure: "cannot tell" }[kindOf(row)] ?? kindOf(row)] : [])]);
    download("searches.csv", [header, ...lines], "\ufeff");
  }

  const buttons = () => [...list.querySelectorAll(".row")];
  function rove(button) { buttons().forEach((other) => { other.tabIndex = other === button ? 0 : -1; }); }
  function focusRow(number) { const all = buttons(); if (all.length) all[Math.max(0, Math.min(all.length - 1, number))].focus(); }
  const pages = () => Math.max(1, Math.ceil(matching.length / PAGE));

  function turn(by, focus = false) {
    const page = Math.max(0, Math.min(pages() - 1, state.page + by));
    if (page === state.page) return;
    state.page = page;
    draw();
    if (focus) focusRow(0);
    else list.scrollIntoView({ block: "start" });
  }

  list.addEventListener("keydown", (event) => {
    const now = buttons().indexOf(document.activeElement);
    const moves = { ArrowDown: () => focusRow(now + 1), ArrowUp: () => (now ? focusRow(now - 1) : field.focus()), Home: () => focusRow(0),
      End: () => focusRow(PAGE), PageDown: () => turn(1, true), PageUp: () => turn(-1, true) };
    if (event.key === "Escape") {
      const item = event.target.closest(".search");
      const button = item.querySelector(".row");
      if (button.getAttribute("aria-expanded") === "true") { button.focus(); button.click(); }
    } else if (now >= 0 && moves[event.key]) {
      event.preventDefault();
      moves[event.key]();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      field.focus({ preventScroll: true });
      root.querySelector(".tools").scrollIntoView({ block: "start" });
    }
  });
  addEventListener("hashchange", follow);

  function draw() {
    const start = state.page * PAGE;
    const shown = matching.slice(start, start + PAGE);
    list.replaceChildren(...shown.map((i, place) => line(i, place === 0)));
    back.disabled = state.page === 0;
    on.disabled = state.page >= pages() - 1;
    where.textContent = `Page ${state.page + 1} of ${pages()}`;
    const count = matching.length.toLocaleString("en");
    status.textContent = matching.length
      ? `${count} ${matching.length === 1 ? "search" : "searches"}, ${(start + 1).toLocaleString("en")} to ${(start + shown.length).toLocaleString("en")} listed here.`
      : "No search fits. Try other words, or show all.";
  }

  function refresh() { matching = arrange(); draw(); }

  const full = data.details.length;
  const choice = full < data.rows.length ? ": the largest losses, the largest gains and some at random" : "";
  const dropped = data.total - data.rows.length;
  const note = `${full.toLocaleString("en")} of ${data.total.toLocaleString("en")} searches are shown in full, with pictures${choice}.`
    + (full < data.wanted ? ` More would have made this file too large.` : "")
    + (dropped ? ` ${dropped.toLocaleString("en")} searches that changed least are not listed.` : "");
  const keys = element("p", { class: "hint keys" }, ...["/", " finds, ", "↑", " ", "↓", " move, ", "Enter", " opens, ", "Esc", " closes, ", "PgDn", " turns the page."]
    .map((word, i) => (i % 2 ? word : element("kbd", { text: word }))));
  const save = element("button", { class: "plain-button", type: "button", text: "Download this list (CSV)", on: { click: saveList } });
  const bar = element("div", { class: "bar" }, status, save);
  root.replaceChildren(element("p", { class: "hint", text: note }), keys, tools(), bar, list, element("div", { class: "pages" }, back, on, where));
  refresh();
  const first = buttons()[0];
  if (location.hash.startsWith("#q=")) follow();
  else if (first && data.rows[matching[0]][3] >= 0) first.click();
}

const report = JSON.parse(document.getElementById("data").textContent);
browser(document.getElementById("browser"), report);
