"use strict";
// Latents: all that were steered along, and one of them whole.
(() => {
  esr.page("latents", async (root, params) => {
    const { el, link } = esr;
    const told = await esr.studies(), now = { ...esr.choice(told, params, false), experiment: "" };
    const found = (await esr.load("latents", now)).latents;
    const sort = { by: params.by || "esr", down: params.down !== "0" };
    const place = el("div");
    const value = {
      latent: (one) => one.latent, label: (one) => one.label || "", threshold: (one) => one.threshold ?? null, status: (one) => one.status || "",
      n: (one) => (one.rates ? one.rates.n : null), first: (one) => (one.rates ? one.rates.first : null),
      multi: (one) => (one.rates && one.rates.n ? one.rates.multi / one.rates.n : null), esr: (one) => (one.rates && one.rates.n ? one.rates.corrected / one.rates.n : null),
    };
    const heads = [["latent", "latent"], ["label", "label"], ["threshold", "threshold"], ["status", "search"], ["n", "n"], ["first", "first score"], ["multi", "multi-attempt"], ["esr", "ESR"]];
    function draw() {
      const by = value[sort.by] || value.esr;
      const rows = [...found].sort((a, b) => {
        const x = by(a), y = by(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1);
      });
      place.replaceChildren(esr.table(heads.map(([key, name]) => ({ right: !["label", "status"].includes(key), name: el("button", { "aria-pressed": String(sort.by === key), onclick: () => { sort.down = sort.by === key ? !sort.down : true; sort.by = key; esr.note({ ...params, by: key, down: sort.down ? "" : "0" }); draw(); } }, name) })),
        rows.map((one) => el("tr", null,
          el("td", { class: "num" }, link("latent", { ...now, latent: one.latent }, one.latent)), el("td", null, link("latent", { ...now, latent: one.latent }, one.label || "no label")),
          el("td", { class: "num" }, esr.number(one.threshold), " ", el("span", { class: "interval" }, one.low === null || one.low === undefined ? "" : `[${esr.number(one.low)}, ${esr.number(one.high)}]`)),
          el("td", null, one.status || "–"), el("td", { class: "num" }, one.rates ? one.rates.n : "–"), el("td", { class: "num" }, one.rates ? esr.number(one.rates.first) : "–"),
          el("td", { class: "num" }, esr.percent(value.multi(one))), el("td", { class: "num" }, esr.percent(value.esr(one))))), { label: "latents" }));
    }
    esr.put(root, el("h1", null, "Latents"), esr.chooser(told, now, "latents", {}, null), place, el("p", { class: "note" }, "Rates are those of experiment 1’s baseline, by this judge; each is of so few trials that its interval stands on the latent’s own page."));
    draw();
  }, { nav: "Latents", place: 30, title: "Latents" });

  esr.page("latent", async (root, params) => {
    const { el, link } = esr;
    const told = await esr.studies(), now = { ...esr.choice(told, params, false), experiment: "" };
    const one = await esr.load("latent", { ...now, latent: params.latent });
    const roles = [...new Set(one.roles.map((role) => role.kind))];
    esr.put(root,
      el("div", { class: "crumbs" }, link("latents", now, "Latents"), ` · ${now.model}${one.sae ? ` · SAE ${one.sae.name}, layer ${one.sae.layer}` : ""}`),
      el("h1", null, `${one.latent}: ${one.label || "no label"}`),
      el("p", null, one.concreteness === null ? null : `Concreteness ${esr.number(one.concreteness, 0)} of 100. `, roles.length ? `It is clamped as ${roles.join(", ")} in experiments 3 and 10.` : null));
    esr.put(root, el("h2", null, "How strong the steering must be"));
    if (!one.searches.length) esr.put(root, el("p", { class: "faint" }, "No search for its threshold is stored."));
    esr.put(root, el("div", { class: "charts" }, one.searches.map((search) => el("div", null,
      esr.charts.search(search, { width: 420, height: 240, follow: () => esr.go("trials", { ...now, experiment: "exp01", latent: one.latent }) }),
      el("p", { class: "note" }, `${search.status}: threshold ${esr.number(search.threshold)} [${esr.number(search.low)}, ${esr.number(search.high)}], ${search.asks ? search.asks.length : 0} asks, score looked for ${esr.number(100 * search.target, 0)}${search.verified_score === null ? "" : `, found afterwards ${esr.number(100 * search.verified_score)}`}${search.clamped && search.clamped.length ? `; with latents ${search.clamped.join(", ")} held at zero` : ""}.`)))));
    esr.put(root, el("h2", null, "Its trials"));
    const span = (k, n, within) => [esr.percent(k / n), " ", el("span", { class: "interval" }, within ? `[${esr.number(100 * within[0])}, ${esr.number(100 * within[1])}]` : "")];
    esr.put(root, one.arms.length ? esr.table(["arm", { name: "boost", right: true }, { name: "n", right: true }, { name: "first score", right: true }, { name: "multi-attempt", right: true }, { name: "ESR", right: true }],
      one.arms.map((arm) => el("tr", null, el("td", null, link("trials", { ...now, experiment: arm.arm.split("/")[0], arm: arm.arm, latent: one.latent }, arm.arm)),
        el("td", { class: "num" }, esr.number(arm.boost)), el("td", { class: "num" }, arm.n), el("td", { class: "num" }, esr.number(arm.first)),
        el("td", { class: "num" }, span(arm.multi, arm.n, arm.multi_within)), el("td", { class: "num" }, span(arm.corrected, arm.n, arm.corrected_within)))), { label: "arms" })
      : el("p", { class: "faint" }, "None of its trials is graded by this judge."),
    one.arms.length ? el("p", { class: "note" }, "In brackets: what this one latent would show at other seeds and questions, trials taken as independent (95 %, Wilson). It says nothing about other latents.") : null);
    esr.put(root, el("h2", null, "Where it fires"));
    esr.put(root, one.examples.length ? el("div", null, one.examples.map((example) => el("p", { class: "reply" },
      link("trial", { id: example.trial, judge: now.judge }, `${esr.number(example.value, 2)} `), example.cut ? "… " : "", example.parts[0], el("mark", null, example.parts[1]), example.parts[2], example.more ? " …" : "")))
      : el("p", { class: "faint" }, "No stored reading without steering has it among what was read; experiments 6 and 9 read replies token by token."));
  }, { title: "Latent" });
})();
