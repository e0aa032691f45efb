"use strict";
// Numbers, times and marks as people read them: one form for all pages.
Object.assign(esr, {
  percent(value, digits = 1) { return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`; },
  number(value, digits = 1) { return value === null || value === undefined ? "–" : Number(value).toFixed(digits); },
  signed(value, digits = 1) { return value === null || value === undefined ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`; },
  count(value) { return value === null || value === undefined ? "–" : Number(value).toLocaleString("en-US"); },
  cost(value) { return value === null || value === undefined ? "unknown" : `$${value.toFixed(2)}`; },
  duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    const s = Math.round(seconds);
    return `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${String(s % 60).padStart(2, "0")}`;
  },
  time(iso) { return iso ? iso.replace("T", " ").slice(0, 16) : "–"; },
  // A rate with its interval, or the reason why there is none.
  estimate(e) {
    if (!e || e.value === null) return "–";
    const by = e.rate ? 100 : 1, unit = e.rate ? " %" : "";
    const span = e.interval ? ` [${(by * e.interval[0]).toFixed(1)}, ${(by * e.interval[1]).toFixed(1)}]` : "";
    return `${(by * e.value).toFixed(1)}${unit}${span}`;
  },
  table(head, rows, attrs) {
    const el = esr.el;
    const cell = (tag, one, i) => (one instanceof Node && /^T[DH]$/.test(one.tagName) ? one
      : el(tag, { class: head[i] && head[i].right ? "right" : null, scope: tag === "th" ? "col" : null }, one));
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": (attrs && attrs.label) || "table" },
      el("table", { class: attrs && attrs.class },
        el("thead", null, el("tr", null, head.map((one, i) => cell("th", one.name ?? one, i)))),
        el("tbody", null, rows.map((row) => (row instanceof Node ? row : el("tr", null, row.map((one, i) => cell("td", one, i))))))));
  },
  // A row of choices, as a select with its name before it.
  choose(name, options, now, change) {
    const el = esr.el;
    const box = el("select", { onchange: (event) => change(event.target.value), "aria-label": name },
      options.map(([value, text]) => el("option", { value, selected: String(value) === String(now ?? "") }, text)));
    return el("label", { class: "choose" }, el("span", null, name), box);
  },
});
