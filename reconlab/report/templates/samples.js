// The samples: filtered, sorted by any metric or by the difference of two runs, a page at a time.
"use strict";
window.Samples = (() => {
  const { data, color, truth, element } = window.Page;
  const { runs, metrics, samples } = data;
  const list = document.getElementById("list"), bar = document.getElementById("bar");
  if (!list || !samples.length) return null;
  const measured = runs.map((_, r) => new Set(metrics.map((m) => m.name).filter((n) => samples.some((s) => s.runs[r] && s.runs[r].values[n] != null))));
  const letter = (i) => String.fromCharCode(65 + i);
  const named = (i) => (runs.length > 1 ? `${letter(i)}: ${runs[i].name}` : runs[i].name);
  const title = (s) => [s.category, s.id].filter(Boolean).join(" / ") + (s.view === null ? "" : ` · view ${s.view}`);
  const state = { category: "", metric: 0, run: 0, minus: -1, best: false, per: 6, page: 0, linked: true, from: "quarter" };

  // --- order ---------------------------------------------------------------------------------------------------
  const has = (s, r) => s.runs[r] !== null;
  const failed = (s, r) => has(s, r) && (s.runs[r].failed.length > 0);
  const number = (s, r) => (has(s, r) && metrics.length ? s.runs[r].values[metrics[state.metric].name] ?? null : null);
  function badness(s) { // larger is worse; null without a number
    const sign = metrics.length && metrics[state.metric].higher ? -1 : 1;
    const own = number(s, state.run);
    if (state.minus < 0) return own === null ? null : sign * own;
    const other = number(s, state.minus);
    return own === null || other === null ? null : sign * (own - other);
  }
  function ordered() {
    const rows = samples.filter((s) => !state.category || s.category === state.category.slice(1)).map((s, i) => {
      const fails = metrics.length ? has(s, state.run) && s.runs[state.run].failed.includes(headline()) : failed(s, state.run);
      return { s, i, bad: badness(s), fails: state.minus < 0 && fails };
    });
    const turn = state.best ? -1 : 1;
    rows.sort((a, b) => {
      if (a.fails !== b.fails) return turn * (b.fails - a.fails);
      if (a.bad === null || b.bad === null) return (a.bad === null) - (b.bad === null) || a.i - b.i;
      return turn * (b.bad - a.bad) || a.i - b.i;
    });
    return rows.map((row) => row.s);
  }
  const headline = () => metrics[state.metric].counts || metrics[state.metric].name;

  // --- cameras -------------------------------------------------------------------------------------------------
  const STARTS = { quarter: [35, 20], front: [0, 0], right: [90, 0], back: [180, 0], left: [-90, 0], top: [0, 89] };
  const cameras = new Map();
  function camera(sample) { // linked: all samples turn together, each from its own start
    const key = state.linked ? "all" : sample;
    if (!cameras.has(key)) {
      const made = { turned: 0, raised: 0, zoom: 1, reset() { made.turned = made.raised = 0; made.zoom = 1; } };
      cameras.set(key, made);
    }
    const shared = cameras.get(key);
    const [a, e] = state.from === "input" ? sample.camera || STARTS.quarter : STARTS[state.from];
    return {
      get azimuth() { return a + shared.turned; }, set azimuth(v) { shared.turned = v - a; },
      get elevation() { return Math.max(-89, Math.min(89, e + shared.raised)); }, set elevation(v) { shared.raised = v - e; },
      get zoom() { return shared.zoom; }, set zoom(v) { shared.zoom = v; }, reset: shared.reset,
    };
  }

  // --- one sample ----------------------------------------------------------------------------------------------
  const shown = (v, m) => {
    if (v === null || v === undefined) return "–";
    const x = v * m.factor, size = Math.abs(x);
    return size > 0 && size < 0.1 ? x.toPrecision(3) : x.toFixed(size >= 1000 ? 0 : 2);
  };
  const note = (text, bad) => element("div", { class: bad ? "frame failed" : "frame" }, element("p", { text }));
  function viewer(sample, shape, paint, label) {
    const canvas = element("canvas", { tabindex: 0, role: "img", "aria-label": `${label}, interactive 3D: the arrow keys turn it, plus and minus zoom, zero resets` });
    window.Viewer.attach(canvas, shape, paint, () => camera(sample));
    return element("div", { class: "frame" }, canvas);
  }
  function simplified(shape) {
    if (!shape || shape.shown >= shape.count) return null;
    const what = shape.kind === "mesh" ? "faces" : "points";
    return element("p", { class: "small", text: `shown with ${shape.shown} of ${shape.count} ${what}` });
  }
  function heading(paint, text) {
    const swatch = paint ? element("span", { class: "swatch", "aria-hidden": "true" }) : null;
    if (swatch) swatch.style.background = paint();
    return element("figcaption", { title: text }, swatch, element("b", { text }));
  }
  function column(sample, r) {
    const slot = sample.runs[r], paint = () => color(runs[r].color), label = runs.length > 1 ? named(r) : "prediction";
    const parts = [heading(paint, label)];
    if (!slot) return element("figure", {}, ...parts, note("not among this run's samples"));
    if (slot.shape) parts.push(viewer(sample, slot.shape, paint, `${label} of ${title(sample)}`), simplified(slot.shape));
    else parts.push(note(slot.note || (sample.has3d ? "no shape" : "numbers only (see --samples)"), slot.failed.length || (slot.note && sample.has3d)));
    const values = element("dl", { class: "values" });
    metrics.forEach((m, i) => {
      if (i !== state.metric && !measured[r].has(m.name)) return;
      const bad = slot.failed.includes(m.counts || m.name), mark = (i === state.metric ? "chosen" : "") + (bad ? " failed" : "");
      values.append(element("dt", { class: mark, text: m.header, title: m.header }), element("dd", { class: mark, text: shown(slot.values[m.name], m) + (bad ? " failed" : "") }));
    });
    return element("figure", { "data-run": r }, ...parts, values);
  }
  function card(sample, rank) {
    const views = element("div", { class: "views" });
    if (sample.image) {
      const picture = element("img", { alt: `input image of ${title(sample)}`, src: `data:image/png;base64,${sample.image}` });
      views.append(element("figure", {}, heading(null, "input"), element("div", { class: "frame white" }, picture)));
    }
    const order = runs.map((_, r) => r);
    const real = sample.truth
      ? element("figure", { "data-truth": true }, heading(truth, "truth"), viewer(sample, sample.truth, truth, `truth of ${title(sample)}`), simplified(sample.truth))
      : null;
    views.append(...order.map((r) => column(sample, r)));
    if (real) views.append(real);
    const name = element("h3", {}, element("span", { class: "rank", text: `${rank}.` }), element("span", { class: "name", text: title(sample) }), " ");
    if (runs.some((_, r) => failed(sample, r))) name.append(element("span", { class: "badge bad", text: "failed" }));
    const away = state.minus >= 0 && badness(sample) !== null ? difference(sample) : null;
    return element("li", { class: "card", "data-key": JSON.stringify([sample.category, sample.id, sample.view]) }, name, away, views,
      sample.note ? element("p", { class: "small", text: sample.note }) : null);
  }
  function difference(sample) {
    const m = metrics[state.metric], d = number(sample, state.run) - number(sample, state.minus);
    const text = `${m.name}: ${letter(state.run)} − ${letter(state.minus)} = ${d > 0 ? "+" : ""}${shown(d, m)}`;
    return element("p", { class: "small", text });
  }

  // --- the page ------------------------------------------------------------------------------------------------
  let rows = [];
  function render(move) {
    rows = ordered();
    const pages = Math.max(1, Math.ceil(rows.length / state.per));
    state.page = Math.max(0, Math.min(pages - 1, state.page));
    list.querySelectorAll("canvas").forEach((canvas) => window.Viewer.release(canvas));
    const first = state.page * state.per, part = rows.slice(first, first + state.per);
    const columns = runs.length + 2, fits = Math.max(165, Math.min(320, 1180 / columns - 14));
    const wide = `${Math.floor(state.per === 1 ? Math.max(340, fits) : fits)}px`;
    list.style.setProperty("--tile", window.innerWidth > 560 ? wide : "");
    list.replaceChildren(...part.map((s, i) => card(s, first + i + 1)));
    const m = metrics[state.metric], end = first + part.length;
    const by = m ? `, ${direction()} by ${m.name}` + (runs.length > 1 ? ` of ${letter(state.run)}${state.minus < 0 ? "" : ` − ${letter(state.minus)}`}` : "") : "";
    document.getElementById("where").textContent = rows.length ? `Samples ${first + 1}–${end} of ${rows.length}${by}` : "No sample of this category.";
    document.querySelectorAll("[data-go]").forEach((b) => { const to = state.page + Number(b.dataset.go); b.disabled = to < 0 || to >= pages; });
    if (move) document.getElementById("samples").scrollIntoView();
  }
  const direction = () => (state.best ? "best first" : "worst first");
  const update = (changes) => { Object.assign(state, { page: 0 }, changes); render(false); };
  function choice(label, id, options, value, set) {
    const select = element("select", { id, onchange: (e) => set(e.target.value) });
    options.forEach(([key, text]) => select.append(element("option", { value: key, text, selected: String(key) === String(value) })));
    return element("label", {}, label, select);
  }
  function pager() {
    const go = (step) => { state.page += step; render(true); };
    const button = (step, text, label) => element("button", { type: "button", "data-go": step, text, "aria-label": label, onclick: () => go(step) });
    return element("div", { class: "pager" }, button(-1, "‹ Previous", "Previous samples"), button(1, "Next ›", "Next samples"));
  }
  function controls() {
    const categories = [...new Set(samples.map((s) => s.category))].sort();
    if (categories.length > 1) bar.append(choice("Category", "by-category", [["", "all"], ...categories.map((c) => ["=" + c, c || "(none)"])], "", (v) => update({ category: v })));
    if (metrics.length) {
      bar.append(choice("Sort by", "by-metric", metrics.map((m, i) => [i, m.header]), 0, (v) => update({ metric: Number(v) })));
      if (runs.length > 1) {
        const minus = choice("minus", "by-minus", [[-1, "nothing"], ...runs.map((_, i) => [i, named(i)])], -1, (v) => update({ minus: Number(v) }));
        bar.append(choice("of", "by-run", runs.map((_, i) => [i, named(i)]), 0, (v) => update({ run: Number(v) })), minus);
      }
      bar.append(choice("Order", "by-order", [["worst", "worst first"], ["best", "best first"]], "worst", (v) => update({ best: v === "best" })));
    }
    bar.append(choice("On a page", "per-page", [[1, "1, large"], [6, "6"], [12, "12"], [24, "24"]], 6, (v) => update({ per: Number(v) })));
    const starts = [["quarter", "three quarters"], ["input", "the input's camera"], ["front", "front (+z)"], ["right", "+x"], ["back", "−z"], ["left", "−x"], ["top", "top (+y)"]];
    const known = samples.some((s) => s.camera) ? starts : starts.filter(([k]) => k !== "input");
    bar.append(choice("Seen from", "seen-from", known, "quarter", (v) => { state.from = v; cameras.forEach((c) => c.reset()); window.Viewer.redraw(); }));
    const box = element("input", { type: "checkbox", id: "linked", checked: true, onchange: (e) => { state.linked = e.target.checked; window.Viewer.redraw(); } });
    bar.append(element("label", { class: "check" }, box, "turn all together"), pager());
    document.getElementById("bar-end").append(pager());
  }
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    const step = { n: 1, p: -1 }[e.key.toLowerCase()], button = step && document.querySelector(`[data-go="${step}"]`);
    if (button && !button.disabled) { e.preventDefault(); button.click(); }
  });
  controls();
  render(false);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render(false));
  return { state, camera, order: () => rows.map(title) };
})();
