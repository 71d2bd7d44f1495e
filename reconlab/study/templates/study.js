"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study-data").textContent);
  const hit = study.mode === "hit";
  const query = new URLSearchParams(location.search);
  const at = (id) => document.getElementById(id);
  const prefix = `reconlab-study:${study.study}:`;
  let state = null; // of the participant: {study, participant, started, finished, at, answers}
  let since = null; // when the shown question came into view

  // --- storage: the page works without it, but then cannot go on after a reload
  const load = (name) => { try { return JSON.parse(localStorage.getItem(prefix + name)); } catch { return null; } };
  const keep = (name, value) => { try { localStorage.setItem(prefix + name, JSON.stringify(value)); return true; } catch { return false; } };
  const save = () => keep("of:" + state.participant, state);

  // --- chance: a participant's order and sides follow from the study and the name, so a reload shows the same
  function chance(text) {
    let seed = 2166136261;
    for (const byte of new TextEncoder().encode(text)) seed = Math.imul(seed ^ byte, 16777619);
    return () => { // a Weyl sequence, mixed
      seed = (seed + 0x9e3779b9) | 0;
      let z = Math.imul(seed ^ (seed >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return ((z ^ (z >>> 15)) >>> 0) / 4294967296;
    };
  }
  function shuffled(list, random) {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
  function fresh(participant) {
    const random = chance(`${study.study} ${participant}`);
    const answers = shuffled(study.questions, random).map(([question, ...options]) => {
      const [left, right] = shuffled(options, random);
      const views = shuffled([...Array(study.views).keys()], random);
      return { question, left, right, views, side: null, choice: null, milliseconds: 0 };
    });
    return { study: study.study, participant, started: new Date().toISOString(), finished: null, at: 0, answers };
  }
  const fits = (s) => s && s.study === study.study && Array.isArray(s.answers) && s.answers.length === study.questions.length;

  // --- the clock: only while the page is in view
  const start = () => { since = document.hidden ? null : performance.now(); };
  function stop() {
    if (since !== null && state && !state.finished) state.answers[state.at].milliseconds += Math.round(performance.now() - since);
    since = null;
  }
  document.addEventListener("visibilitychange", () => {
    if (at("question").hidden) return;
    if (document.hidden) { stop(); save(); } else start();
  });
  addEventListener("pagehide", () => { if (!at("question").hidden) { stop(); save(); } });

  // --- what is shown
  function show(name) {
    for (const id of ["start", "question", "done"]) at(id).hidden = id !== name;
    scrollTo(0, 0);
  }
  const source = (name) => (study.pictures ? study.pictures[name] : `${study.base}${name}.jpg`);
  function trouble(text) {
    at("trouble").textContent = text;
    at("trouble").hidden = !text;
  }
  function picture(image, name) {
    image.onerror = () => trouble("A picture could not be loaded. Please check your connection and reload the page.");
    image.src = source(name);
  }
  const ordinal = ["first", "second", "third"];
  function ask() {
    const answer = state.answers[state.at];
    trouble("");
    picture(at("input"), answer.question);
    for (const side of ["left", "right"]) {
      const box = at(`option-${side}`);
      box.dataset.option = answer[side];
      box.querySelector(".views").replaceChildren(...answer.views.map((view, i) => {
        const image = new Image(256, 256);
        image.alt = `${side === "left" ? "Left" : "Right"} shape, ${ordinal[i]} view`;
        picture(image, `${answer[side]}_${view}`);
        return image;
      }));
      at(side).checked = answer.side === side;
    }
    const number = `Question ${state.at + 1} of ${state.answers.length}`;
    at("question-heading").textContent = number;
    document.title = `${number} – ${at("start-heading").textContent}`;
    at("said").textContent = number;
    at("progress").value = state.answers.filter((a) => a.side).length;
    at("back").disabled = state.at === 0;
    at("next").disabled = !answer.side;
    at("next").textContent = state.at + 1 === state.answers.length ? "Finish" : "Next";
    if (!hit) at("who").textContent = state.participant;
    show("question");
    at("question-heading").focus();
    for (const a of state.answers.slice(state.at + 1, state.at + 3)) // so that the next pictures are there at once
      if (!study.pictures) for (const name of [a.question, ...a.views.flatMap((v) => [`${a.left}_${v}`, `${a.right}_${v}`])]) new Image().src = source(name);
    start();
  }
  function choose(side) {
    const answer = state.answers[state.at];
    answer.side = side;
    answer.choice = answer[side];
    at(side).checked = true;
    at("next").disabled = false;
    at("progress").value = state.answers.filter((a) => a.side).length;
    at("said").textContent = `${side === "left" ? "Left" : "Right"} shape chosen`;
    if (!save()) trouble("This browser does not let the page remember answers: please do not reload it before the end.");
  }
  function go(step) {
    if (step > 0 && !state.answers[state.at].side) return;
    stop();
    if (state.at + step === state.answers.length) {
      state.finished = new Date().toISOString();
      save();
      finish();
    } else if (state.at + step >= 0) {
      state.at += step;
      save();
      ask();
    } else start();
  }

  // --- what is handed over
  function results() {
    const { study: name, participant, started, finished, answers } = state;
    const rows = answers.map(({ question, left, right, views, side, choice, milliseconds }, i) =>
      ({ question, position: i + 1, left, right, views: views.join(" "), side, choice, milliseconds }));
    return { study: name, participant, started, finished, answers: rows };
  }
  function table(content) {
    const columns = ["study", "participant", "started", "finished", ...Object.keys(content.answers[0])];
    const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    const lines = content.answers.map((row) => columns.map((c) => cell(row[c] ?? content[c] ?? "")).join(","));
    return [columns.join(","), ...lines].join("\n") + "\n";
  }
  function download(text, suffix, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `answers_${state.participant.replace(/[^\w.-]+/g, "_")}_${study.study}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  function finish() {
    const content = results();
    at("results").value = JSON.stringify(content, null, 1);
    if (hit) {
      at("assignment").value = query.get("assignmentId") || "";
      at("hit-results").value = JSON.stringify(content);
      at("hand-in").action = target();
    }
    document.title = at("done-heading").textContent;
    at("said").textContent = "";
    show("done");
    at("done-heading").focus();
  }
  function target() { // the sandbox or the site, as the page's address says; nobody else's
    try {
      const given = new URL(query.get("turkSubmitTo"));
      if (given.protocol === "https:" && given.hostname.endsWith(".mturk.com")) return `${given.origin}/mturk/externalSubmit`;
    } catch { /* none given */ }
    return study.submit;
  }

  // --- what people do
  function begin(participant) {
    const before = load("of:" + participant);
    state = fits(before) ? before : fresh(participant);
    keep("last", participant);
    save();
    if (state.finished) finish(); else ask();
  }
  at("start-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = at("participant").value.trim();
    if (name) begin(name); else at("participant").focus();
  });
  at("answer-form").addEventListener("submit", (event) => { event.preventDefault(); go(1); });
  at("back").addEventListener("click", () => go(-1));
  for (const side of ["left", "right"]) at(side).addEventListener("change", () => choose(side));
  const sides = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right" };
  document.addEventListener("keydown", (event) => {
    if (at("question").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in sides) {
      choose(sides[event.key]);
      at(sides[event.key]).focus();
    } else if (event.key === "Enter" && event.target.tagName !== "BUTTON" && !event.repeat) go(1);
    else if (event.key === "Backspace") go(-1);
    else return;
    event.preventDefault();
  });
  if (!hit) {
    at("save-json").addEventListener("click", () => download(at("results").value + "\n", "json", "application/json"));
    at("save-csv").addEventListener("click", () => download(table(results()), "csv", "text/csv"));
    for (const id of ["again", "switch"]) at(id).addEventListener("click", () => {
      stop();
      save();
      keep("last", null);
      state = null;
      try { history.replaceState(null, "", location.pathname); } catch { /* a file's address may have to stay */ }
      at("start-form").reset();
      at("participant-row").hidden = false;
      document.title = at("start-heading").textContent;
      show("start");
      at("participant").focus();
    });
  }

  // --- where it begins
  const assignment = query.get("assignmentId");
  const named = (hit ? query.get("workerId") : query.get("participant"))?.trim().slice(0, 64);
  if (hit && (!assignment || assignment === "ASSIGNMENT_ID_NOT_AVAILABLE")) {
    at("preview").hidden = false;
    at("participant-row").hidden = true;
    for (const id of ["participant", "agree", "begin"]) at(id).disabled = true;
  } else {
    const last = named || load("last");
    if (named) {
      at("participant").value = named;
      at("participant-row").hidden = true;
    }
    if (last && fits(load("of:" + last))) begin(last);
  }
})();
