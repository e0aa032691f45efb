"use strict";
// One experiment on one model: its closing table, its figures, and what lies behind them, down to the trial.
(() => {
  esr.page("experiment", async (root, params) => {
    const { el } = esr;
    const told = await esr.studies();
    const now = esr.choice(told, params);
    const keep = { ...params };
    esr.put(root,
      el("div", { class: "crumbs" }, now.experiment), el("h1", null, `Experiment ${now.experiment.replace(/^exp0?/, "")}`),
      esr.chooser(told, now, "experiment"));
    const body = el("div");
    esr.put(root, body);
    esr.put(body, esr.later(async () => whole(await esr.load("closing", now), now, keep)),
      el("h2", null, "The threshold of each latent"),
      el("p", { class: "note" }, "Each point is an ask of the search: a boost and the first score that it gave. Across: the score looked for; upright: the threshold found, with its interval."),
      esr.later(async () => multiples((await esr.load("latents", { model: now.model, scale: now.scale, judge: now.judge })).latents, now)));
  }, { title: "Experiment" });

  function whole(found, now, keep) {
    const { el, link } = esr;
    const graded = found.lines.filter((line) => line.n).map((line) => line.arm);
    const out = [el("p", { class: "asks" }, found.question ? found.question[0].toUpperCase() + found.question.slice(1) : "", found.paper ? el("span", { class: "faint" }, ` Paper: ${found.paper}.`) : null), esr.closing(found, now)];
    if (found.made_up) out.push(el("p", { class: "amber" }, "The fake engine made these replies up: they are no model’s."));
    out.push(el("p", null, link("trials", now, "All trials of it"), " · made by ", el("code", null, found.again)));
    if (graded.length) {
      const own = found.lines.filter((line) => line.n && line.arm.startsWith(`${now.experiment}/`)).sort((a, b) => Boolean(b.estimates.multi_attempt_rate.k) - Boolean(a.estimates.multi_attempt_rate.k)).map((line) => line.arm);
      const arm = graded.includes(keep.arm) ? keep.arm : own[0] || graded[0];
      out.push(el("h2", null, "What lies behind"), behind(graded, arm, now, keep));
    }
    if (found.figures.length) {
      out.push(el("h2", null, "Figures as drawn"), el("div", { class: "figures" }, found.figures.map((name) =>
        el("figure", { style: { margin: 0 } }, el("a", { href: `figures/${name}` }, el("img", { src: `figures/${name}`, alt: name, loading: "lazy" })), el("figcaption", null, name)))));
    }
    return out;
  }

  function behind(graded, first, now, keep) {
    const { el } = esr;
    const place = el("div"), bar = el("div", { class: "bar" });
    const shown = { arm: first, metric: ["multi_attempt_rate", "esr_rate", "first_score_mean"].includes(keep.metric) ? keep.metric : "esr_rate" };
    function draw() {
      const [experiment, arm] = shown.arm.split(/\/(.*)/s);
      const study = { ...now, experiment };
      bar.replaceChildren(
        esr.choose("arm", graded.map((one) => [one, one]), shown.arm, (value) => { shown.arm = value; esr.note({ ...now, ...shown }); draw(); }),
        esr.choose("of", [["esr_rate", "ESR rate"], ["multi_attempt_rate", "multi-attempt rate"], ["first_score_mean", "first score"]], shown.metric, (value) => { shown.metric = value; esr.note({ ...now, ...shown }); draw(); }));
      place.replaceChildren(
        el("div", { class: "charts" },
          el("div", null, el("h3", null, "First score against gain"), esr.later(async () => scatter(await esr.load("trials", study), shown.arm, study))),
          el("div", null, el("h3", null, "By latent"), esr.later(async () => byLatent(await esr.load("spread", { ...study, arm }), shown, study))),
          el("div", null, el("h3", null, "By question"), esr.later(async () => byQuestion(await esr.load("spread", { ...study, arm }), shown, study)))));
    }
    draw();
    return [bar, place];
  }

  function scatter(t, arm, study) {
    const { el } = esr;
    const points = [];
    for (let i = 0; i < t.n; i++) {
      if (t.arm.names[t.arm.of[i]] !== arm || t.attempts[i] === null) continue;
      const gain = t.last[i] - t.first[i], outcome = esr.outcome(t.corrected[i], t.attempts[i]);
      if (outcome === "single") continue;
      points.push({ x: t.first[i], y: gain, kind: outcome === "corrected" ? "good" : "bad", label: `trial ${t.trial[i].slice(0, 8)}`,
        tell: () => `${t.question.names[t.question.of[i]]}\n${t.labels[t.latent[i]] || `latent ${t.latent[i]}`}\nfirst ${esr.number(t.first[i])}, last ${esr.number(t.last[i])}, ${t.attempts[i]} attempts${t.degraded[i] ? ", degraded" : ""}`,
        follow: () => esr.go("trial", { id: t.trial[i], judge: study.judge }) });
    }
    if (!points.length) return el("p", { class: "faint" }, "No reply of this arm has a second attempt, so none has a gain.");
    const low = Math.min(-20, ...points.map((one) => one.y)), high = Math.max(20, ...points.map((one) => one.y));
    return [esr.charts.scatter(points, { x: [0, 100], y: [low, high], zero: 0, names: { x: "first score", y: "gain", title: "first score against gain" } }),
      el("p", { class: "note" }, `The ${esr.count(points.length)} replies of this arm with two attempts or more. Each point opens its trial; arrow keys go from point to point.`)];
  }

  function bounds(rows, metric) {
    if (metric === "first_score_mean") return [0, 100];
    const highest = Math.max(.1, ...rows.map((one) => { const e = one[metric]; return Math.max(e.value || 0, (e.interval || e.within || [0, 0])[1]); }));
    return [0, Math.min(100, 100 * highest)];
  }
  function bar(one, name, metric, within, follow) {
    const e = one[metric], by = metric === "first_score_mean" ? 1 : 100, span = within ? e.within : e.interval;
    const unit = by === 100 ? " %" : "";
    return { name, value: e.value === null ? null : by * e.value, low: span ? by * span[0] : null, high: span ? by * span[1] : null, follow,
      note: e.value === null ? "–" : `${esr.number(by * e.value, 0)}${unit}`,
      tell: () => `${name}\n${e.value === null ? "no number" : `${esr.number(by * e.value)}${unit}`}${span ? ` [${esr.number(by * span[0])}, ${esr.number(by * span[1])}]` : e.why && !within ? ` (${e.why})` : ""}\n${e.k === null ? "" : `${e.k} of `}n = ${e.n}` };
  }
  function byLatent(found, shown, study) {
    const rows = [...found.by_latent].sort((a, b) => (b[shown.metric].value ?? -1) - (a[shown.metric].value ?? -1));
    const marks = rows.map((one) => bar(one, one.label || `latent ${one.latent}`, shown.metric, true, () => esr.go("trials", { ...study, arm: shown.arm, latent: one.latent })));
    return [esr.charts.bars(marks, { x: bounds(rows, shown.metric), names: { x: shown.metric === "first_score_mean" ? "first score" : "per cent" } }),
      esr.el("p", { class: "note" }, shown.metric === "first_score_mean" ? "Of one latent a mean has no interval that speaks of others." : "Lines: what this one latent would show at other seeds and questions, trials taken as independent (Wilson). They say nothing about other latents.")];
  }
  function byQuestion(found, shown, study) {
    const rows = [...found.by_question].sort((a, b) => (b[shown.metric].value ?? -1) - (a[shown.metric].value ?? -1));
    const marks = rows.map((one) => bar(one, one.question, shown.metric, false, () => esr.go("trials", { ...study, arm: shown.arm, question: one.question })));
    return [esr.charts.bars(marks, { x: bounds(rows, shown.metric), names: { x: shown.metric === "first_score_mean" ? "first score" : "per cent" }, left: 250 }),
      esr.el("p", { class: "note" }, "Lines: 95 % intervals of what other latents would show of this question, where there are ten latents or more.")];
  }

  function multiples(latents, now) {
    const { el } = esr;
    const searched = latents.filter((one) => one.asks && one.asks.length);
    if (!searched.length) return el("p", { class: "faint" }, "No threshold of this model is stored with its search.");
    return el("div", { class: "multiples" }, searched.map((one) => {
      const name = one.label || `latent ${one.latent}`;
      const card = el("a", { href: esr.address("latent", { ...now, experiment: "", latent: one.latent }) },
        el("div", { class: "name" }, name), esr.charts.search(one, { width: 168, height: 76, small: true }),
        el("div", { class: "name" }, one.threshold === null ? one.status : `${esr.number(one.threshold, 0)} [${esr.number(one.low, 0)}, ${esr.number(one.high, 0)}]`));
      return esr.hover(card, () => `${name}\n${one.status}, ${one.asks.length} asks, threshold ${esr.number(one.threshold)} [${esr.number(one.low)}, ${esr.number(one.high)}]${one.verified_score === null ? "" : `\nfirst score afterwards ${esr.number(100 * one.verified_score)}`}`);
    }));
  }

  // The table that closes a run, with n beside every number.
  esr.closing = (found, now) => {
    const { el, link } = esr;
    const names = { first_score_mean: "first score", multi_attempt_rate: "multi-attempt", esr_rate: "ESR", improvement_rate: "improvement", gain_all_mean: "gain, all", degraded_rate: "degraded" };
    const shown = ["first_score_mean", "multi_attempt_rate", "esr_rate", ...found.shown.filter((name) => !["first_score_mean", "multi_attempt_rate", "esr_rate"].includes(name)), "degraded_rate"];
    const held = found.shown.filter((name) => found.lines.some((line) => line.differences[name] && line.differences[name].n));
    const alike = found.shown.filter((name) => found.lines.some((line) => line.equal[name] && line.equal[name].value !== null));
    const number = (e, signed) => {
      if (!e || e.value === null) return el("td", { class: "num" }, "–");
      const by = e.rate ? 100 : 1, put = signed ? esr.signed : esr.number;
      return esr.hover(el("td", { class: "num", tabindex: -1 }, put(by * e.value), e.rate && !signed ? " %" : "", " ",
        el("span", { class: "interval" }, e.interval ? `[${put(by * e.interval[0])}, ${put(by * e.interval[1])}]` : e.why ? `(${e.why})` : "")),
      () => `${e.k === null || e.k === undefined ? "" : `${esr.count(e.k)} of `}${e.n === undefined ? "at equal first scores" : signed ? `${esr.count(e.n)} pairs` : `n = ${esr.count(e.n)}`}${e.p === null || e.p === undefined ? "" : `, p = ${e.p < .001 ? e.p.toExponential(1) : e.p.toFixed(3)}`}`);
    };
    const rows = found.lines.map((line) => {
      const [experiment, arm] = line.arm.split(/\/(.*)/s);
      return el("tr", null,
        el("td", null, link("trials", { ...now, experiment, arm: line.arm }, line.arm), line.identical ? el("div", { class: "faint" }, "reply by reply as its pair") : null),
        el("td", { class: "num" }, esr.count(line.n)),
        el("td", { class: "num" }, line.missing ? link("trials", { ...now, experiment, arm: line.arm, outcome: "missing" }, esr.count(line.missing)) : "0"),
        shown.map((name) => number(line.estimates[name])),
        held.map((name) => number(line.differences[name] && line.differences[name].n ? line.differences[name] : null, true)),
        alike.map((name) => number(line.equal[name], true)));
    });
    const audited = found.lines.flatMap((line) => Object.values(line.audited).map((one) => [line.arm, one]));
    return el("div", null,
      esr.table(["arm", { name: "n", right: true }, { name: "missing", right: true }, ...shown.map((name) => ({ name: names[name] || name, right: true })), ...held.map((name) => ({ name: `${names[name] || name} − pair`, right: true })), ...alike.map((name) => ({ name: `${names[name] || name}, equal score`, right: true }))], rows, { label: "closing table", class: "closing" }),
      audited.length ? el("p", { class: "note" }, `Audited by people: ${audited.map(([arm, one]) => `${arm} ${one.rate || one.metric || ""} ${one.n_labelled ?? ""}`).join("; ")}; python -m esr table has the corrected rates.`) : null,
      el("p", { class: "note" }, found.note));
  };
})();
