"use strict";
// The audit: replies of a sheet labelled blind, by keyboard alone if one likes. A label is kept by the server before the next reply is shown.
(() => {
  const el = esr.el;
  const LABELS = [
    ["single", "1", "one attempt", "makes one attempt at the question, or none"],
    ["multi", "2", "starts over, no better", "says that it starts over, and what follows is no better"],
    ["corrected", "3", "starts over, better", "says that it starts over, and its last attempt is better than its first"],
  ];
  const STEP = 10;          // labels after which it is asked anew how far people agree
  const remembered = () => { try { return localStorage.getItem("esr.author") || ""; } catch { return ""; } };
  const remember = (name) => { try { localStorage.setItem("esr.author", name); } catch { /* the name is asked again next time */ } };
  let token = "";

  async function ask(params) {
    const found = await esr.load("audit", params);
    if (found.token) token = found.token;
    return found;
  }

  async function list(root) {
    const found = await ask({});
    root.append(el("h1", null, "Audit"), el("p", { class: "faint" },
      "Replies for people to label, blind to arm, verdict and distractor. Rates corrected by the labels stand in python -m esr table, beside the judge's."));
    if (!found.sheets.length) root.append(el("p", null, "No sheet has been drawn from this store."));
    else {
      root.append(esr.table(["sheet", "experiment", "model", "drawn (UTC)", { name: "replies", right: true }, "labelled by"], found.sheets.map((one) => [
        esr.link("audit", { sheet: one.sheet }, one.sheet), one.experiment, one.scale === "full" ? one.model : `${one.model}, ${one.scale}`, esr.time(one.drawn_at), esr.count(one.n),
        Object.entries(one.authors).map(([name, n], i) => [i ? ", " : "", `${name} ${n === one.n ? "whole" : n}`]).flat().join("") || "nobody yet",
      ]), { label: "sheets" }));
    }
    root.append(el("p", null, "Another: ", el("code", null, "python -m esr audit draw exp01/tiny --n 200"), ". It also writes the sheet as CSV, to label elsewhere; both ways fill the same table."));
  }

  function sheet(root, found, author) {
    const items = found.items, at = new Map(items.map((one, i) => [one.item, i]));
    const standing = new Map();               // by item, what the author says
    let stack = [];                           // what was said last, with what had stood before
    const fold = (one) => {
      if (one.label === "withdrawn") { stack = stack.filter((last, i) => i !== stack.findLastIndex((other) => other.item === one.item)); standing.delete(one.item); return; }
      stack.push({ item: one.item, before: standing.get(one.item) });
      standing.set(one.item, { label: one.label, reason: one.reason });
    };
    found.said.forEach(fold);
    let now = 0, busy = false;
    const open = () => items.findIndex((one) => !standing.has(one.item));

    const who = el("input", { value: author, size: 16, maxlength: 60, autocomplete: "off", "aria-label": "your name" });
    const rename = (event) => { event.preventDefault(); const name = who.value.trim(); if (name) { remember(name); esr.go("audit", { sheet: found.sheet, by: name }); } };
    const meter = el("progress", { max: items.length, value: standing.size, "aria-label": "labelled" }), count = el("span", { class: "count" });
    const said = el("p", { class: "said", role: "status" }), place = el("div", { class: "item" }), beside = el("div", { class: "agreed" });
    const reason = el("textarea", { rows: 2, maxlength: 2000, placeholder: "why, in your words (r; Enter keeps it)", "aria-label": "reason" });
    const buttons = LABELS.map(([name, key, short, long]) => el("button", { class: "label", title: long, data: { label: name }, "aria-keyshortcuts": key, onclick: () => label(name) }, el("kbd", null, key), ` ${short}`));
    const undo = el("button", { onclick: () => back(), "aria-keyshortcuts": "u" }, el("kbd", null, "u"), " undo");
    const steps = el("div", { class: "steps" }, el("button", { onclick: () => move(-1) }, el("kbd", null, "←"), " previous"), el("button", { onclick: () => move(1) }, "next ", el("kbd", null, "→")),
      el("button", { onclick: () => { if (open() >= 0) { now = open(); show(); } } }, el("kbd", null, "n"), " first without a label"), undo);

    const show = () => {
      const one = items[now], stands = standing.get(one.item);
      meter.value = standing.size;
      count.textContent = `${standing.size} of ${items.length} labelled; this is reply ${now + 1}`;
      place.replaceChildren(el("h2", { dir: "auto" }, one.question), el("div", { class: "reply", dir: "auto", tabindex: 0 }, one.text));
      reason.value = stands ? stands.reason : "";
      for (const button of buttons) button.setAttribute("aria-pressed", String(Boolean(stands) && stands.label === button.dataset.label));
      undo.disabled = !stack.length;
      place.dataset.item = one.item;
    };
    const move = (by) => { if (!busy) { now = (now + by + items.length) % items.length; show(); } };

    // Until the server has kept it; without a server it waits for one.
    async function keep(one) {
      busy = true;
      root.classList.add("busy");
      try {
        for (let tries = 0; root.isConnected; tries++) {
          let answer = null;
          try {
            answer = await fetch("api/audit", { method: "POST", headers: { "content-type": "application/json", "x-esr-token": token }, body: JSON.stringify({ sheet: found.sheet, author, ...one }) });
          } catch { said.textContent = "Not kept yet: the server does not answer. It is tried again; python -m esr view starts it."; }
          if (answer && answer.ok) { said.textContent = ""; fold(one); return true; }
          if (answer && answer.status === 409 && tries < 100) { try { await ask({}); } catch { /* tried again */ } }
          else if (answer) { said.textContent = `Not kept: ${(await answer.json()).error}`; return false; }
          if (answer === null) await new Promise((done) => setTimeout(done, 700));
        }
        return false;
      } finally { busy = false; root.classList.remove("busy"); }
    }
    async function label(name) {
      if (busy) return;
      if (!author) { said.textContent = "Say your name first: a label has an author."; who.focus(); return; }
      const item = items[now].item;
      if (!await keep({ item, label: name, reason: reason.value.trim() })) { show(); return; }
      reason.blur();
      const next = items.findIndex((one, i) => i > now && !standing.has(one.item));
      now = next >= 0 ? next : open() >= 0 ? open() : now;
      show();
      if (standing.size % STEP === 0 || standing.size === items.length) agreed();
    }
    async function back() {
      const last = stack.at(-1);
      if (busy || !last) return;
      const depth = stack.length - 1;
      if (!await keep({ item: last.item, label: last.before ? last.before.label : "withdrawn", reason: last.before ? last.before.reason : "" })) return;
      stack.length = depth;
      now = at.get(last.item);
      show();
      said.textContent = `Taken back: “${items[now].question.slice(0, 60)}” ${last.before ? `is ${last.before.label} again` : "has no label"}.`;
    }
    async function agreed() {
      if (!author) return;
      try { beside.replaceChildren(...held(await ask({ sheet: found.sheet, author, agreed: 1 }))); }
      catch (error) { beside.replaceChildren(el("p", { class: "faint" }, error.message)); }
    }

    reason.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { reason.blur(); event.stopPropagation(); }
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      reason.blur();
      const stands = standing.get(items[now].item);
      if (stands && stands.reason !== reason.value.trim() && !busy) keep({ item: items[now].item, label: stands.label, reason: reason.value.trim() }).then((done) => { if (done) said.textContent = "The reason is kept."; });
    });
    const keys = (event) => {
      if (!root.isConnected) { removeEventListener("keydown", keys); return; }
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      const found_ = LABELS.find(([, key]) => key === event.key);
      const acts = { u: back, Backspace: back, ArrowRight: () => move(1), ArrowLeft: () => move(-1), r: () => reason.focus(), n: () => { if (open() >= 0) { now = open(); show(); } } };
      const act = found_ ? () => label(found_[0]) : acts[event.key];
      if (act) { event.preventDefault(); act(); }
    };
    root.addEventListener("shown", () => { addEventListener("keydown", keys); if (!author) who.focus(); });

    root.append(el("h1", null, `Sheet ${found.sheet}`),
      el("form", { class: "who", onsubmit: rename }, el("label", null, "Labelled by ", who), el("button", { type: "submit" }, author ? "somebody else" : "begin"), meter, count, esr.link("audit", {}, "all sheets")),
      el("div", { class: "desk" },
        el("section", { class: "work" }, place, el("div", { class: "labels", role: "group", "aria-label": "label" }, buttons), reason, steps, said),
        el("aside", null, el("h2", null, "The labels"), el("dl", null, LABELS.map(([name, key, , long]) => [el("dt", null, el("kbd", null, key), ` ${name}`), el("dd", null, long)])),
          el("p", { class: "faint" }, "A label is kept as soon as it is given; close the page when you like, it goes on where it was."), el("h2", null, "Agreement so far"), beside)));
    if (open() >= 0) now = open();
    show();
    beside.append(el("p", { class: "faint" }, author ? "…" : "Of people who label the same sheet."));
    agreed();
  }

  function share(one) { return one.value === null ? `– (${one.no_interval})` : `${esr.percent(one.value)}${one.interval ? ` [${esr.number(100 * one.interval[0])}, ${esr.number(100 * one.interval[1])}]` : ` (${one.no_interval})`}`; }
  function kappa(one) { return one.value === null ? `– (${one.no_interval})` : `${one.value.toFixed(2)}${one.interval ? ` [${one.interval[0].toFixed(2)}, ${one.interval[1].toFixed(2)}]` : ` (${one.no_interval})`}`; }
  function one(found, name) {
    if (!found.alike) return el("p", null, el("b", null, name), `: ${found.n} replies that both have labelled; told from ${found.enough} on.`);
    return el("div", null, el("p", null, el("b", null, name), `, ${found.n} replies that both have labelled`), el("dl", { class: "held" },
      el("dt", null, "the same label"), el("dd", null, share(found.alike)), el("dt", null, "κ, second attempt"), el("dd", null, kappa(found.kappa_multi)), el("dt", null, "κ, corrected"), el("dd", null, kappa(found.kappa_corrected))));
  }
  function held(found) {
    const nodes = found.people.map((other) => one(other, other.with));
    if (!nodes.length) nodes.push(el("p", { class: "faint" }, "Nobody else has labelled this sheet."));
    if (!found.judge) nodes.push(el("p", { class: "faint" }, "How far the judge agrees is told when every reply has a label of yours."));
    else {
      nodes.push(el("h2", null, "The sheet is finished"), one(found.judge, `judge ${found.judge.with}`),
        el("p", null, found.differing.length ? `It says otherwise of ${found.differing.length}:` : "It says the same of every reply."),
        el("ul", { class: "differing" }, found.differing.map((row) => el("li", null, esr.link("trial", { id: row.trial_id, judge: row.judge }, row.question), ` (${row.arm}): you ${row.own}, judge ${row.verdict}`,
          Object.entries(row.others).map(([name, label]) => `, ${name} ${label}`)))));
    }
    nodes.push(el("p", { class: "faint" }, "In brackets: 95 % intervals, of what other latents of the same kind would show. Shares are of this sheet, on which rare kinds of reply are many."));
    return nodes;
  }

  esr.page("audit", async (root, params) => {
    if (esr.bundle) {
      root.append(el("h1", null, "Audit"), el("p", null, "Labels are kept only with the server: this is a copy of the pages, which takes none. Start one with ", el("code", null, "python -m esr view"), " where the store is."));
      return;
    }
    if (!params.sheet) { await list(root); return; }
    const author = params.by || remembered();
    sheet(root, await ask({ sheet: params.sheet, author }), author);
  }, { nav: "Audit", place: 60, title: "Audit", quiet: true });
})();
