"use strict";
// Where one begins: the replies that came back best, and what was studied.
(() => {
  esr.page("front", async (root, params) => {
    const { el, link } = esr;
    const [told, best] = await Promise.all([esr.studies(), esr.load("best", {})]);
    const now = esr.choice(told, params, false);
    const mine = best.filter((one) => one.model === now.model && one.scale === now.scale && one.judge === now.judge);
    esr.put(root,
      el("h1", null, "Do language models notice that they are being steered, and come back?"),
      el("p", null, "One direction of a sparse autoencoder, a ", el("em", null, "latent"), ", is added to a model’s activations until it answers questions with something else. Some replies then stop, say so, and answer the question after all, while the steering goes on. A judge marks off the attempts in each reply and scores them from 0 to 100: a reply corrected itself when its last attempt scores above its first."),
      esr.chooser(told, now, "front", {}, null),
      el("h2", null, `The replies in which ${now.model} corrected itself best`));
    if (!mine.length) esr.put(root, el("p", { class: "faint" }, "No steered reply of this model corrected itself, as this judge sees it."));
    else {
      const rows = mine.map((one) => el("tr", null,
        el("td", { class: "num" }, link("trial", { id: one.trial_id, judge: one.judge }, esr.scores(one.scores))),
        el("td", null, link("trial", { id: one.trial_id, judge: one.judge }, one.question), el("div", { class: "faint" }, `steered to: ${one.latent_label || `latent ${one.latent}`}`), one.read ? esr.pill("read token by token") : null),
        el("td", { class: "excerpt", dir: "auto" }, excerpt(one.text))));
      esr.put(root, el("div", { class: "best" }, esr.table([{ name: "scores", right: true }, "question", "reply"], rows, { label: "best replies" })),
        el("p", { class: "note" }, "By gain, without degraded replies. Each leads to the whole reply: why the judge thought so, what the detectors did, and what became of the same trial with detectors clamped."));
    }
    esr.put(root, el("h2", null, "What was studied"), studied(told));
  }, { nav: "Overview", place: 1, title: "Overview" });

  function excerpt(text) {
    const chars = esr.points(text.replace(/\s+/g, " "));
    return chars.length > 280 ? `${chars.slice(0, 280).join("")} …` : chars.join("");
  }

  function studied(told) {
    const { el, link } = esr;
    const cells = new Map();
    const asks = (name) => { const cell = el("td"); cells.set(name, [...(cells.get(name) || []), cell]); return cell; };
    esr.load("experiments", {}).then((found) => { for (const [name, some] of cells) for (const cell of some) cell.append((found[name] || {}).question || ""); }, () => {});
    const rows = told.studies.map((one) => {
      return el("tr", null,
        el("td", null, link("experiment", { experiment: one.experiment, model: one.model, scale: one.scale, judge: one.judge }, one.experiment)),
        asks(one.experiment), el("td", null, one.model), el("td", null, one.scale === "full" ? "" : one.scale), el("td", null, one.judge),
        el("td", { class: "num" }, one.arms), el("td", { class: "num" }, esr.count(one.n)),
        el("td", { class: "num" }, one.missing ? esr.count(one.missing) : ""),
        el("td", null, link("trials", { experiment: one.experiment, model: one.model, scale: one.scale, judge: one.judge }, "trials")));
    });
    return esr.table(["experiment", "asks", "model", "scale", "judge", { name: "arms", right: true }, { name: "graded", right: true }, { name: "missing", right: true }, ""], rows, { label: "studies" });
  }
})();
