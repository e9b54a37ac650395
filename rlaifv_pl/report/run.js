// What is known of a run as a whole: figures by round, curves, distributions, what was left out, how it was made.

const HALLUCINATION = ["instance", "sentence", "claim"];
const SHARES = [...HALLUCINATION, "recall"];
const COLUMN = { length: "words" };
const TONES = ["tone-0", "tone-1", "tone-2", "tone-3", "tone-4"];

const plain = (name) => name.replace(/^sampled_/, "");
const shown = (name, value) => (SHARES.includes(plain(name)) ? percent(value) : number(value));
const roundName = (entry) => (entry.round ? `after round ${entry.round}` : "start");
const heading = (name) => { const known = COLUMN[plain(name)] || plain(name); return name.startsWith("sampled_") ? `${known}, sampled` : known; };

function overview() {
  const measured = PAGE.rounds.filter((entry) => entry.figures);
  const [first, last] = [measured[0], measured[measured.length - 1]];
  const change = (name, label) => (first && last && first.figures[name] !== undefined
    ? [label, percent(last.figures[name]), first === last ? "at the start" : `${percent(first.figures[name])} at the start`] : null);
  const words = PAGE.distributions.words.sets.map((set) => [set.chosen, set.rejected]);
  const weight = (counted) => counted.counts.reduce((sum, count) => sum + count, 0);
  const mean = (side) => {
    const total = words.reduce((sum, set) => sum + weight(set[side]), 0);
    return total ? words.reduce((sum, set) => sum + weight(set[side]) * (set[side].mean || 0), 0) / total : null;
  };
  const tiles = [
    change("instance", "instance hallucination"), change("sentence", "sentence hallucination"), change("recall", "recall"),
    [PAGE.kind === "run" && PAGE.rounds.length ? "pairs" : "samples", number(PAGE.samples), PAGE.directories.length > 1 ? `in ${PAGE.directories.length} ${PAGE.rounds.length ? "rounds" : "directories"}` : ""],
    mean(0) === null ? null : ["words, chosen and rejected", `${mean(0).toFixed(1)} / ${mean(1).toFixed(1)}`, "mean of all pairs"],
  ].filter(Boolean);
  return el("div", { class: "tiles" }, tiles.map(([name, value, detail]) =>
    el("div", { class: "tile" }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: "detail" }, detail))));
}

function figures() {
  const entries = PAGE.rounds.filter((entry) => entry.figures);
  if (!entries.length) return PAGE.rounds.length ? section("rounds", "Rounds", el("p", { class: "note" }, "No figures: the run has no rounds.evaluator, or nothing has been measured yet."), seconds()) : null;
  const names = [...new Set(entries.flatMap((entry) => Object.keys(entry.figures)))];
  const over = (title, wanted) => {
    const held = names.filter((name) => wanted.includes(plain(name)));
    if (!held.length) return null;
    const series = held.map((name) => ({
      label: heading(name), dots: true, tone: `${TONES[SHARES.indexOf(plain(name))]}${name.startsWith("sampled_") ? " dashed" : ""}`,
      x: entries.map((entry) => entry.round), y: entries.map((entry) => entry.figures[name] ?? null),
    }));
    const last = Math.max(1, entries[entries.length - 1].round);
    return lineChart({ title, series, xName: "round", format: percent, zero: wanted !== RECALL, wholeX: true, xRange: [0, last] });
  };
  const rows = PAGE.rounds.map((entry) => [
    roundName(entry), ...names.map((name) => shown(name, (entry.figures || {})[name])), number(entry.pairs), percent(entry.agreement),
  ]);
  return section("rounds", "Rounds",
    el("div", { class: "charts" }, over("Hallucination by round", HALLUCINATION), over("Recall by round", RECALL)),
    table("Held-out images, before and after each round", ["", ...names.map(heading), "pairs made", "labeler right"], rows),
    el("p", { class: "caption" }, answersKept() ? "What was answered to the first of these images, before the first round and after the last, is below." : "The run keeps these figures of its held-out images, and not the answers themselves. What it kept word by word are the pairs below."),
    seconds());
}

const RECALL = ["recall"];
const answersKept = () => PAGE.held_out && PAGE.held_out.rows.some((row) => row.benchmark === "evaluator of the rounds");

function seconds() {
  const stages = (PAGE.stages || []).filter((stage) => PAGE.rounds.some((entry) => (entry.seconds || {})[stage] !== undefined));
  if (!stages.length) return null;
  const most = Math.max(...PAGE.rounds.flatMap((entry) => stages.map((stage) => (entry.seconds || {})[stage] || 0)));
  const rows = PAGE.rounds.map((entry) => {
    const spent = entry.seconds || {};
    const all = stages.reduce((sum, stage) => sum + (spent[stage] || 0), 0);
    return [entry.round ? `round ${entry.round}` : "start", ...stages.map((stage) => (spent[stage] === undefined ? "–" : bar(spent[stage], most, spent[stage].toFixed(1)))), all.toFixed(1)];
  });
  return table("Seconds by stage", ["", ...stages, "all"], rows);
}

function bar(value, most, text) {
  const width = most ? (100 * value) / most : 0;
  return el("div", { class: "bar" }, el("span", null, text), svg("svg", { "aria-hidden": "true", width: "100%", height: 6 }, svg("rect", { class: "track", width: "100%", height: 6, rx: 3 }), svg("rect", { class: "fill", width: `${width.toFixed(1)}%`, height: 6, rx: 3 })));
}

