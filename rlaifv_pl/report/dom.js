"use strict";
// Elements, numbers and pictures. A text becomes a text node, never markup.

const PAGE = JSON.parse(document.getElementById("data").textContent);
const IMAGE_TEXT = document.getElementById("image-data").textContent;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function section(id, title, ...children) {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0"; // Never "-0".
  if (size < 1e-3 || size >= 1e7) return value.toExponential(2).replace(/-/g, "−").replace("e+", "e");
  const text = Number.isInteger(value) ? value.toLocaleString("en") : value.toLocaleString("en", { maximumSignificantDigits: size < 1 ? 3 : 4 });
  return text.replace("-", "−");
}

const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const probability = (value) => (value === null ? "?" : value.toFixed(2));

function picture(place, name) {
  if (typeof place === "string") return el("div", { class: "no-image" }, `Image ${place}.`);
  const { mime, width, height, start, end } = PAGE.images[place];
  return el("img", { src: `data:${mime};base64,${IMAGE_TEXT.slice(start, end)}`, alt: name, width, height, decoding: "async" });
}

// rows: lists of cells; the first cell of a row is its heading.
function table(caption, headings, rows) {
  const head = el("tr", null, headings.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) => el("tr", null, el("th", { scope: "row" }, first), cells.map((cell) => el("td", null, cell))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", null, el("caption", null, caption), ...(headings.some(Boolean) ? [el("thead", null, head)] : []), el("tbody", null, body)));
}

function choice(label, options, changed) {
  const made = options.map(([value, text]) => el("option", { value }, text));
  const select = el("select", { change: () => changed(select.value) }, made);
  return el("label", null, el("span", null, label), select);
}

const PER_PAGE = 20;

// all: how many fit the filters, out of total.
function rangeText(first, some, all, total) {
  return all ? `${number(first + 1)} to ${number(first + some)} of ${number(all)}${all < total ? `, out of ${number(total)}` : ""}` : "Nothing fits these filters.";
}

const pageCount = (all) => Math.max(1, Math.ceil(all / PER_PAGE));

function pagerParts(page, all, turn) {
  const pages = pageCount(all);
  const step = (text, label, to) => el("button", { type: "button", "aria-label": label, disabled: to < 0 || to >= pages || to === page, click: () => turn(to) }, text);
  return [step("« first", "first page", 0), step("‹ previous", "previous page", page - 1),
    el("span", null, `page ${number(page + 1)} of ${number(pages)}`), step("next ›", "next page", page + 1), step("last »", "last page", pages - 1)];
}
