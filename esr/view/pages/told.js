"use strict";
// Numbers, times and marks as people read them: one form for all pages.
Object.assign(esr, {
  percent(value, digits = 1) { return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`; },
  number(value, digits = 1) { return value === null || value === undefined ? "–" : Number(value).toFixed(digits); },
  signed(value, digits = 1) { return value === null || value === undefined ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`; },
  count(value) { return value === null || value === undefined ? "–" : Number(value).toLocaleString("en-US"); },
  cost(value) { return value === null || value === undefined ? "unknown" : `$${value.toFixed(2)}`; },
  duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    const s = Math.round(seconds);
    return `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${String(s % 60).padStart(2, "0")}`;
  },
  time(iso) { return iso ? iso.replace("T", " ").slice(0, 16) : "–"; },
  // A rate with its interval, or the reason why there is none.
  estimate(e) {
    if (!e || e.value === null) return "–";
    const by = e.rate ? 100 : 1, unit = e.rate ? " %" : "";
    const span = e.interval ? ` [${(by * e.interval[0]).toFixed(1)}, ${(by * e.interval[1]).toFixed(1)}]` : "";
    return `${(by * e.value).toFixed(1)}${unit}${span}`;
  },
  table(head, rows, attrs) {
    const el = esr.el;
    const cell = (tag, one, i) => (one instanceof Node && /^T[DH]$/.test(one.tagName) ? one
      : el(tag, { class: head[i] && head[i].right ? "right" : null, scope: tag === "th" ? "col" : null }, one));
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": (attrs && attrs.label) || "table" },
      el("table", { class: attrs && attrs.class },
        el("thead", null, el("tr", null, head.map((one, i) => cell("th", one.name ?? one, i)))),
        el("tbody", null, rows.map((row) => (row instanceof Node ? row : el("tr", null, row.map((one, i) => cell("td", one, i))))))));
  },
  // A row of choices, as a select with its name before it.
  choose(name, options, now, change) {
    const el = esr.el;
    const box = el("select", { onchange: (event) => change(event.target.value), "aria-label": name },
      options.map(([value, text]) => el("option", { value, selected: String(value) === String(now ?? "") }, text)));
    return el("label", { class: "choose" }, el("span", null, name), box);
  },
});

// Whose results: what the address says, with what it leaves out filled in from what the store holds.
Object.assign(esr, {
  async studies() { return { studies: await esr.load("studies", {}) }; },
  choice(told, params, needsExperiment = true) {
    const wanted = ["experiment", "model", "scale", "judge"].filter((name) => params[name] && (needsExperiment || name !== "experiment"));
    const fits = told.studies.filter((one) => wanted.every((name) => one[name] === params[name]));
    if (!told.studies.length) throw new Error("This store holds no graded trials yet; a run such as python -m flows exp01 tiny makes some.");
    if (!fits.length) throw new Error(`Nothing here is of ${wanted.map((name) => `${name} ${params[name]}`).join(", ")}.`);
    const full = fits.filter((one) => one.scale === "full");
    const best = (full.length ? full : fits).reduce((a, b) => (b.n > a.n ? b : a));
    const { experiment, model, scale, judge } = best;
    return { experiment: params.experiment || (needsExperiment ? experiment : ""), model, scale, judge };
  },
  // Selects for model, scale and judge (and experiment), each leading to the same page of another study.
  chooser(told, now, page, keep = {}, anyExperiment = false) {
    const bar = esr.el("div", { class: "bar" });
    const values = (name) => [...new Set(told.studies.filter((one) => name === "experiment" || name === "model" || one.model === now.model).map((one) => one[name]))];
    const go = (change) => {
      const wanted = { ...now, ...change };
      const fits = told.studies.some((one) => ["experiment", "model", "scale", "judge"].every((name) => !wanted[name] || one[name] === wanted[name]));
      esr.go(page, fits ? { ...keep, ...wanted } : { ...keep, ...change, experiment: change.experiment ?? (change.model ? "" : now.experiment) });
    };
    for (const name of ["experiment", "model", "scale", "judge"]) {
      if (name === "experiment" && anyExperiment === null) continue;
      const options = values(name).map((one) => [one, one]);
      if (name === "experiment" && anyExperiment) options.unshift(["", "all"]);
      if (options.length > 1 || name === "experiment" || name === "model") bar.append(esr.choose(name, options, now[name], (value) => go({ [name]: value })));
    }
    return bar;
  },
  scores(list) { return list && list.length ? list.map((one) => esr.number(one, 0)).join(" → ") : "–"; },
  outcome(corrected, attempts) { return attempts === null || attempts === undefined ? "missing" : corrected ? "corrected" : attempts > 1 ? "no gain" : "single"; },
  pill(text, kind) { return esr.el("span", { class: `pill ${kind || ""}` }, text); },
  pillOf(outcome) { return esr.pill({ corrected: "corrected itself", "no gain": "began again, no gain", single: "one attempt", missing: "no grade" }[outcome], { corrected: "good", "no gain": "amber", missing: "bad" }[outcome]); },
  // Offsets of the store count characters; JavaScript's count halves of some of them.
  points(text) { return Array.from(text); },
  // Which fifth of the scores from 0 to 100 a score is in.
  fifth(score) { return score === null || score === undefined ? 2 : Math.min(4, Math.floor(score / 20)); },
  // A reply with its attempts coloured by their scores and the detector's restarts underlined; marks may overlap.
  marked(text, attempts, restarts, cut) {
    const { el } = esr, chars = esr.points(text);
    const found = attempts.map((one, i) => ({ ...one, i })).filter((one) => one.start !== null && one.start !== undefined);
    const edges = new Set([0, chars.length]);
    for (const one of found) edges.add(one.start).add(one.end ?? chars.length);
    for (const [start, end] of restarts) edges.add(start).add(end);
    const at = [...edges].filter((edge) => edge <= chars.length).sort((a, b) => a - b);
    const out = [];
    for (let k = 0; k + 1 < at.length; k++) {
      const inside = found.filter((one) => one.start <= at[k] && (one.end ?? chars.length) > at[k]).at(-1);
      if (inside && inside.start === at[k]) out.push(el("span", { class: "score", title: `attempt ${inside.i + 1}` }, `${inside.i + 1}: ${esr.number(inside.score, 0)}`));
      const restart = restarts.some(([start, end]) => start <= at[k] && end > at[k]);
      const names = [inside ? `s${esr.fifth(inside.score)}` : "", restart ? "restart" : ""].filter(Boolean).join(" ");
      const piece = chars.slice(at[k], at[k + 1]).join("");
      out.push(names ? el("span", { class: names }, piece) : piece);
    }
    return el("div", { class: chars.length > 8000 ? "reply long" : "reply", tabindex: chars.length > 8000 ? 0 : null, dir: "auto" }, out, cut ? el("span", { class: "faint" }, " (cut at the limit)") : null);
  },
  facts(rows) { return esr.el("dl", { class: "facts" }, rows.filter(Boolean).map(([name, ...value]) => [esr.el("dt", null, name), esr.el("dd", null, ...value)])); },
});
