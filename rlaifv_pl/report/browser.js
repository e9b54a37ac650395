// The browser of samples: filters, order, pages, keys. Then the page itself.

const KEPT = "kept";
const state = { text: "", directory: "all", gap: "", show: KEPT, order: "shards", page: 0, found: [] };
const list = el("div", { id: "list", role: "feed", "aria-label": "samples" });
const status = el("p", { class: "status", id: "status", role: "status", "aria-live": "polite" });
const pager = el("nav", { class: "pager", "aria-label": "pages of samples" });
const search = el("input", { id: "search", type: "search", placeholder: "Search prompts, answers, keys", "aria-label": "Search prompts, answers, keys", input: () => set({ text: search.value }) });
const LEFT_OUT = [...PAGE.left_out, ...PAGE.dropped];
const meaning = el("p", { class: "caption", id: "meaning" });
const haystacks = new Map();

function haystack(row) {
  if (!haystacks.has(row)) {
    const texts = row.answers ? [row.key, row.prompt, ...row.answers.flatMap((each) => [each.text, ...each.claims.map((claim) => claim.question)])] : [row.file, row.reason, row.detail];
    haystacks.set(row, texts.join("\n").toLowerCase());
  }
  return haystacks.get(row);
}

const isFrom = (number) => state.directory === "all" || number === Number(state.directory);
const pool = (show) => (show === KEPT ? PAGE.rows : LEFT_OUT.filter((row) => row.reason === show));

function find() {
  const text = state.text.trim().toLowerCase(), least = state.gap === "" ? null : Number(state.gap);
  const fits = (row) => isFrom(row.directory)
    && (least === null || !row.answers || (row.gap !== null && row.gap >= least)) && (!text || haystack(row).includes(text));
  const found = pool(state.show).filter(fits);
  const sign = { widest: -1, narrowest: 1 }[state.order];
  const value = (row) => (row.gap === null || row.gap === undefined ? Infinity * sign : row.gap);
  // Samples without a gap come last either way.
  return sign ? found.sort((a, b) => ((a.gap ?? null) === null) - ((b.gap ?? null) === null) || sign * (value(a) - value(b)) || 0) : found;
}

function set(change) {
  Object.assign(state, { page: 0 }, change);
  state.found = find();
  [...(reasons ? reasons.options : [])].forEach((option) => { option.textContent = counted(option.value); });
  meaning.textContent = PAGE.reasons[state.show] || "";
  show();
}

// How many can be looked at, and of how many, in the directories that are chosen.
function counted(reason) {
  const here = pool(reason).filter((row) => isFrom(row.directory)).length;
  const many = (directory) => (reason === KEPT ? directory.samples : directory.drops[reason] || 0);
  const all = PAGE.directories.reduce((sum, directory, at) => sum + (isFrom(at) ? many(directory) : 0), 0);
  return `${reason === KEPT ? KEPT : `left out: ${reasonText(reason)}`} (${number(here)}${all > here ? ` of ${number(all)}` : ""})`;
}

function showReason(reason) {
  reasons.value = reason;
  set({ show: reason });
}

function turn(page, at) {
  state.page = page;
  show();
  focusCard(at);
}

const pages = () => pageCount(state.found.length);

function show() {
  const first = state.page * PER_PAGE, some = state.found.slice(first, first + PER_PAGE), all = state.found.length;
  list.replaceChildren(...some.map((row, at) => (row.answers ? sampleCard : droppedCard)(row, first + at + 1, all)));
  if (list.firstChild) list.firstChild.tabIndex = 0;
  status.textContent = rangeText(first, some.length, all, pool(state.show).length);
  pager.replaceChildren(...pagerParts(state.page, all, (page) => turn(page, 0)));
}

