"use strict";
// All trials in one table: filtered, sorted and searched in the browser, drawn only where one looks.
(() => {
  const ROW = 27, ROOM = 12;
  const COLUMNS = [
    ["trial", "trial"], ["arm", "arm"], ["latent", "latent"], ["question", "question"], ["boost", "boost", true], ["attempts", "attempts", true],
    ["first", "first", true], ["last", "last", true], ["gain", "gain", true], ["outcome", "outcome"], ["notes", "notes"],
  ];
  const OUTCOMES = [["", "any"], ["corrected", "corrected"], ["multi", "second attempt"], ["no gain", "second attempt, no gain"], ["single", "one attempt"], ["missing", "missing"]];

  // Columns of several studies as one.
  function joined(parts) {
    if (parts.length === 1) return parts[0];
    const out = { n: 0, judge: parts[0].judge, labels: Object.assign({}, ...parts.map((one) => one.labels)) };
    const names = Object.keys(parts[0]).filter((name) => !["n", "judge", "labels"].includes(name));
    for (const name of names) out[name] = Array.isArray(parts[0][name]) ? parts.flatMap((one) => one[name]) : code(parts.map((one) => one[name]));
    out.n = out.trial.length;
    return out;
  }
  function code(parts) {
    const names = [...new Set(parts.flatMap((one) => one.names))], at = new Map(names.map((name, i) => [name, i]));
    return { names, of: parts.flatMap((one) => { const moved = one.names.map((name) => at.get(name)); return one.of.map((i) => moved[i]); }) };
  }
  async function rowsOf(told, now) {
    const study = { model: now.model, scale: now.scale, judge: now.judge };
    if (now.experiment || !esr.bundle) return esr.load("trials", { ...study, experiment: now.experiment });
    const mine = told.studies.filter((one) => ["model", "scale", "judge"].every((name) => one[name] === now[name]));
    return joined(await Promise.all(mine.map((one) => esr.load("trials", { ...study, experiment: one.experiment }))));
  }
  // Ids of trials whose reply or prompt holds the text.
  const lowered = new Map();
  async function holding(text, told, now) {
    const study = { model: now.model, scale: now.scale, judge: now.judge };
    if (!esr.bundle) return new Set(await esr.load("search", { ...study, experiment: now.experiment, q: text }));
    const mine = told.studies.filter((one) => ["model", "scale", "judge"].every((name) => one[name] === now[name]) && (!now.experiment || one.experiment === now.experiment));
    const found = new Set(), low = text.toLowerCase();
    for (const one of mine) {
      const key = esr.address("texts", { ...study, experiment: one.experiment });
      if (!lowered.has(key)) {
        const t = await esr.load("texts", { ...study, experiment: one.experiment });
        lowered.set(key, { trial: t.trial, text: t.text.map((said) => said.toLowerCase()), prompts: t.prompt.names.map((said) => said.toLowerCase()), of: t.prompt.of });
      }
      const t = lowered.get(key), asked = t.prompts.map((said) => said.includes(low));
      for (let i = 0; i < t.trial.length; i++) if (asked[t.of[i]] || t.text[i].includes(low)) found.add(t.trial[i]);
    }
    return found;
  }

  esr.page("trials", async (root, params) => {
    const { el } = esr;
    const told = await esr.studies();
    const now = esr.choice(told, params, false);
    esr.put(root, el("h1", null, "Trials"), esr.chooser(told, now, "trials", {}, true));
    let t;
    try { t = await rowsOf(told, now); } catch (error) { esr.put(root, el("p", { role: "alert" }, error.message)); return; }
    const kept = { ...params, ...now };
    let found = null, shown = [], at = -1, asked = 0;

    const gain = new Float64Array(t.n), outcome = new Array(t.n);
    for (let i = 0; i < t.n; i++) {
      outcome[i] = esr.outcome(t.corrected[i], t.attempts[i]);
      gain[i] = t.attempts[i] === null ? NaN : t.last[i] - t.first[i];
    }
    const rank = (names) => { const order = [...names.keys()].sort((a, b) => names[a].localeCompare(names[b])); const out = []; order.forEach((name, place) => { out[name] = place; }); return out; };
    const byQuestion = rank(t.question.names);
    const keyOf = {
      trial: (i) => t.trial[i], arm: (i) => t.arm.of[i], latent: (i) => t.labels[t.latent[i]] || String(t.latent[i]), question: (i) => byQuestion[t.question.of[i]],
      boost: (i) => t.boost[i], attempts: (i) => t.attempts[i], first: (i) => t.first[i], last: (i) => t.last[i],
      gain: (i) => (Number.isNaN(gain[i]) ? null : gain[i]), outcome: (i) => ["corrected", "no gain", "single", "missing"].indexOf(outcome[i]),
      notes: (i) => -((t.degraded[i] ? 1 : 0) + (t.differ[i] ? 2 : 0) + (t.missing.of[i] ? 4 : 0)),
    };

    function filter() {
      const arm = kept.arm ? t.arm.names.indexOf(kept.arm) : null, question = kept.question ? t.question.names.indexOf(kept.question) : null;
      const latent = kept.latent ? Number(kept.latent) : null, reason = kept.missing ? t.missing.names.indexOf(kept.missing) : null;
      const low = kept.from ? Number(kept.from) : null, high = kept.to ? Number(kept.to) : null;
      const out = [];
      for (let i = 0; i < t.n; i++) {
        if (arm !== null && t.arm.of[i] !== arm) continue;
        if (latent !== null && t.latent[i] !== latent) continue;
        if (question !== null && t.question.of[i] !== question) continue;
        if (kept.outcome && outcome[i] !== kept.outcome && !(kept.outcome === "multi" && t.attempts[i] > 1)) continue;
        if (kept.degraded && String(t.degraded[i]) !== kept.degraded) continue;
        if (kept.judges && String(t.differ[i]) !== kept.judges) continue;
        if (reason !== null && t.missing.of[i] !== reason) continue;
        if (low !== null && !(t.first[i] !== null && t.first[i] >= low)) continue;
        if (high !== null && !(t.first[i] !== null && t.first[i] <= high)) continue;
        if (found && !found.has(t.trial[i])) continue;
        out.push(i);
      }
      const key = keyOf[kept.sort];
      if (key) {
        const keys = new Array(t.n), sign = kept.down ? -1 : 1;
        for (const i of out) keys[i] = key(i);
        out.sort((a, b) => {
          const x = keys[a], y = keys[b];
          if (x === null || y === null) return (x === null) - (y === null) || a - b;
          return x < y ? -sign : x > y ? sign : a - b;
        });
      }
      return out;
    }

    const body = el("div", { class: "body", role: "rowgroup" }), grid = el("div", { class: "grid", tabindex: 0, role: "grid", "aria-label": "trials" });
    const heads = COLUMNS.map(([key, name, right]) => el("button", { class: right ? "num" : null, data: { key }, title: `sort by ${name}`, onclick: () => {
      if (kept.sort === key) { if (kept.down) { kept.down = ""; kept.sort = ""; } else kept.down = "1"; } else { kept.sort = key; kept.down = right ? "1" : ""; }
      apply();
    } }, name));
    grid.append(el("div", { class: "head", role: "row" }, heads), body);
    const count = el("span", { class: "faint", role: "status" });

    function line(place) {
      const i = shown[place], name = t.labels[t.latent[i]];
      const notes = [t.missing.names[t.missing.of[i]], t.degraded[i] ? "degraded" : "", t.cut[i] ? "cut" : "", t.differ[i] ? "judges differ" : ""].filter(Boolean).join(", ");
      const kind = { corrected: "good", "no gain": "amber", missing: "bad" }[outcome[i]] || "faint";
      return el("a", { class: place === at ? "line at" : "line", role: "row", tabindex: -1, href: esr.address("trial", { id: t.trial[i], judge: now.judge }), style: { top: `${place * ROW}px` } },
        el("span", { class: "mono" }, t.trial[i].slice(0, 8)), el("span", { title: t.arm.names[t.arm.of[i]] }, t.arm.names[t.arm.of[i]]),
        el("span", { title: name || "" }, name || `latent ${t.latent[i]}`), el("span", { title: t.question.names[t.question.of[i]] }, t.question.names[t.question.of[i]]),
        el("span", { class: "num" }, t.boost[i] ? esr.number(t.boost[i]) : "–"), el("span", { class: "num" }, t.attempts[i] ?? "–"),
        el("span", { class: "num" }, esr.number(t.first[i])), el("span", { class: "num" }, esr.number(t.last[i])),
        el("span", { class: "num" }, t.attempts[i] > 1 ? esr.signed(gain[i]) : "–"), el("span", { class: kind }, outcome[i]), el("span", { class: "faint", title: notes }, notes));
    }
    function draw() {
      const top = Math.max(0, Math.floor(grid.scrollTop / ROW) - ROOM), many = Math.ceil((grid.clientHeight || 700) / ROW) + 2 * ROOM;
      const lines = [];
      for (let place = top; place < Math.min(shown.length, top + many); place++) lines.push(line(place));
      body.replaceChildren(...lines);
    }
    let waiting = false;
    grid.addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } });
    grid.addEventListener("keydown", (event) => {
      if (event.target !== grid) return;
      const page = Math.max(1, Math.floor(grid.clientHeight / ROW) - 2);
      const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
      if (step !== undefined && shown.length) {
        event.preventDefault();
        at = Math.max(0, Math.min(shown.length - 1, at + step));
        const y = at * ROW;
        if (y < grid.scrollTop) grid.scrollTop = y; else if (y + ROW > grid.scrollTop + grid.clientHeight - 34) grid.scrollTop = y + ROW - grid.clientHeight + 34;
        draw();
      } else if (event.key === "Enter" && at >= 0) esr.go("trial", { id: t.trial[shown[at]], judge: now.judge });
    });

    function apply() {
      const began = performance.now();
      shown = filter();
      at = -1;
      grid.scrollTop = 0;
      body.style.height = `${shown.length * ROW}px`;
      for (const head of heads) { if (head.dataset.key === kept.sort) head.dataset.sort = kept.down ? "down" : "up"; else delete head.dataset.sort; head.textContent = COLUMNS.find(([key]) => key === head.dataset.key)[1] + (head.dataset.sort === "up" ? " ↑" : head.dataset.sort === "down" ? " ↓" : ""); }
      draw();
      count.textContent = shown.length === t.n ? `${esr.count(t.n)} trials` : `${esr.count(shown.length)} of ${esr.count(t.n)} trials`;
      esr.note(kept);
      grid.dataset.took = String(performance.now() - began);
      grid.dataset.shown = String(shown.length);
    }
    async function search(text) {
      const mine = ++asked;
      kept.q = text;
      if (!text) { found = null; apply(); return; }
      count.textContent = "searching …";
      try {
        const some = await holding(text, told, now);
        if (mine !== asked) return;
        found = some;
        apply();
      } catch (error) { count.textContent = error.message; }
    }
    let pause = null;
    // In place: what is typed right after it is kept.
    function clear() {
      clearTimeout(pause);
      asked++;
      found = null;
      for (const name of Object.keys(kept)) if (!(name in now)) delete kept[name];
      for (const field of bar.querySelectorAll("input, select")) field.value = "";
      apply();
    }
    const set = (name) => (value) => { kept[name] = value; apply(); };
    const latents = Object.entries(t.labels).sort((a, b) => (a[1] || a[0]).localeCompare(b[1] || b[0])).map(([key, label]) => [key, label || `latent ${key}`]);
    const number = (name, about) => el("label", { class: "choose" }, el("span", null, about), el("input", { type: "number", min: 0, max: 100, value: kept[name] || "", style: { width: "4.5rem" }, oninput: (event) => set(name)(event.target.value) }));
    const reasons = t.missing.names.filter(Boolean);
    const bar = el("div", { class: "bar" },
        el("label", { class: "choose" }, el("span", null, "text of reply or prompt"), el("input", { type: "search", value: kept.q || "", oninput: (event) => { clearTimeout(pause); pause = setTimeout(() => search(event.target.value.trim()), 180); } })),
        esr.choose("arm", [["", "any"], ...t.arm.names.map((one) => [one, one])], kept.arm, set("arm")),
        esr.choose("latent", [["", "any"], ...latents], kept.latent, set("latent")),
        esr.choose("question", [["", "any"], ...[...t.question.names].sort().map((one) => [one, one])], kept.question, set("question")),
        esr.choose("outcome", OUTCOMES, kept.outcome, set("outcome")),
        esr.choose("degraded", [["", "any"], ["0", "no"], ["1", "yes"]], kept.degraded, set("degraded")),
        number("from", "first score from"), number("to", "to"),
        t.differ.some((one) => one !== null) ? esr.choose("judges", [["", "any"], ["1", "differ"], ["0", "agree"]], kept.judges, set("judges")) : null,
        reasons.length ? esr.choose("missing because", [["", "any"], ...reasons.map((one) => [one, one])], kept.missing, set("missing")) : null,
        el("button", { onclick: clear }, "clear"), count);
    esr.put(root, bar,
      grid,
      el("p", { class: "note" }, "Arrow keys and Enter go through the table when it has the focus. The address above holds the whole view: whoever opens it sees the same."));
    new ResizeObserver(draw).observe(grid);
    apply();
    if (kept.q) await search(kept.q);
  }, { nav: "Trials", place: 20, title: "Trials" });
})();
