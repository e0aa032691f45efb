"use strict";
// Two sides in pairs: differences, trials without a partner, and the replies that changed beside each other, their changed words marked.
(() => {
  const el = esr.el;
  const OUTCOMES = ["single", "multi", "corrected"];
  const NAMES = {
    first_score_mean: "first-attempt score", multi_attempt_rate: "multi-attempt rate", esr_rate: "ESR rate", improvement_rate: "improvement rate",
    gain_all_mean: "gain, all trials", gain_multi_mean: "gain, with a second attempt", degraded_rate: "degraded", attempts_mean: "attempts",
  };
  const RATES = new Set(["multi_attempt_rate", "esr_rate", "improvement_rate", "degraded_rate"]);
  const CELLS = 4e6;        // of the table in which words are aligned; longer replies are marked from where they part to where they meet

  // Words.
  function words(text) { return [...text.matchAll(/\S+/g)].map((found) => ({ word: found[0], at: found.index })); }
  // Of each side, whether each word is in the other's at the same place in the order.
  function aligned(a, b) {
    const keep = [new Uint8Array(a.length), new Uint8Array(b.length)];
    let head = 0, tail = 0;
    while (head < a.length && head < b.length && a[head].word === b[head].word) head++;
    while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail].word === b[b.length - 1 - tail].word) tail++;
    keep[0].fill(1, 0, head); keep[1].fill(1, 0, head);
    keep[0].fill(1, a.length - tail); keep[1].fill(1, b.length - tail);
    const n = a.length - head - tail, m = b.length - head - tail;
    if (!n || !m || n * m > CELLS) return keep;
    const wide = m + 1, longest = new Uint16Array((n + 1) * wide);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        const at = i * wide + j;
        longest[at] = a[head + i].word === b[head + j].word ? longest[at + wide + 1] + 1 : Math.max(longest[at + wide], longest[at + 1]);
      }
    }
    let run = [];           // words alike in a row; one alone between changed ones tells nothing
    const end = () => { if (run.length > 1) for (const [i, j] of run) { keep[0][i] = 1; keep[1][j] = 1; } run = []; };
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[head + i].word === b[head + j].word) { run.push([head + i++, head + j++]); continue; }
      end();
      if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i++;
      else j++;
    }
    end();
    return keep;
  }
  // A reply as text, its changed words in marks and its attempts where they begin.
  function told(text, found, same, side) {
    const begins = side.begins.map((at, i) => ({ at, i })).filter((one) => one.at !== null).sort((x, y) => x.at - y.at);
    const nodes = [];
    let done = 0, open = null, next = 0;
    const plain = (to) => { if (to > done) { (open || nodes).push(text.slice(done, to)); done = to; } };
    const close = () => { if (open) { nodes.push(el("mark", null, open)); open = null; } };
    const badge = (one) => el("span", { class: `attempt a${Math.min(one.i, 5)}`, title: `attempt ${one.i + 1} begins here` }, `${one.i + 1}: ${Math.round(side.scores[one.i])}`);
    found.forEach((one, k) => {
      while (next < begins.length && begins[next].at <= one.at) { close(); plain(Math.max(done, begins[next].at)); nodes.push(badge(begins[next++])); }
      if (same[k]) { close(); plain(one.at + one.word.length); }
      else { if (!open) { plain(one.at); open = []; } plain(one.at + one.word.length); }
    });
    close();
    plain(text.length);
    return el("div", { class: "reply", dir: "auto" }, nodes);
  }

  // What can be held against what.
  async function choose(root, params) {
    const found = await esr.load("diff", {});
    root.append(el("h1", null, "Compare"), el("p", { class: "faint" },
      "Two arms, models, judges, presets or runs, trial by trial: the same latent, question and seed on both sides. The first minus the second."));
    const names = [...new Set([...found.arms.map((one) => one.arm), ...found.arms.map((one) => one.model), ...found.arms.map((one) => one.judge),
      ...found.runs.map((one) => one.run_id.slice(0, 8))])];
    if (!esr.bundle) root.append(form(params, names));
    const pairs = found.arms.filter((one) => one.against && one.against !== one.arm
      && found.arms.some((other) => other.arm === one.against && other.model === one.model && other.judge === one.judge && other.scale === one.scale));
    const groups = Map.groupBy(pairs, (one) => `${one.model}${one.scale === "full" ? "" : `, ${one.scale}`}, by ${one.judge}`);
    if (pairs.length) root.append(el("h2", null, "Arms, each against the one it is compared with"));
    for (const [name, some] of groups) {
      root.append(el("h3", null, name), el("ul", { class: "offers" }, some.map((one) => el("li", null, esr.link("diff", addressed(one), `${one.arm} − ${one.against}`)))));
    }
    const alike = [];
    found.runs.forEach((one, i) => found.runs.slice(i + 1).forEach((other) => {
      if (one.experiment === other.experiment && one.model === other.model && one.scale === other.scale) alike.push([one, other]);
    }));
    if (alike.length) {
      root.append(el("h2", null, "Runs of the same experiment, the newer against the older"), el("ul", { class: "offers" }, alike.slice(0, 40).map(([one, other]) =>
        el("li", null, esr.link("diff", { a: one.run_id.slice(0, 8), b: other.run_id.slice(0, 8), scale: one.scale === "full" ? "" : one.scale },
          `${one.experiment} on ${one.model}: ${named(one)} − ${named(other)}`)))));
    }
    if (!pairs.length && !alike.length) root.append(el("p", null, "Nothing in this store has been judged twice or in two arms yet."));
  }
  function named(run) { return `${run.name || run.run_id.slice(0, 8)} (${esr.time(run.started_at)})`; }
  function addressed(one) { return { a: one.arm, b: one.against, model: one.model, judge: one.judge, scale: one.scale === "full" ? "" : one.scale }; }
  function form(params, names) {
    const field = (name, label, size) => el("label", null, el("span", null, label),
      el("input", { name, value: params[name] || "", size, list: "sides", autocomplete: "off", spellcheck: "false" }));
    const go = (event) => {
      event.preventDefault();
      const given = Object.fromEntries([...new FormData(event.target)].map(([name, value]) => [name, value.trim()]));
      if (given.a && given.b) esr.go("diff", given);
    };
    return el("form", { class: "sides", onsubmit: go }, el("datalist", { id: "sides" }, names.map((value) => el("option", { value }))),
      field("a", "A", 24), el("span", { class: "minus" }, "−"), field("b", "B", 24), field("arm", "in arm", 18), field("model", "on model", 12), field("judge", "by judge", 12),
      el("label", null, el("span", null, "scale"), el("select", { name: "scale" }, ["", "smoke"].map((value) => el("option", { value, selected: value === (params.scale || "") }, value || "full")))),
      el("button", { type: "submit" }, "Compare"));
  }

  // What two sides show.
  function differs(found) {
    if (!found.differs) return null;
    const [one] = found.arms;
    if (!found.differs.length) return el("p", { class: "made" }, "Their manifests say the same: parameters, weights, judge, prompts, code and libraries.");
    return el("section", { class: "made" }, el("h2", null, "What they were made with differs in"),
      esr.table(["", `A: ${one.a.told}`, `B: ${one.b.told}`], found.differs.map((row) => [el("th", { scope: "row" }, row.what), row.a, row.b]), { label: "what differs between the runs" }));
  }
  function span(d, by) {
    if (!d.interval) return el("td", { class: "forest" });
    const reach = RATES.has(d.metric) ? 40 : d.metric === "attempts_mean" ? 1 : 40;
    const x = (value) => 60 + 56 * Math.max(-1, Math.min(1, by * value / reach));
    const [low, high] = d.interval;
    return el("td", { class: "forest" }, esr.svg("svg", { viewBox: "0 0 120 16", width: 120, height: 16, "aria-hidden": "true" },
      esr.svg("line", { class: "zero", x1: 60, x2: 60, y1: 0, y2: 16 }), esr.svg("line", { class: "span", x1: x(low), x2: x(high), y1: 8, y2: 8 }),
      esr.svg("circle", { class: low > 0 || high < 0 ? "point sure" : "point", cx: x(d.value), cy: 8, r: 3.5 })));
  }
  function measured(arm) {
    const rows = Object.values(arm.differences).map((d) => {
      const by = RATES.has(d.metric) ? 100 : 1;
      const interval = d.interval ? `[${esr.signed(by * d.interval[0])}, ${esr.signed(by * d.interval[1])}]` : d.no_interval;
      return [el("th", { scope: "row" }, NAMES[d.metric] || d.metric), d.value === null ? "–" : esr.signed(by * d.value), interval, span(d, by),
        d.p === null ? "" : d.p < 0.0001 ? "< 0.0001" : d.p.toFixed(4), el("span", { class: "faint" }, d.method)];
    });
    return esr.table(["metric", { name: "A − B", right: true }, "95 % interval", "", { name: "p", right: true }, "how"], rows, { label: "differences in pairs", class: "measured" });
  }
  function partners(arm) {
    const line = (name, found) => el("p", null, el("b", null, name), ` ${esr.count(found.planned)} trials planned, ${esr.count(found.graded)} graded, ${esr.count(found.paired)} in pairs`,
      Object.entries(found.lacking).map(([why, n]) => `; ${esr.count(n)} × ${why}`));
    return el("div", { class: "partners" }, line("A", arm.partners.a), line("B", arm.partners.b));
  }
  // Pairs by the outcome on either side; a cell with changed trials shows those alone.
  function crossed(arm, only, pick) {
    const n = Object.fromEntries(arm.outcomes.map((one) => [`${one.a}>${one.b}`, one.n]));
    const cell = (a, b) => {
      const key = `${a}>${b}`;
      if (!n[key]) return el("td", { class: "right faint" }, "0");
      return el("td", { class: "right" }, el("button", { class: a === b ? "cell" : "cell moved", "aria-pressed": only === key ? "true" : "false", onclick: () => pick(only === key ? "" : key),
        title: `A ${a}, B ${b}: show these alone` }, esr.count(n[key])));
    };
    return esr.table(["A ↓  B →", ...OUTCOMES.map((name) => ({ name, right: true }))], OUTCOMES.map((a) => [el("th", { scope: "row" }, a), ...OUTCOMES.map((b) => cell(a, b))]),
      { label: "pairs by outcome", class: "crossed" });
  }
  function verdict(side) { return `${side.outcome} (${side.scores.map((score) => Math.round(score)).join(" → ")})`; }

  function changed(root, found, arm, params, note) {
    let only = params.only || "", at = 0, some = [];
    const place = el("div", { class: "pair", "aria-live": "polite" }), list = el("ol", { class: "changed" }), count = el("p", { class: "faint" }), cross = el("div");
    const draw = () => {
      some = arm.changed.filter((one) => !only || `${one.a.outcome}>${one.b.outcome}` === only);
      cross.replaceChildren(crossed(arm, only, (key) => { only = key; at = 0; draw(); show(); }));
      list.replaceChildren(...some.map((one, i) => el("li", null, el("button", { onclick: () => { at = i; show(); }, data: { trial: one.a.trial_id } },
        el("span", { class: "what" }, `${verdict(one.a)} | ${verdict(one.b)}`), el("span", { class: "faint" }, `${one.label || `latent ${one.latent}`} · ${one.question}`)))));
      const rest = arm.n_changed - arm.changed.length;
      count.replaceChildren(`${esr.count(arm.n_changed)} of ${esr.count(arm.pairs)} pairs changed, ${esr.count(arm.n_outcome_changed)} in outcome, ${esr.count(arm.n_words_only)} in words alone; most first.`,
        ...(only ? [` Of the ${esr.count(arm.changed.length)} here, ${esr.count(some.length)} are ${only.replace(">", " in A and ")} in B.`] : []),
        ...(rest > 0 && !esr.bundle ? [" ", el("button", { class: "more", onclick: () => esr.go("diff", { ...params, limit: Math.min(2000, arm.changed.length * 4) }) }, `Show more of the other ${esr.count(rest)}`)] : []),
        ...(rest > 0 && esr.bundle ? [` This copy holds the first ${esr.count(arm.changed.length)}.`] : []));
    };
    const show = () => {
      const one = some[at];
      for (const [i, row] of [...list.children].entries()) row.firstChild.setAttribute("aria-current", i === at ? "true" : "false");
      if (list.children[at]) {   // the list scrolls, the page stays
        const row = list.children[at];
        if (row.offsetTop < list.scrollTop || row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = row.offsetTop - list.clientHeight / 3;
      }
      if (!one) { place.replaceChildren(el("p", null, "No pair to show.")); note({ only, t: "" }); return; }
      note({ only, t: one.a.trial_id });
      const texts = [one.a, one.b].map((side) => found.texts[side.trial_id]);
      const found_ = texts.map((text) => words(text ?? "")), same = aligned(...found_);
      const column = (side, name, i) => el("article", { class: "side", "aria-label": `side ${name}` },
        el("header", null, el("b", null, name), ` ${(i ? arm.b : arm.a).told} `, el("span", { class: `verdict ${side.outcome}` }, verdict(side)), side.degraded ? el("span", { class: "verdict" }, "degraded") : null,
          el("span", { class: "faint" }, side.boost ? ` boost ${side.boost.toPrecision(4)} ` : " unsteered "), trial(side.trial_id, arm[i ? "b" : "a"])),
        texts[i] === undefined ? el("p", { class: "faint" }, "The reply is not in this store.") : told(texts[i], found_[i], same[i], side));
      const where = one.parting ? `${one.parting.words} word${one.parting.words === 1 ? "" : "s"} alike, then A “${one.parting.a || "(ends)"}”, B “${one.parting.b || "(ends)"}”`
        : "word for word the same reply";
      place.replaceChildren(
        el("div", { class: "step" }, el("button", { onclick: () => move(-1), disabled: at === 0, "aria-keyshortcuts": "k" }, "← previous"), el("span", null, `${at + 1} of ${some.length}`),
          el("button", { onclick: () => move(1), disabled: at === some.length - 1, "aria-keyshortcuts": "j" }, "next →"), el("span", { class: "faint keys" }, "keys: j or → next, k or ← previous, t trial A, y trial B")),
        el("h3", null, one.question), el("p", { class: "faint" }, `latent ${one.latent}${one.label ? ` (${one.label})` : ""} · seed ${one.seed ?? "none"} · changed: ${one.what.join(", ")} · ${where}`),
        el("div", { class: "beside" }, column(one.a, "A", 0), column(one.b, "B", 1)));
    };
    const move = (by) => { const next = at + by; if (next >= 0 && next < some.length) { at = next; show(); } };
    const keys = (event) => {
      if (!root.isConnected) { removeEventListener("keydown", keys); return; }
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      const step = { j: 1, ArrowRight: 1, n: 1, k: -1, ArrowLeft: -1, p: -1 }[event.key];
      if (step) { event.preventDefault(); move(step); }
      const side = { t: "a", y: "b" }[event.key];
      if (side && some[at]) location.hash = trial(some[at][side].trial_id, arm[side]).getAttribute("href").slice(1);
    };
    root.addEventListener("shown", () => addEventListener("keydown", keys));
    draw();
    at = Math.max(0, some.findIndex((one) => one.a.trial_id === params.t));
    show();
    return el("section", { class: "trials" }, el("h2", null, "Trials that changed"), cross, count, el("div", { class: "reader" }, list, place));
  }
  function trial(id, side) { return esr.link("trial", { id, judge: side.judge }, id.slice(0, 8)); }

  esr.page("diff", async (root, params) => {
    if (!params.a || !params.b) { await choose(root, params); return; }
    const { on, t, only, ...asked } = params;
    const found = await esr.load("diff", asked);
    const arms = found.arms, arm = arms[Math.min(Number(on) || 0, arms.length - 1)];
    const note = (more) => esr.note({ ...params, ...more });
    const named_ = (side, other) => (side.arm !== other.arm || side.name === side.arm ? side.arm : `${side.name} (${side.arm})`);
    root.append(el("h1", null, `${named_(arm.a, arm.b)} − ${named_(arm.b, arm.a)}`),
      el("p", { class: "faint" }, `A: ${whole(arm.a)}. B: ${whole(arm.b)}. ${esr.count(arm.pairs)} pairs of one latent, question and seed. `,
        esr.link("diff", {}, "Compare others"), arm.a.arm !== arm.b.arm || found.kind !== "arm" ? [" · ", esr.link("diff", swapped(params), "swap A and B")] : null));
    const made = differs(found);
    if (made) root.append(made);
    if (arms.length > 1) {
      root.append(el("p", { class: "arms" }, "Arms that both have: ", arms.map((one, i) => [i ? " · " : "", one === arm ? el("b", null, one.a.arm) : esr.link("diff", { ...asked, on: i }, one.a.arm)])));
    }
    if (!arm.pairs) { root.append(partners(arm)); return; }
    root.append(el("h2", null, "Differences in pairs"), measured(arm), el("p", { class: "faint" }, "Intervals are of what other latents (and questions, where they differ) of the same kind would show; rates in points of 100. docs/statistics.md says how."), partners(arm));
    root.append(arm.n_changed ? changed(root, found, arm, params, note) : el("p", null, `No pair changed: ${esr.count(arm.pairs)} replies and verdicts are the same.`));
  }, { nav: "Compare", place: 40, title: "Compare" });
  function whole(side) { return `${side.told}${side.told.includes(` on ${side.model}`) ? "" : ` on ${side.model}`}, judged by ${side.judge}`; }
  function swapped(params) { return { ...params, a: params.b, b: params.a, t: "", only: "" }; }
})();
