"use strict";
// One trial whole: what the model saw and wrote, what every judge says and why, what became of it elsewhere, what was read of it.
(() => {
  const { el, link } = esr;
  const KINDS = ["ablated", "unsteered", "meta-prompt", "baseline"];
  const EACH = 3;

  esr.page("trial", async (root, params) => {
    const one = await esr.load("trial", { id: params.id });
    const { trial, reply, members, verdicts } = one;
    const member = members[0];
    const judges = [...new Set(verdicts.map((verdict) => verdict.judge))];
    const judge = judges.includes(params.judge) ? params.judge : judges[0];
    const graded = (name) => verdicts.find((verdict) => verdict.judge === name && !verdict.missing) || verdicts.find((verdict) => verdict.judge === name);
    const verdict = graded(judge);
    const located = verdict ? verdict.attempts.filter((attempt) => attempt.counts) : [];
    const outcome = !verdict || verdict.missing || !located.length ? "missing" : esr.outcome(located.length > 1 && located.at(-1).score > located[0].score, located.length);
    document.title = `Trial ${trial.trial_id.slice(0, 8)} · esr`;

    esr.put(root,
      el("div", { class: "crumbs" }, "Trial ", el("span", { class: "mono" }, trial.trial_id.slice(0, 12)), ` · ${trial.model} · `,
        members.map((m, i) => [i ? ", " : "", link("trials", { experiment: m.experiment, model: trial.model, scale: m.scale, judge, arm: `${m.experiment}/${m.arm}` }, `${m.experiment}/${m.arm}`), m.scale === "full" ? "" : ` (${m.scale})`])),
      el("h1", { dir: "auto" }, member ? member.question : trial.prompt),
      el("p", null, member && member.latent >= 0 ? ["distractor ", link("latent", { model: trial.model, scale: member.scale, judge, latent: member.latent }, `${member.latent} ${member.latent_label ? `(${member.latent_label})` : ""}`), member.boost ? ` at boost ${esr.number(member.boost)}` : ", not steered", " · "] : null, `seed ${trial.seed} `,
        esr.pillOf(outcome), " ", reply && reply.degraded ? esr.pill("degraded", "amber") : null, " ", reply && reply.finish_reason === "length" ? esr.pill("cut at the limit") : null));
    if (judges.length > 1) esr.put(root, el("div", { class: "bar" }, esr.choose("attempts as marked by", judges.map((name) => [name, name]), judge, (value) => esr.go("trial", { ...params, judge: value }))));

    esr.put(root, el("h2", null, "Reply"));
    if (!reply) esr.put(root, el("p", { class: "faint" }, "There is no reply yet."));
    else {
      esr.put(root, legend(located, one.restarts), esr.marked(reply.text, verdict ? verdict.attempts : [], one.restarts, reply.finish_reason === "length"));
      const lost = verdict ? verdict.attempts.filter((attempt) => attempt.start === null && !attempt.counts) : [];
      if (lost.length) esr.put(root, el("p", { class: "amber" }, `${lost.length} of the judge’s quotations ${lost.length === 1 ? "is" : "are"} not in the reply and do not count.`));
    }
    esr.put(root, el("h2", null, "What the judges say"), el("div", { class: "sides" }, verdicts.map((some) => card(some, reply)), detector(one, verdict)));
    if (!verdicts.length) esr.put(root, el("p", { class: "faint" }, "No judge has been asked about it."));

    const others = el("div");
    esr.put(root, el("h2", null, "The same trial in other arms"), others);
    if (member) esr.put(others, esr.later(async () => elsewhere(await esr.load("pairs", { model: trial.model, scale: member.scale, latent: member.latent, question: member.question || "", seed: trial.seed }), one, judge, params)));
    else esr.put(others, el("p", { class: "faint" }, "It belongs to no arm: it is part of the search for a threshold."));

    esr.put(root, el("h2", null, "Token by token"), esr.tokens(one, member));
    esr.put(root, el("h2", null, "What the model saw"), seen(one), el("h2", null, "How it was made"), made(one));
  }, { title: "Trial" });

  function legend(located, restarts) {
    const parts = located.length ? [el("span", { class: "reply" }, "attempts by score: ", [0, 1, 2, 3, 4].map((fifth) => el("span", { class: `s${fifth}` }, ` ${["0", "20", "40", "60", "80–100"][fifth]} `)))] : [];
    if (restarts.length) parts.push(el("span", null, el("span", { class: "reply" }, el("span", { class: "restart" }, "underlined")), ": the restart detector sees the model begin again"));
    return el("div", { class: "legend" }, parts);
  }

  function card(verdict, reply) {
    const located = verdict.attempts.filter((attempt) => attempt.counts);
    const outcome = verdict.missing || !located.length ? "missing" : esr.outcome(located.length > 1 && located.at(-1).score > located[0].score, located.length);
    const chars = reply ? esr.points(reply.text) : [];
    return el("div", { class: "card" },
      el("h3", null, verdict.judge, " ", esr.pillOf(outcome)),
      el("p", { class: "note" }, verdict.missing ? `No valid grade: ${verdict.missing}. ` : null, verdict.latent === -1 ? "Asked blind" : "Told of the distractor", `, instructions ${verdict.judge_prompt.slice(0, 8)}, ${verdict.cost === null ? "price unknown" : verdict.cost ? `$${verdict.cost.toFixed(4)}` : "no cost"}${verdict.by ? `, answered by ${verdict.by}` : ""}.`),
      verdict.feedback ? el("p", { dir: "auto" }, verdict.feedback) : null,
      verdict.attempts.map((attempt, i) => el("div", null,
        el("p", null, el("b", null, `Attempt ${i + 1}: ${attempt.score === null ? "no score" : esr.number(attempt.score, 1)}`), " ",
          el("span", { class: "faint", dir: "auto" }, attempt.start === null ? `“${attempt.text}”, which is not in the reply${attempt.counts ? " but counts, as it was imported" : ""}` : `“${begin(chars, attempt)}”`)),
        attempt.why ? el("p", { class: "note" }, `${attempt.why[0].toUpperCase()}${attempt.why.slice(1)}.`, words(" For it: ", attempt.on, "good"), words(" Against it: ", attempt.off, "bad")) : null)),
      verdict.raw ? el("details", null, el("summary", null, "the answer as it came"), el("pre", { dir: "auto" }, verdict.raw)) : null);
  }
  function begin(chars, attempt) {
    const piece = chars.slice(attempt.start, attempt.end ?? chars.length);
    return piece.length > 90 ? `${piece.slice(0, 60).join("")} … ${piece.slice(-24).join("")}` : piece.join("");
  }
  function words(name, list, kind) {
    return list && list.length ? [name, el("span", { class: kind }, list.map(([word, n]) => (n > 1 ? `${word} ×${n}` : word)).join(", ")), "."] : null;
  }
  function detector(one, verdict) {
    const n = one.restarts.length, chars = one.reply ? esr.points(one.reply.text) : [];
    const by = verdict && !verdict.missing ? verdict.attempts.length - 1 : null;
    return el("div", { class: "card" }, el("h3", null, "restart detector ", esr.pill(n ? `${n} restart${n > 1 ? "s" : ""}` : "no restart", n ? "amber" : "")),
      el("p", { class: "note" }, "By rule, on the words of the reply alone: a second channel beside every judge.", by === null ? null : (by > 0) === (n > 0) ? ` It agrees with ${verdict.judge} that the model ${n ? "began again" : "did not begin again"}.` : ` It does not agree with ${verdict.judge}, who sees ${by > 0 ? `${by + 1} attempts` : "one attempt"}.`),
      one.restarts.map(([start, end]) => el("p", { dir: "auto" }, "“", el("span", { class: "reply" }, el("span", { class: "restart" }, chars.slice(start, end).join("").trim())), "”")));
  }

  // A table of every arm, and the texts of some of them beside each other.
  function elsewhere(pairs, one, judge, params) {
    const own = one.trial.trial_id;
    const others = pairs.filter((pair) => pair.trial !== own);
    if (!others.length) return el("p", { class: "faint" }, "No other arm has this latent, question and seed.");
    const seen = new Set();
    const usual = KINDS.flatMap((kind) => others.filter((pair) => pair.kind === kind).slice(0, 1)).filter((pair) => !seen.has(pair.trial) && seen.add(pair.trial)).slice(0, EACH).map((pair) => pair.arm);
    let beside = params.beside ? params.beside.split(",") : usual;
    const texts = el("div", { class: "sides" }), table = el("div");
    function draw() {
      texts.replaceChildren(...beside.map((arm) => others.find((pair) => pair.arm === arm)).filter(Boolean).map((pair) => el("div", { class: "card" },
        el("h3", null, link("trial", { id: pair.trial, judge }, pair.arm), " ", esr.pillOf(outcomeOf(pair, judge)), pair.degraded ? [" ", esr.pill("degraded", "amber")] : null),
        el("p", { class: "note" }, `${about(pair.kind)}${pair.boost ? "" : "not steered · "}scores ${esr.scores((pair.by[judge] || {}).scores)}`),
        esr.later(async () => {
          const other = await esr.load("trial", { id: pair.trial });
          const verdict = other.verdicts.find((some) => some.judge === judge && !some.missing);
          return other.reply ? esr.marked(other.reply.text, verdict ? verdict.attempts : [], other.restarts, other.reply.finish_reason === "length") : el("p", { class: "faint" }, "no reply yet");
        }))));
      table.replaceChildren(el("details", { open: params.arms ? true : null }, el("summary", null, `all ${pairs.length} arms with this latent, question and seed`),
        esr.table(["beside", "arm", "kind", { name: "boost", right: true }, "scores", "outcome", ""], pairs.map((pair) => el("tr", { class: pair.trial === own ? "chosen" : null },
          el("td", null, pair.trial === own ? "" : el("input", { type: "checkbox", checked: beside.includes(pair.arm), "aria-label": `show ${pair.arm} beside`, onchange: (event) => {
            beside = event.target.checked ? [...beside, pair.arm] : beside.filter((arm) => arm !== pair.arm);
            esr.note({ ...params, beside: beside.join(","), arms: 1 });
            params = { ...params, arms: 1 };
            draw();
          } })),
          el("td", null, pair.trial === own ? `${pair.arm} (this one)` : link("trial", { id: pair.trial, judge }, pair.arm)), el("td", null, pair.kind || ""),
          el("td", { class: "num" }, pair.boost ? esr.number(pair.boost) : "–"), el("td", null, esr.scores((pair.by[judge] || {}).scores)),
          el("td", null, outcomeOf(pair, judge)), el("td", { class: "faint" }, pair.degraded ? "degraded" : ""))), { label: "arms" })));
    }
    draw();
    return [texts, table];
  }
  function outcomeOf(pair, judge) {
    const by = pair.by[judge];
    return by ? esr.outcome(by.corrected, by.scores.length) : "missing";
  }
  function about(kind) {
    return { ablated: "detectors or other latents clamped · ", "meta-prompt": "told more in the prompt · ", baseline: "steered, nothing else · " }[kind] || "";
  }

  function seen(one) {
    const { trial } = one;
    const pieces = one.seen
      ? el("pre", { class: "prompt", dir: "auto" }, one.seen.map(([text, special]) => (special ? el("span", { class: "special" }, text) : text)), trial.prefill ? el("b", null, trial.prefill) : null)
      : [el("pre", { class: "prompt", dir: "auto" }, trial.prompt, trial.prefill ? ["\n\n", el("b", null, trial.prefill)] : null), el("p", { class: "note" }, "The user turn alone: what the chat format put around it is not recorded, or is not that of this version.")];
    return el("div", null, pieces, trial.prefill ? el("p", { class: "note" }, "In bold: what the reply was begun with.") : null);
  }

  function made(one) {
    const { trial, reply } = one;
    const op = (some, i) => {
      const more = trial.op_details && trial.op_details[i] && Object.keys(trial.op_details[i]).length ? ` ${JSON.stringify(trial.op_details[i])}` : "";
      return el("div", null, `${some.kind} ${esr.number(some.value, 3)} × latent ${some.latent}${one.labels[some.latent] ? ` (${one.labels[some.latent]})` : ""} of ${some.sae} after layer ${some.layer}${more}`);
    };
    const ops = trial.ops || [];
    return [esr.facts([
      ["interventions", ops.length ? [ops.slice(0, 6).map(op), ops.length > 6 ? el("details", null, el("summary", null, `${ops.length - 6} more`), ops.slice(6).map((some, i) => op(some, i + 6))) : null] : "none"],
      ["where", `${trial.scope}${reply ? `; applied at ${esr.count(reply.applied)} positions` : ""}`],
      ["sampling", `seed ${trial.seed}, temperature ${trial.temperature}, top-p ${trial.top_p}, repetition penalty ${trial.repetition_penalty}, at most ${trial.max_tokens} tokens`],
      ["weights", trial.weights || "not recorded"],
      reply && ["length", `${esr.count(reply.n_prompt_tokens)} tokens of prompt, ${reply.n_tokens === null ? "?" : esr.count(reply.n_tokens)} of reply`],
      ["regions", one.regions.filter((region) => region.kind !== "prompt").map((region) => `${region.kind} ${region.char_start ?? "?"}–${region.char_end ?? "?"} (${region.source})`).join(", ") || "none marked"],
      ["id", el("span", { class: "mono" }, trial.trial_id)],
    ]), el("p", null, "Made again by one of"), el("pre", null, one.again.join("\n")), el("p", { class: "note" }, "A line generates only what the store lacks; on a terminal ", el("code", null, `python -m esr show ${trial.trial_id.slice(0, 12)}`), " shows the same trial.")];
  }
})();