function curveSection() {
  if (!PAGE.curves.length) return null;
  const marks = (PAGE.round_starts || []).filter((start) => start.round > 1).map((start) => ({ x: start.step, label: `round ${start.round}` }));
  const charts = PAGE.curves.map((chart) => {
    let next = 0;
    const series = chart.series.map((each) => {
      const side = each.side || "";
      const label = side || (each.name === chart.title ? each.name : each.name.replace(`${chart.title}/`, ""));
      const isTrain = each.stage === "train";
      const tone = side || TONES[next++ % TONES.length];
      return { label: isTrain ? label : `${label} (${each.stage})`, tone: `${tone}${isTrain ? "" : " dashed"}`, x: each.x, y: each.y, dots: !isTrain };
    });
    const mean = Math.max(...chart.series.map((each) => each.mean_of));
    return lineChart({ title: chart.title, series, marks, xName: "step", caption: mean > 1 ? `Each point is a mean of ${mean} logged values.` : "" });
  });
  return section("curves", "Training", el("div", { class: "charts" }, charts));
}

function distributionSection() {
  const { gap, words } = PAGE.distributions;
  if (!gap.edges.length && !words.edges.length) return null;
  const holder = el("div", { class: "charts" });
  const merged = (sets, side) => {
    const counts = sets[0][side].counts.map((_, at) => sets.reduce((sum, set) => sum + set[side].counts[at], 0));
    const weights = sets.map((set) => set[side].counts.reduce((sum, count) => sum + count, 0));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { counts, mean: total ? sets.reduce((sum, set, at) => sum + (set[side].mean || 0) * weights[at], 0) / total : null };
  };
  const draw = (which) => {
    const pick = (each) => (which === "all" ? each.sets : [each.sets[Number(which)]]);
    const chart = (title, each, sides, xName) => (each.edges.length ? histogram({
      title, xName, edges: each.edges, series: sides.map(([side, label, tone]) => ({ label, tone, ...merged(pick(each), side) })),
      caption: `Mean: ${sides.map(([side, label]) => `${label} ${number(merged(pick(each), side).mean)}`).join(", ")}.`,
    }) : null);
    holder.replaceChildren(...[
      chart("Gap of scores", gap, [["gap", "pairs", "tone-0"]], "gap"),
      chart("Length of answers", words, [["chosen", "chosen", "chosen"], ["rejected", "rejected", "rejected"]], "words"),
    ].filter(Boolean));
  };
  draw("all");
  const options = [["all", "all"], ...PAGE.directories.map((directory, at) => [String(at), directory.label])];
  return section("distributions", "Pairs as a whole", PAGE.directories.length > 1 ? choice("Pairs of", options, draw) : null, holder);
}

function dropSection() {
  const directories = PAGE.directories, names = [...new Set(directories.flatMap((directory) => Object.keys(directory.drops)))].sort();
  if (!names.length) return null;
  const most = Math.max(...directories.flatMap((directory) => Object.values(directory.drops)));
  const shownHere = new Set([...PAGE.left_out, ...PAGE.dropped].map((row) => row.reason));
  const named = (name) => (shownHere.has(name) ? el("a", { href: "#samples", title: "look at some of them", click: () => showReason(name) }, reasonText(name)) : reasonText(name));
  const rows = names.map((name) => [named(name), ...directories.map((directory) => (directory.drops[name] === undefined ? "–" : bar(directory.drops[name], most, number(directory.drops[name]))))]);
  const examples = shownHere.size ? "Of reasons that are links, some can be read below, under Show." : "";
  const kept = PAGE.rounds.length ? "All candidates with their verdicts are in rounds/*/stages of the run." : "";
  const caption = [examples, kept].filter(Boolean).join(" ");
  return section("left-out", "Left out", caption ? el("p", { class: "caption" }, caption) : null, table("What was left out, by reason", ["reason", ...directories.map((directory) => directory.label)], rows));
}

function madeSection() {
  const facts = (PAGE.facts || []).map(([name, value]) => [name, value]);
  const hashes = PAGE.directories.map((directory) => [directory.label, number(directory.samples), code(directory.hash), code(directory.recipe_hash), el("div", null, directory.parents.length ? directory.parents.map(code) : "–")]);
  const notes = [...new Set(PAGE.directories.flatMap((directory) => Object.keys(directory.notes)))];
  const files = PAGE.directories.flatMap((directory) => directory.shards.map((shard) => [directory.label, shard.name, number(shard.samples), el("code", null, shard.sha256)]));
  const versions = [...new Set(PAGE.directories.flatMap((directory) => Object.entries(directory.versions).map(([name, version]) => `${name} ${version}`)))];
  return section("made", "How it was made",
    facts.length ? table("The run", ["", ""], facts) : null,
    hashes.length ? table("The shards", ["", "samples", "manifest", "recipe", "made from"], hashes) : null,
    notes.length ? table("What their maker counted", ["", ...PAGE.directories.map((directory) => directory.label)], notes.map((name) => [name.replace(/_/g, " "), ...PAGE.directories.map((directory) => number(directory.notes[name]))])) : null,
    versions.length ? el("p", { class: "caption" }, `Written with ${versions.join(", ")}.`) : null,
    files.length ? el("details", null, el("summary", null, "SHA-256 of each shard"), table("Shards, byte by byte", ["", "file", "samples", "SHA-256"], files)) : null,
    PAGE.config ? el("details", null, el("summary", null, "config.yaml"), el("pre", { tabindex: "0" }, PAGE.config)) : null);
}

const code = (hash) => el("code", { title: hash }, hash.slice(0, 12));
