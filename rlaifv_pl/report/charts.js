// Charts as SVG, drawn again when their width changes. Tones are told apart by dashes as well as by colour.

const MARGIN = { left: 58, right: 14, top: 12, bottom: 34 };
const HEIGHT = 230;
const SMOOTH_FROM = 60;

function ticks(low, high, about) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function bounds(values, zero) {
  const known = values.filter((value) => value !== null);
  let [low, high] = known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  if (!known.length) return [0, 1];
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const room = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  return [zero && low === 0 ? 0 : low - room, high + room];
}

// Mean of the neighbours of each value, as many on either side as there are at the ends.
function smooth(values, reach) {
  return values.map((value, at) => {
    const span = Math.min(reach, at, values.length - 1 - at);
    const known = values.slice(at - span, at + span + 1).filter((each) => each !== null);
    return known.length ? known.reduce((sum, each) => sum + each, 0) / known.length : null;
  });
}

function path(xs, ys, x, y) {
  let pen = false;
  return ys.map((value, at) => {
    if (value === null) { pen = false; return ""; }
    const command = `${pen ? "L" : "M"}${x(xs[at]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
    return command;
  }).join("");
}

// Tones differ in shape too: a circle, a square, a diamond.
function dot(tone, x, y) {
  const shape = { "tone-1": "", "tone-2": `rotate(45 ${x} ${y})` }[tone.split(" ")[0]];
  if (shape === undefined) return svg("circle", { class: `dot ${tone}`, cx: x, cy: y, r: 3.5 });
  return svg("rect", { class: `dot ${tone}`, x: x - 3.2, y: y - 3.2, width: 6.4, height: 6.4, transform: shape || null });
}

function axes(chart, width, [x0, x1], [y0, y1]) {
  const right = width - MARGIN.right, bottom = HEIGHT - MARGIN.bottom;
  const x = (value) => MARGIN.left + ((value - x0) / (x1 - x0 || 1)) * (right - MARGIN.left);
  const y = (value) => bottom - ((value - y0) / (y1 - y0 || 1)) * (bottom - MARGIN.top);
  const whole = chart.wholeX ? (at) => Number.isInteger(at) : () => true;
  const parts = [
    ...ticks(y0, y1, 4).map((at) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(at), y2: y(at) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(at) + 4, "text-anchor": "end" }, chart.format(at)),
    ]),
    ...ticks(x0, x1, Math.max(2, width / 90)).filter(whole).map((at) =>
      svg("text", { class: "tick", x: x(at), y: bottom + 17, "text-anchor": "middle" }, chart.formatX ? chart.formatX(at) : number(at))),
    svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }),
    svg("text", { class: "axis-name", x: right, y: HEIGHT - 3, "text-anchor": "end" }, chart.xName),
    ...(chart.marks || []).filter((mark) => mark.x > x0 && mark.x < x1).map((mark) => [
      svg("line", { class: "mark", x1: x(mark.x), x2: x(mark.x), y1: MARGIN.top, y2: bottom }),
      svg("text", { class: "tick", x: x(mark.x) + 4, y: MARGIN.top + 8 }, mark.label),
    ]),
  ];
  return { x, y, parts: parts.flat(), bottom };
}

// chart: {title, xName, format, series: [{label, tone, x, y, dots}], marks, zero, caption}
function lineChart(chart) {
  chart = { format: number, ...chart };
  const xs = [...new Set(chart.series.flatMap((each) => each.x))].sort((a, b) => a - b);
  const many = chart.series.some((each) => each.x.length > SMOOTH_FROM);
  const reach = many ? Math.max(1, Math.round(xs.length / 60)) : 0;
  const draw = (width) => {
    const frame = axes(chart, width, chart.xRange || [xs[0], xs[xs.length - 1]], bounds(chart.series.flatMap((each) => each.y), chart.zero));
    const lines = chart.series.map((each) => {
      const isLong = each.x.length > SMOOTH_FROM;
      const raw = svg("path", { class: `line ${each.tone}${isLong ? " raw" : ""}`, d: path(each.x, each.y, frame.x, frame.y) });
      const bold = isLong ? [svg("path", { class: `line ${each.tone}`, d: path(each.x, smooth(each.y, reach), frame.x, frame.y) })] : [];
      const shown = each.dots || each.x.length === 1 ? each.x.map((at, place) => [at, each.y[place]]).filter(([, value]) => value !== null) : [];
      return [raw, ...bold, ...shown.map(([at, value]) => dot(each.tone, frame.x(at), frame.y(value)))];
    });
    return { parts: [...frame.parts, ...lines.flat()], x: frame.x, bottom: frame.bottom };
  };
  const read = (at) => `${chart.xName} ${number(xs[at])}: ` + chart.series.map((each) => {
    const place = each.x.indexOf(xs[at]);
    return place < 0 || each.y[place] === null ? null : `${each.label} ${chart.format(each.y[place])}`;
  }).filter(Boolean).join(", ");
  const summary = chart.series.map((each) => {
    const known = each.y.filter((value) => value !== null);
    return known.length ? `${each.label} from ${chart.format(known[0])} to ${chart.format(known[known.length - 1])}` : `${each.label} without a value`;
  }).join("; ");
  const caption = [chart.caption, reach ? `Bold: mean of ${2 * reach + 1} neighbours.` : ""].filter(Boolean).join(" ");
  return frameOf({ ...chart, caption, summary }, draw, xs, read);
}

// chart: {title, xName, edges, series: [{label, tone, counts, mean}], caption}
function histogram(chart) {
  chart = { format: number, zero: true, ...chart };
  const { edges } = chart, middles = edges.slice(1).map((edge, at) => (edge + edges[at]) / 2);
  const draw = (width) => {
    const frame = axes(chart, width, [edges[0], edges[edges.length - 1]], bounds(chart.series.flatMap((each) => each.counts), true));
    const shapes = chart.series.map((each) => {
      const tops = each.counts.map((count, at) => `L${frame.x(edges[at]).toFixed(1)} ${frame.y(count).toFixed(1)}L${frame.x(edges[at + 1]).toFixed(1)} ${frame.y(count).toFixed(1)}`);
      const outline = `M${frame.x(edges[0])} ${frame.bottom}${tops.join("")}L${frame.x(edges[edges.length - 1])} ${frame.bottom}`;
      const mean = each.mean === null ? [] : [svg("line", { class: `line mean ${each.tone}`, x1: frame.x(each.mean), x2: frame.x(each.mean), y1: MARGIN.top, y2: frame.bottom })];
      return [svg("path", { class: `area ${each.tone}`, d: outline }), ...mean];
    });
    return { parts: [...frame.parts, ...shapes.flat()], x: frame.x, bottom: frame.bottom };
  };
  const bin = (at) => (edges[at + 1] - edges[at] === 1 && Number.isInteger(middles[at]) ? number(middles[at]) : `${number(edges[at])} to ${number(edges[at + 1])}`);
  const read = (at) => `${chart.xName} ${bin(at)}: ${chart.series.map((each) => `${each.label} ${number(each.counts[at])}`).join(", ")}`;
  const summary = chart.series.map((each) => `${each.label}: mean ${number(each.mean)}`).join("; ");
  return frameOf({ ...chart, summary }, draw, middles, read);
}

function legend({ title, series }) {
  if (series.length === 1 && series[0].label === title) return el("div", { class: "legend" });
  const swatch = (tone) => svg("svg", { class: "swatch", width: 26, height: 8, "aria-hidden": "true" }, svg("line", { class: `line ${tone}`, x1: 0, x2: 26, y1: 4, y2: 4 }));
  return el("div", { class: "legend" }, series.map((each) => el("span", null, swatch(each.tone), each.label)));
}

function frameOf(chart, draw, xs, read) {
  const readout = el("p", { class: "caption readout", "aria-live": "polite" }, chart.caption || "");
  const picture = svg("svg", { height: HEIGHT, role: "img", tabindex: "0", "aria-label": `${chart.title}. ${chart.summary}. Left and right arrow keys read values.` });
  let drawn = null, at = -1, cursor = null;
  const show = (place) => {
    at = Math.max(0, Math.min(xs.length - 1, place));
    if (!drawn || !xs.length) return;
    const x = drawn.x(xs[at]);
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.setAttribute("visibility", "visible");
    readout.textContent = read(at);
  };
  const hide = () => { at = -1; readout.textContent = chart.caption || ""; if (cursor) cursor.setAttribute("visibility", "hidden"); };
  const redraw = (width) => {
    drawn = draw(width);
    cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: drawn.bottom, visibility: "hidden" });
    picture.setAttribute("width", width);
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    picture.replaceChildren(...drawn.parts, cursor);
  };
  picture.addEventListener("pointermove", (event) => {
    const left = event.clientX - picture.getBoundingClientRect().left;
    show(xs.reduce((best, value, place) => (Math.abs(drawn.x(value) - left) < Math.abs(drawn.x(xs[best]) - left) ? place : best), 0));
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { show(at + step); event.preventDefault(); }
  });
  const holder = el("div", { class: "holder" }, picture);
  new ResizeObserver(([entry]) => { if (entry.contentRect.width > 0) redraw(Math.floor(entry.contentRect.width)); }).observe(holder);
  return el("figure", { class: "chart" }, el("figcaption", null, chart.title), legend(chart), holder, readout);
}
