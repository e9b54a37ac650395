// Held-out figures over steps, and what was answered at the first measurement and at the last, side by side.

const HELD_OUT = PAGE.held_out || { benchmarks: [], rows: [] };
const HELD_NAMES = [...new Set([...HELD_OUT.rows.map((row) => row.benchmark), ...HELD_OUT.benchmarks.map((each) => each.name)])];
const isWrong = (answer) => answer.right === false || answer.marks.some((mark) => !mark[2]);
const ONLY = { all: () => true, changed: (row) => row.changed, wrong: (row) => row.answers.some(isWrong) };
const held = { text: "", benchmark: "all", only: "all", page: 0 };
const heldList = el("div", { id: "held-out-list", "aria-label": "held-out answers" });
const heldStatus = el("p", { class: "status", id: "held-out-status", role: "status", "aria-live": "polite" });
const heldPager = el("nav", { class: "pager", "aria-label": "pages of held-out answers" });

function measured() {
  const marks = (PAGE.round_starts || []).filter((start) => start.round > 1).map((start) => ({ x: start.step, label: `round ${start.round}` }));
  return HELD_OUT.benchmarks.map((each) => lineChart({
    title: each.name, marks, xName: "step", zero: true, caption: `${each.metric}, measured after so many steps.`,
    series: each.drawn.map((figure, at) => ({ label: figure, tone: TONES[at], dots: true, x: each.steps, y: each.series.find((one) => one.figure === figure).y })),
  }));
}

function heldTable() {
  const rows = HELD_OUT.benchmarks.flatMap((each) => each.series.map(({ figure, y }) => [`${each.name}: ${figure}`, number(y[0]), number(y[y.length - 1])]));
  return table("At the first step and at the last", ["", "first", "last"], rows);
}

// Marks do not overlap; offsets count characters.
function withMentions(answer) {
  const letters = Array.from(answer.text), parts = [];
  let at = 0;
  for (const [start, end, right] of answer.marks) {
    parts.push(letters.slice(at, start).join(""), el("mark", { class: right ? "yes" : "no", title: right ? "in the image" : "hallucinated" }, letters.slice(start, end).join("")));
    at = end;
  }
  return [...parts, letters.slice(at).join("")];
}

function judgement(answer) {
  if (answer.right === null) return answer.marks.length ? `${answer.marks.filter((mark) => !mark[2]).length} of ${answer.marks.length} mentions hallucinated` : "";
  return answer.right ? "right" : `wrong, expected ${answer.expected}`;
}

function heldAnswer(answer, at, all) {
  const name = all.length > 1 ? ["first", "last"][at] : "only";
  const badge = answer.right === null ? null : el("span", { class: `badge ${answer.right ? "yes" : "no"}` }, answer.right ? "✓" : "✗");
  return el("div", { class: `answer tone-${at}` },
    el("h3", null, `${name}, ${answer.when}`, badge, el("small", null, judgement(answer))),
    el("p", { class: "text", dir: "auto" }, withMentions(answer)));
}

function heldCard(row) {
  return el("article", { class: "card", "aria-label": `held-out item ${row.key}` },
    row.images.length ? el("div", { class: "pictures" }, pictures(row.images, "held-out image")) : null,
    el("div", { class: "body" },
      el("div", { class: "meta" }, el("code", null, row.key), HELD_NAMES.length > 1 ? el("span", null, row.benchmark) : null, el("span", null, row.changed ? "changed" : "the same")),
      el("p", { class: "prompt", dir: "auto" }, row.prompt),
      el("div", { class: "answers" }, row.answers.map(heldAnswer))));
}

function showHeld(change) {
  Object.assign(held, { page: 0 }, change);
  const text = held.text.trim().toLowerCase();
  const fits = (row) => (held.benchmark === "all" || row.benchmark === held.benchmark) && ONLY[held.only](row)
    && (!text || [row.key, row.prompt, ...row.answers.map((each) => each.text)].join("\n").toLowerCase().includes(text));
  const found = HELD_OUT.rows.filter(fits), first = held.page * PER_PAGE, some = found.slice(first, first + PER_PAGE);
  heldList.replaceChildren(...some.map(heldCard));
  heldStatus.textContent = rangeText(first, some.length, found.length, HELD_OUT.rows.length);
  heldPager.replaceChildren(...pagerParts(held.page, found.length, (page) => showHeld({ page })));
}

function heldOutSection() {
  if (!HELD_OUT.benchmarks.length && !HELD_OUT.rows.length) return null;
  const search = el("input", { type: "search", id: "held-out-search", placeholder: "Search prompts, answers, keys", "aria-label": "Search held-out prompts, answers, keys", input: () => showHeld({ text: search.value }) });
  const measuredOnes = HELD_OUT.benchmarks.length ? [el("div", { class: "charts" }, measured()), heldTable()] : [];
  const marked = HELD_OUT.rows.some((row) => row.answers.some((answer) => answer.marks.length));
  const browser = HELD_OUT.rows.length ? [
    el("div", { class: "filters", role: "search" }, search,
      HELD_NAMES.length > 1 ? choice("Benchmark", [["all", "all"], ...HELD_NAMES.map((name) => [name, name])], (benchmark) => showHeld({ benchmark })) : null,
      choice("Answers", [["all", "all"], ["changed", "changed only"], ["wrong", "something was wrong"]], (only) => showHeld({ only }))),
    marked ? el("p", { class: "caption verdicts" }, "What an answer mentions: ", el("mark", { class: "yes" }, "in the image"), ", ", el("mark", { class: "no" }, "hallucinated"), ".") : null,
    heldStatus, heldList, heldPager] : [];
  if (browser.length) showHeld({});
  return section("held-out", HELD_OUT.benchmarks.length ? "Held-out" : "Before and after", ...measuredOnes, ...browser);
}
