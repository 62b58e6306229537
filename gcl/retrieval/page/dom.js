"use strict";
// Elements from values. Text comes in as textContent only: nothing a catalog holds can become a tag.

function element(name, options = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "class") node.className = value;
    else if (key === "on") Object.entries(value).forEach(([event, act]) => node.addEventListener(event, act));
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function labelled(name, control) {
  return element("div", { class: "field" }, element("label", { text: name, for: control.id }), control);
}

// Rows as a table for a spreadsheet, in which no cell is a formula: gcl.table.plain_csv in Python. mark: what it begins with.
function download(name, rows, mark = "") {
  const cell = (value) => {
    const formula = /^[\t\r\n]|^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(value) && !/^[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s?%?$/.test(value);
    const text = typeof value === "string" && formula ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
  const address = URL.createObjectURL(new Blob([mark, text], { type: "text/csv" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
