"use strict";
// Charts, drawn by hand: points, bars with intervals, curves. Every mark can be reached by keyboard, tells itself on hover, and leads somewhere.
esr.charts = (() => {
  const { svg } = esr;

  const linear = (from, to) => (value) => to[0] + ((value - from[0]) / ((from[1] - from[0]) || 1)) * (to[1] - to[0]);
  function ticks(low, high, many = 5) {
    const raw = (high - low) / many || 1, size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((one) => one * size).find((one) => one >= raw);
    const out = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) out.push(Math.abs(at) < step / 1e6 ? 0 : at);
    return out;
  }
  const short = (value) => String(Number(value.toPrecision(6)));

  function frame(width, height, x, y, names, left = 38) {
    const box = { left, right: width - 8, top: 8, bottom: height - 30 };
    const sx = linear(x, [box.left, box.right]), sy = linear(y, [box.bottom, box.top]);
    const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": names.title || "" });
    for (const at of ticks(...x)) root.append(svg("line", { class: "axis", x1: sx(at), x2: sx(at), y1: box.top, y2: box.bottom }), svg("text", { x: sx(at), y: box.bottom + 13, "text-anchor": "middle" }, short(at)));
    for (const at of ticks(...y)) root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: sy(at), y2: sy(at) }), svg("text", { x: box.left - 5, y: sy(at) + 4, "text-anchor": "end" }, short(at)));
    root.append(svg("text", { x: (box.left + box.right) / 2, y: height - 3, "text-anchor": "middle" }, names.x || ""));
    if (names.y) root.append(svg("text", { x: 10, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${(box.top + box.bottom) / 2})` }, names.y));
    return { root, box, sx, sy };
  }
  // A mark that a person reaches by pointer or Tab and follows by click or Enter.
  function alive(mark, tell, follow, label) {
    if (follow) {
      mark.setAttribute("tabindex", "-1");
      mark.setAttribute("role", "link");
      mark.addEventListener("click", follow);
      mark.addEventListener("keydown", (event) => { if (event.key === "Enter") follow(event); });
    }
    if (label) mark.setAttribute("aria-label", label);
    return esr.hover(mark, tell);
  }
  // Of many marks one is in the order of Tab; arrow keys go on from there.
  function roving(root, marks) {
    if (!marks.length) return;
    marks[0].setAttribute("tabindex", "0");
    root.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const at = marks.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const next = marks[Math.max(0, Math.min(marks.length - 1, at + step))];
      marks[at].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }

  // points: [{x, y, kind, tell, follow}]
  function scatter(points, { x, y, names, width = 520, height = 330, zero }) {
    const { root, box, sx, sy } = frame(width, height, x, y, names, 44);
    if (zero !== undefined) root.append(svg("line", { class: "zero", x1: box.left, x2: box.right, y1: sy(zero), y2: sy(zero) }));
    const ordered = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
    const marks = ordered.map((one) => alive(svg("circle", { class: `dot ${one.kind || ""}`, cx: sx(one.x), cy: sy(one.y), r: 3.4 }), one.tell, one.follow, one.label));
    root.append(...marks);
    roving(root, marks);
    return root;
  }

  // rows: [{name, value, low, high, note, tell, follow}], drawn as dots with intervals, one a line.
  function bars(rows, { x, names, width = 520, left = 190, line = 19 }) {
    const height = rows.length * line + 46;
    const box = { left, right: width - 64, top: 14, bottom: height - 30 };
    const sx = linear(x, [box.left, box.right]);
    const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": names.title || "" });
    for (const at of ticks(...x)) root.append(svg("line", { class: "axis", x1: sx(at), x2: sx(at), y1: box.top, y2: box.bottom }), svg("text", { x: sx(at), y: box.bottom + 13, "text-anchor": "middle" }, short(at)));
    root.append(svg("text", { x: (box.left + box.right) / 2, y: height - 2, "text-anchor": "middle" }, names.x || ""));
    const fits = Math.floor((left - 10) / 5.6);
    const marks = rows.map((one, i) => {
      const y = box.top + (i + .5) * line;
      const mark = svg("g", { class: "mark" },
        svg("rect", { class: "hit", x: 0, y: y - line / 2, width, height: line }),
        svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, one.name.length > fits ? `${one.name.slice(0, fits - 1)}…` : one.name),
        one.low === undefined || one.low === null ? null : svg("line", { class: "span", x1: sx(one.low), x2: sx(one.high), y1: y, y2: y }),
        one.value === null ? null : svg("circle", { class: "dot", cx: sx(one.value), cy: y, r: 3.6 }),
        svg("text", { x: box.right + 8, y: y + 4 }, one.note || ""));
      return alive(mark, one.tell, one.follow, one.label || one.name);
    });
    root.append(...marks);
    roving(root, marks);
    return root;
  }

  // A search for a threshold: asks as points, the target across, the threshold with its interval upright.
  function search(one, { width = 360, height = 220, small = false, follow }) {
    const asks = one.asks || [];
    const every = [...asks.map((ask) => ask.boost), one.threshold, one.low, one.high].filter((value) => value !== null && value !== undefined);
    if (!every.length) return esr.el("p", { class: "faint" }, "no asks are stored");
    const low = Math.min(...every), high = Math.max(...every), room = (high - low || 1) * .06;
    const x = [low - room, high + room];
    const made = small ? bare(width, height, x, [0, 1]) : frame(width, height, x, [0, 100], { x: "boost", y: "first score", title: "search for the threshold" }, 44);
    const { root, box, sx } = made;
    const sy = small ? made.sy : (value) => made.sy(100 * value);
    if (one.low !== null && one.low !== undefined) root.append(svg("rect", { class: "band", x: sx(one.low), width: Math.max(1, sx(one.high) - sx(one.low)), y: box.top, height: box.bottom - box.top }));
    if (one.target !== null && one.target !== undefined) root.append(svg("line", { class: "target", x1: box.left, x2: box.right, y1: sy(one.target), y2: sy(one.target) }));
    if (one.threshold !== null && one.threshold !== undefined) root.append(svg("line", { class: "threshold", x1: sx(one.threshold), x2: sx(one.threshold), y1: box.top, y2: box.bottom }));
    const marks = asks.map((ask, i) => {
      const dot = svg("circle", { class: "dot", cx: sx(ask.boost), cy: sy(ask.score), r: small ? 2 : 3 + Math.sqrt(ask.n) * .6 });
      return small ? dot : alive(dot, () => `ask ${i + 1} of ${asks.length}\nboost ${esr.number(ask.boost, 1)}: first score ${esr.number(100 * ask.score, 1)}, n = ${ask.n}`, follow || (() => {}), `ask ${i + 1}`);
    });
    root.append(...marks);
    if (!small) roving(root, marks);
    return root;
  }
  function bare(width, height, x, y) {
    const box = { left: 1, right: width - 1, top: 3, bottom: height - 3 };
    const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    return { root, box, sx: linear(x, [box.left, box.right]), sy: linear(y, [box.bottom, box.top]) };
  }
  return { scatter, bars, search };
})();
