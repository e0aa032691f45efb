"use strict";
// Every run with its arms as they stand, what it cost and how it was made.
(() => {
  esr.page("runs", async (root, params) => {
    const { el, link } = esr;
    const told = await esr.load("runs", !esr.bundle && (params.hidden || params.run) ? { hidden: 1 } : {});
    const { run: asked, ...kept } = params;      // `run`: this one alone, opened
    const box = el("input", { type: "search", value: params.q || "", placeholder: "date, model, experiment, judge, name", "aria-label": "search runs", oninput: (event) => { kept.q = event.target.value; esr.note(kept); draw(); } });
    const place = el("div");
    esr.put(root, el("h1", null, "Runs"),
      el("div", { class: "bar" }, el("label", { class: "choose" }, el("span", null, "find"), box),
        esr.bundle ? null : el("label", null, el("input", { type: "checkbox", checked: Boolean(params.hidden), onchange: (event) => esr.go("runs", { ...kept, hidden: event.target.checked ? 1 : "" }) }), " hidden ones too")),
      place,
      el("p", { class: "note" }, "A run is named by ", el("code", null, 'python -m esr runs name RUN "…"'), " and hidden by ", el("code", null, "python -m esr runs hide RUN"), ". Arms are shown as they stand now: what a later run of the same study added is in them. Intervals of a run’s arms are worked out when it is opened."));
    const text = (run) => [run.run_id, esr.time(run.started_at), run.experiment, run.model, run.scale, run.judge, run.status, run.name].join(" ").toLowerCase();
    function draw() {
      const words = (kept.q || "").toLowerCase().split(/\s+/).filter(Boolean);
      const found = told.runs.filter((run) => words.every((word) => text(run).includes(word)) && (!asked || run.run_id.startsWith(asked)));
      place.replaceChildren(found.length ? esr.table(
        ["run", "begun (UTC)", "experiment", "model", "scale", "judge", "status", { name: "arms", right: true }, { name: "graded", right: true }, { name: "missing", right: true }, { name: "cost", right: true }, { name: "duration", right: true }, "name"],
        found.flatMap((run) => row(run, told.arms)), { label: "runs" }) : el("p", { class: "faint" }, told.runs.length ? (asked ? `No run ${asked} is recorded in this store.` : "No run is like that.") : "No run is recorded in this store."));
    }
    const before = (run) => told.runs.find((other) => other.started_at < run.started_at && ["experiment", "model", "scale"].every((name) => other[name] === run[name]));
    function row(run, arms) {
      const own = arms.filter((arm) => ["experiment", "model", "scale", "judge"].every((name) => arm[name] === run[name]));
      const sum = (name) => own.reduce((total, arm) => total + arm[name], 0);
      const more = el("tr", { hidden: true }, el("td", { colspan: 13 }));
      const open = el("button", { "aria-expanded": "false", onclick: () => {
        more.hidden = !more.hidden;
        open.setAttribute("aria-expanded", String(!more.hidden));
        if (!more.firstChild.childNodes.length) more.firstChild.append(inside(run, own, before(run)));
      } }, run.run_id.slice(0, 8));
      const kind = { completed: "good", running: "amber" }[run.status] || "bad";
      return [el("tr", null, el("td", null, open), el("td", null, esr.time(run.started_at)),
        el("td", null, link("experiment", { experiment: run.experiment, model: run.model, scale: run.scale, judge: run.judge }, run.experiment)),
        el("td", null, run.model), el("td", null, run.scale), el("td", null, run.judge), el("td", { class: kind }, run.status),
        el("td", { class: "num" }, own.length || "–"), el("td", { class: "num" }, esr.count(sum("n"))), el("td", { class: "num" }, esr.count(sum("missing"))),
        el("td", { class: "num" }, run.status === "running" && run.cost === null ? "" : esr.cost(run.cost)), el("td", { class: "num" }, esr.duration(run.seconds)),
        el("td", null, run.name || "", run.hidden ? " (hidden)" : "")), more];
    }
    draw();
    if (asked) {
      for (const one of place.querySelectorAll("button[aria-expanded]")) one.click();
      place.after(el("p", null, link("runs", kept, "all runs")));
    }
  }, { nav: "Runs", place: 10, live: true });

  function inside(run, arms, older) {
    const { el } = esr, m = run.manifest, changed = run.changed;
    const address = { experiment: run.experiment, model: run.model, scale: run.scale, judge: run.judge };
    const reasons = arms.filter((arm) => arm.missing).map((arm) => `${arm.arm}: ${arm.pending} not asked yet, ${arm.failed} without a valid grade`);
    return el("div", { class: "arms" },
      arms.length ? esr.later(async () => esr.closing(await esr.load("closing", address), address)) : el("p", { class: "faint" }, "Nothing of it has met a judge."),
      reasons.length ? el("p", null, `Missing: ${reasons.join("; ")}.`) : null,
      el("h3", null, "How it was made"),
      esr.facts([
        !esr.bundle && older && ["against the one before", esr.link("diff", { a: run.run_id.slice(0, 12), b: older.run_id.slice(0, 12), scale: run.scale === "full" ? "" : run.scale }, `compare with ${older.name || older.run_id.slice(0, 8)} of ${esr.time(older.started_at)}`)],
        ["made again by", el("code", null, `python -m flows ${run.experiment} ${run.model} --scale ${run.scale}`)],
        ["parameters", changed === null ? "cannot be held against params.yaml here" : changed.length ? differing(changed) : "those of params.yaml as it is now"],
        m.revision && ["revision", `${(m.revision.commit || "outside a checkout").slice(0, 12)}${m.revision.dirty ? ", with changes that were not committed" : ""}`],
        m.model && ["weights", m.model.weights || "unknown"],
        m.sae && ["SAE", m.sae.name],
        m.engine && ["engine", Object.entries(m.engine).filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name} ${value}`).join(", ")],
        m.judges && ["judges", Object.entries(m.judges).map(([name, one]) => `${name} (${one.model || "local"}, instructions ${one.prompt.slice(0, 8)})`).join(", ")],
        m.libraries && ["versions", Object.entries(m.libraries).map(([name, version]) => `${name} ${version}`).join(", ")],
        m.host && ["host", `${m.host.system}, Python ${m.host.python}, ${m.host.cpus} CPUs`],
      ]));
  }

  // Folded where they are many.
  function differing(changed) {
    const { el } = esr;
    const rows = changed.map((one) => el("tr", null, el("td", null, el("code", null, one.name)), el("td", null, said(one.run)), el("td", null, said(one.now))));
    const table = esr.table(["parameter", "of the run", "params.yaml now"], rows, { label: "parameters that differ" });
    return changed.length > 6 ? el("details", null, el("summary", null, `${changed.length} are not those of params.yaml as it is now`), table) : table;
  }
  const said = (value) => (value === null || value === undefined ? "–" : JSON.stringify(value));
})();
