"use strict";
// What the SAE reads of a reply: a heat strip for each latent, and each token with what is active there.
(() => {
  const { el, link } = esr;
  const ROLES = { detectors: "detector", "by-label": "backtracking, by label", "by-contrast": "backtracking, by contrast" };
  const REGIONS = { "off-topic": "--s0", correction: "--mark", "on-topic": "--s4", prompt: "--soft" };

  esr.tokens = (one, member) => {
    if (one.readings === null) return el("p", { class: "faint" }, "What was read of this reply token by token is too large for this bundle and was left out; python -m esr view shows it.");
    if (!one.readings.length || !one.reply) return el("p", { class: "faint" }, "This reply was not read token by token. Experiments 6 and 9 read the replies that correct themselves.");
    const protocols = [...new Set(one.readings.map((reading) => `${reading.steering}/${reading.stage}`))];
    const place = el("div");
    const shown = { protocol: protocols.includes("on/before") ? "on/before" : protocols[0], latent: null };
    const distractor = member ? member.latent : null;
    const named = (latent) => `${latent} ${one.labels[latent] || ""}`.trim();
    const role = (latent) => [latent === distractor ? "distractor" : "", ...Object.entries(one.roles).filter(([, some]) => some.includes(latent)).map(([kind]) => ROLES[kind] || kind)].filter(Boolean).join(", ");

    function draw() {
      const mine = one.readings.filter((reading) => `${reading.steering}/${reading.stage}` === shown.protocol);
      const series = new Map();
      for (const reading of mine) for (const row of reading.series || []) series.set(row.latent, row.values);
      const largest = mine.find((reading) => reading.largest);
      const silent = [...new Set(mine.flatMap((reading) => reading.silent || []))].filter((latent) => !series.has(latent));
      const length = Math.max(0, ...[...series.values()].map((values) => values.length), largest ? largest.largest.length : 0);
      const order = [...series.keys()].sort((a, b) => (role(a) ? 0 : 1) - (role(b) ? 0 : 1) || role(a).localeCompare(role(b)) || a - b);
      if (largest && !series.has(distractor) && distractor !== null) {
        const values = largest.largest.map((some) => (some.find(([latent]) => latent === distractor) || [0, 0])[1]);
        if (values.some(Boolean)) { series.set(distractor, values); order.unshift(distractor); }
      }
      if (shown.latent === null || !series.has(shown.latent)) shown.latent = order[0] ?? null;
      const at = (token) => tell(token, series, largest, order);
      const text = tokens(length, series, at);
      place.replaceChildren(
        el("div", { class: "bar" },
          protocols.length > 1 ? esr.choose("read", protocols.map((name) => [name, told(name)]), shown.protocol, (value) => { shown.protocol = value; draw(); }) : el("span", { class: "faint" }, told(shown.protocol)),
          order.length ? esr.choose("colour the text by", order.map((latent) => [latent, `${role(latent) ? `${role(latent)}: ` : ""}${named(latent)}`]), shown.latent, (value) => { shown.latent = Number(value); draw(); }) : null),
        el("div", { class: "strip" }, regions(length), order.flatMap((latent) => strip(latent, series.get(latent), length, at, text))),
        el("p", { class: "note" }, silent.length ? `Silent throughout: ${silent.map((latent) => `${role(latent) ? `${role(latent)} ` : ""}${named(latent)}`).join("; ")}. ` : "", "Hover over a strip or a word for its values; darker is more active, each strip on its own scale, named at its end."),
        text);
    }
    const spans = one.tokens;
    const chars = esr.points(one.reply.text);
    const word = (token) => (spans && spans.starts[token] !== undefined ? chars.slice(spans.starts[token], spans.ends[token]).join("") : "");

    function told(name) {
      const [steering, stage] = name.split("/");
      return `${steering === "on" ? "under its own steering" : "without steering"}, ${stage} interventions at this layer`;
    }
    function tell(token, series, largest, order) {
      const lines = [el("b", null, `token ${token} “${word(token)}”`)];
      for (const latent of order) if (series.get(latent)[token]) lines.push(`\n${role(latent) ? `${role(latent)}: ` : ""}${named(latent)}  ${esr.number(series.get(latent)[token], 2)}`);
      if (largest && largest.largest[token] && largest.largest[token].length) lines.push("\nlargest: ", largest.largest[token].slice(0, 8).map(([latent, value]) => `\n  ${named(latent)}  ${esr.number(value, 2)}`).join(""));
      return lines;
    }
    function strip(latent, values, length, at, text) {
      const canvas = el("canvas", { width: length, height: 1, role: "img", "aria-label": `activation of ${named(latent)}` });
      const high = Math.max(...values, 1e-9), context = canvas.getContext("2d");
      const colour = getComputedStyle(document.documentElement).getPropertyValue("--heat");
      values.forEach((value, i) => { if (value) { context.fillStyle = `rgba(${colour}, ${(.08 + .92 * value / high).toFixed(3)})`; context.fillRect(i, 0, 1, 1); } });
      let token = 0;
      canvas.addEventListener("pointermove", (event) => { const box = canvas.getBoundingClientRect(); token = Math.max(0, Math.min(length - 1, Math.floor((event.clientX - box.left) / box.width * length))); mark(text, token); });
      canvas.addEventListener("pointerleave", () => mark(text, -1));
      esr.hover(canvas, () => at(token));
      const kind = role(latent);
      return [el("span", { class: "name" }, kind ? el("b", null, `${kind} `) : null, link("latent", { model: one.trial.model, latent }, named(latent)), el("span", { class: "faint" }, ` ${esr.number(high, 1)}`)), canvas];
    }
    function regions(length) {
      const mine = one.regions.filter((region) => region.token_start !== null && region.kind !== "prompt");
      if (!mine.length || !length) return [];
      const first = one.reply.n_prompt_tokens, source = mine[0].source, styles = getComputedStyle(document.documentElement);
      const canvas = el("canvas", { width: length, height: 1, role: "img", "aria-label": "regions of the reply" }), context = canvas.getContext("2d");
      const own = mine.filter((region) => region.source === source);
      for (const region of own) { context.fillStyle = styles.getPropertyValue(REGIONS[region.kind] || "--s2"); context.fillRect(region.token_start - first, 0, region.token_end - region.token_start, 1); }
      let token = 0;
      canvas.addEventListener("pointermove", (event) => { const box = canvas.getBoundingClientRect(); token = Math.floor((event.clientX - box.left) / box.width * length); });
      esr.hover(canvas, () => { const region = own.find((some) => some.token_start - first <= token && some.token_end - first > token); return region ? `${region.kind}, marked by ${region.source}` : ""; });
      return [el("span", { class: "name faint" }, "regions: ", own.map((region) => region.kind).join(", ")), canvas];
    }
    function tokens(length, series, at) {
      const values = series.get(shown.latent), high = values ? Math.max(...values, 1e-9) : 1;
      const box = el("div", { class: "tokens", dir: "auto" });
      if (!spans) { box.append(el("span", { class: "faint" }, "Where each token stands in the text is not stored.")); return box; }
      let done = 0, now = 0;
      const nodes = [];
      for (let token = 0; token < spans.starts.length; token++) {
        const start = spans.starts[token], end = spans.ends[token];
        if (end <= start || start < done) continue;
        if (start > done) box.append(chars.slice(done, start).join(""));
        const value = values && token < length ? values[token] : 0;
        const node = el("span", { data: { token }, style: value ? { background: `rgba(${getComputedStyle(document.documentElement).getPropertyValue("--heat")}, ${(.1 + .6 * value / high).toFixed(3)})` } : {} }, chars.slice(start, end).join(""));
        nodes.push(node);
        box.append(node);
        done = end;
      }
      if (done < chars.length) box.append(chars.slice(done).join(""));
      box.setAttribute("tabindex", "0");
      box.addEventListener("pointerover", (event) => { if (event.target.dataset.token) now = Number(event.target.dataset.token); });
      box.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        now = Math.max(0, Math.min(length - 1, now + step));
        mark(box, now);
        box.dispatchEvent(new Event("focus"));
      });
      esr.hover(box, () => (now < length ? at(now) : `token ${now} was not read`));
      return box;
    }
    function mark(box, token) {
      for (const node of box.querySelectorAll(".at")) node.classList.remove("at");
      const node = token < 0 ? null : box.querySelector(`[data-token="${token}"]`);
      if (node) node.classList.add("at");
    }
    draw();
    return place;
  };
})();