function focusCard(at) {
  const cards = [...list.children], card = cards[at < 0 ? cards.length + at : Math.min(at, cards.length - 1)];
  if (!card) return;
  cards.forEach((each) => { each.tabIndex = each === card ? 0 : -1; });
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const cards = [...list.children], current = cards.indexOf(document.activeElement.closest("article"));
  if (current < 0) focusCard(Math.max(0, cards.findIndex((card) => card.tabIndex === 0)));
  else if (current + by >= cards.length && state.page + 1 < pages()) turn(state.page + 1, 0);
  else if (current + by < 0 && state.page > 0) turn(state.page - 1, -1);
  else focusCard(Math.max(0, Math.min(cards.length - 1, current + by)));
}

const KEYS = {
  j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  n: () => state.page + 1 < pages() && turn(state.page + 1, 0), p: () => state.page > 0 && turn(state.page - 1, 0),
  "/": () => { search.focus(); search.select(); },
};
const ON_CARDS = { ArrowDown: () => step(1), ArrowUp: () => step(-1) };

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.target === search && (event.key === "Escape" || event.key === "Enter")) { focusCard(0); event.preventDefault(); }
    return;
  }
  // Elsewhere these keys scroll what has the focus.
  if (event.target.matches(".scroll, pre")) return;
  const act = KEYS[event.key] || (event.target.matches("article") ? ON_CARDS[event.key] : null);
  if (act) { act(); event.preventDefault(); }
});

const NAMES = [...new Set(LEFT_OUT.map((row) => row.reason))].sort();
const shownChoice = NAMES.length ? choice("Show", [KEPT, ...NAMES].map((name) => [name, counted(name)]), (chosen) => set({ show: chosen })) : null;
const reasons = shownChoice && shownChoice.querySelector("select");

function filters() {
  const gap = el("input", { id: "gap", type: "number", min: "0", step: "any", placeholder: "any", input: () => set({ gap: gap.value }) });
  const hasGaps = [...PAGE.rows, ...PAGE.left_out].some((row) => row.gap !== null);
  return el("div", { class: "filters", role: "search" }, search, shownChoice,
    PAGE.directories.length > 1 ? choice("From", [["all", "all"], ...PAGE.directories.map((directory, at) => [String(at), directory.label])], (directory) => set({ directory })) : null,
    hasGaps ? el("label", null, el("span", null, "Least gap"), gap) : null,
    hasGaps ? choice("Order", [["shards", "as in the shards"], ["widest", "widest gap first"], ["narrowest", "narrowest gap first"]], (order) => set({ order })) : null);
}

function sampleSection() {
  const title = PAGE.kind === "run" && PAGE.rounds.length ? "Pairs" : "Samples";
  if (!PAGE.rows.length && !LEFT_OUT.length) return section("samples", title, el("p", { class: "note" }, "There are none to look at."));
  const judged = [...PAGE.rows, ...PAGE.left_out].some((row) => row.answers.some((answer) => answer.claims.length));
  const key = (text) => el("kbd", null, text);
  return section("samples", title, filters(), meaning,
    judged ? el("p", { class: "caption verdicts" }, "Claims by the labeler's verdict: ", el("mark", { class: "yes" }, "accepted"), el("span", { class: "badge yes" }, "✓ 0.98"), " ", el("mark", { class: "no" }, "rejected"), el("span", { class: "badge no" }, "✗ 0.03"), " with P(yes).") : null,
    el("p", { class: "caption keys" }, key("j"), key("k"), " or arrows step, ", key("n"), key("p"), " turn pages, ", key("/"), " searches"),
    status, list, pager);
}

function start() {
  const parts = [figures(), heldOutSection(), curveSection(), distributionSection(), dropSection(), sampleSection(), madeSection()].filter(Boolean);
  const links = parts.map((part) => el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
  document.getElementById("top").append(
    el("p", { class: "kind" }, PAGE.kind === "run" ? "Run" : "Shards"), el("h1", null, PAGE.title),
    el("nav", { "aria-label": "sections" }, links));
  document.getElementById("main").replaceChildren(...PAGE.notes.map((text) => el("p", { class: "note" }, text)), overview(), ...parts);
  if (list.isConnected) set({});
}

start();
