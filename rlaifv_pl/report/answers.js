// A sample as a card: pictures, prompt, answers with their claims marked where they stand.

const VERDICT = { true: { tone: "no", mark: "✗", word: "rejected" }, false: { tone: "yes", mark: "✓", word: "accepted" }, null: { tone: "unknown", mark: "?", word: "not judged" } };

function describe(claim) {
  const verdict = VERDICT[claim.rejected].word + (claim.low ? ", low mass" : "");
  return `${claim.question || claim.text} ${verdict}: P(yes) ${probability(claim.yes)}, P(no) ${probability(claim.no)}`;
}

function badge(claim) {
  const { tone, mark } = VERDICT[claim.rejected];
  const text = claim.rejected === null ? mark : `${mark} ${probability(claim.yes)}${claim.low ? " low" : ""}`;
  return el("span", { class: `badge ${tone}`, title: describe(claim) }, el("span", { class: "hidden" }, ` (${VERDICT[claim.rejected].word} `), text, el("span", { class: "hidden" }, ")"));
}

// Offsets count characters; a string of JavaScript counts others. A claim may stand in several stretches: its verdict is behind the last.
function marked(answer) {
  const letters = Array.from(answer.text), placed = answer.claims.filter((claim) => claim.spans.length);
  const cuts = [...new Set([0, letters.length, ...placed.flatMap((claim) => claim.spans.flat())])].sort((a, b) => a - b);
  return cuts.slice(1).flatMap((end, at) => {
    const start = cuts[at], text = letters.slice(start, end).join("");
    const over = placed.filter((claim) => claim.spans.some(([first, last]) => first <= start && end <= last));
    if (!over.length) return [text];
    const worst = over.find((claim) => claim.rejected) || over.find((claim) => claim.rejected === null) || over[0];
    const ending = over.filter((claim) => claim.spans.at(-1)[1] === end);
    return [el("mark", { class: VERDICT[worst.rejected].tone, title: over.map(describe).join("\n") }, text), ...ending.map(badge)];
  });
}

function answerBlock(answer) {
  const loose = answer.claims.filter((claim) => !claim.spans.length);
  const score = answer.score === null ? "" : `score ${number(answer.score)}, `;
  const sign = { chosen: "▲", rejected: "▼", completion: "●", candidate: "●" }[answer.side];
  const listed = answer.claims.length ? el("details", null,
    el("summary", null, `${answer.claims.length} ${answer.claims.length === 1 ? "claim" : "claims"}, ${answer.claims.filter((claim) => claim.rejected).length} rejected`),
    el("ol", null, answer.claims.map((claim) => el("li", null, claim.question || claim.text, badge(claim))))) : null;
  return el("div", { class: `answer ${answer.side}` },
    el("h3", null, el("span", { "aria-hidden": "true" }, `${sign} `), answer.side, el("small", null, `${score}${answer.words} words`)),
    el("p", { class: "text", dir: "auto" }, marked(answer)),
    loose.length ? el("ul", { class: "loose", "aria-label": "claims without a place in the text" }, loose.map((claim) => el("li", null, claim.text, badge(claim)))) : null,
    listed);
}

function pictures(places, name) {
  return places.map((place, at) => picture(place, places.length > 1 ? `${name} ${at + 1}` : name));
}

const reasonText = (reason) => reason.replace(/_/g, " ").replace("/", ": ");

const labelled = (row) => (PAGE.directories.length > 1 ? el("span", null, PAGE.directories[row.directory].label) : null);

function sampleCard(row, place, all) {
  const images = [...pictures(row.images, "image of the prompt"), ...pictures(row.rejected_images, "image of the rejected side")];
  return el("article", { class: "card", tabindex: "-1", "aria-posinset": place, "aria-setsize": all, "aria-label": `${row.reason ? "left out" : "sample"} ${row.key}` },
    images.length ? el("div", { class: "pictures" }, images) : null,
    el("div", { class: "body" },
      el("div", { class: "meta" }, el("code", null, row.key), labelled(row), row.reason ? el("span", { class: "reason" }, reasonText(row.reason)) : null, row.gap === null ? null : el("span", { class: "gap" }, `gap ${number(row.gap)}`)),
      el("p", { class: "prompt", dir: "auto" }, row.prompt),
      el("div", { class: "answers" }, row.answers.map(answerBlock)),
      row.corrections.length ? el("details", { class: "turns" }, el("summary", null, `${row.corrections.length} corrections`), el("ol", null, row.corrections.map(([question, answer]) => el("li", null, el("b", null, question), " ", answer)))) : null));
}

function droppedCard(row, place, all) {
  return el("article", { class: "card", tabindex: "-1", "aria-posinset": place, "aria-setsize": all, "aria-label": `left out: ${row.reason}` },
    el("div", { class: "body" },
      el("div", { class: "meta" }, el("code", null, row.reason), labelled(row)),
      el("p", { class: "text" }, `${row.file}, row ${row.row}: ${row.detail}`),
      el("p", { class: "caption" }, row.remedy)));
}
