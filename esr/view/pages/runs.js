"use strict";
esr.page("runs", async (root, params) => {
  const told = await esr.load("runs", params.hidden ? { hidden: 1 } : {});
  root.append(esr.el("h1", null, "Runs"), esr.table(["run", "begun (UTC)", "experiment", "model", "status"],
    told.runs.map((one) => [one.run_id.slice(0, 8), esr.time(one.started_at), one.experiment, one.model, one.status])));
}, { nav: "Runs", place: 10, live: true });
