"use strict";
// The one global: pages register themselves here, ask for data, and make elements out of text. Nothing here knows a page by name.
const esr = (() => {
  const pages = new Map();
  const main = document.getElementById("main");
  let bundle = null;        // where a bundle's data are; null: a server tells them
  let turn = 0;             // which page is being shown; an answer that comes late belongs to none

  // Elements. A child is an element, a text or a number; null and false are left out, lists are taken apart.
  function fill(node, attrs, children) {
    for (const [name, value] of Object.entries(attrs || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(node.style, value);
      else if (name === "data") Object.assign(node.dataset, value);
      else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    append(node, children);
    return node;
  }
  function append(node, children) {
    for (const child of children) {
      if (Array.isArray(child)) append(node, child);
      else if (child instanceof Node) node.append(child);
      else if (child !== null && child !== undefined && child !== false) node.append(document.createTextNode(String(child)));
    }
  }
  // The same children, put into a part of the page that is there.
  function put(node, ...children) { append(node, children); return node; }
  const el = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
  const svg = (tag, attrs, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attrs, children);

  // Addresses: #/page?name=value. Names are sorted, so that one view has one address.
  function query(params) {
    const kept = Object.entries(params || {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    kept.sort(([a], [b]) => (a < b ? -1 : 1));
    return new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
  }
  function address(name, params) {
    const told = query(params);
    return `#/${name}${told ? `?${told}` : ""}`;
  }
  function here() {
    const [name, told] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    return { name: name || "front", params: Object.fromEntries(new URLSearchParams(told || "")) };
  }
  function link(name, params, ...children) { return el("a", { href: address(name, params) }, ...children); }
  function go(name, params) { location.hash = address(name, params); }
  // The address of what is on the page now, without showing the page anew.
  function note(params) {
    const told = address(here().name, params);
    if (location.hash !== told) history.replaceState(null, "", told);
  }

  // Data.
  async function load(name, params) {
    const told = query(params);
    if (bundle) return bundle.load(name, params || {});
    const response = await fetch(`api/${name}${told ? `?${told}` : ""}`);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error || `the server answered ${response.status}`);
    return found;
  }

  function page(name, show, options) {
    pages.set(name, { show, ...(options || {}) });
    drawNav();
  }
  function drawNav() {
    const shown = [...pages].filter(([, one]) => one.nav).sort(([, a], [, b]) => (a.place || 50) - (b.place || 50));
    const now = here().name;
    document.getElementById("nav").replaceChildren(
      ...shown.map(([name, one]) => el("a", { href: address(name), "aria-current": name === now ? "page" : null }, one.nav)));
  }

  async function show() {
    const mine = ++turn;
    const { name, params } = here();
    const found = pages.get(name);
    drawNav();
    closeTip();
    const root = el("div", { class: `page ${name}` });
    const late = setTimeout(() => { if (mine === turn) main.replaceChildren(el("p", { class: "wait" }, "reading the store …")); }, 250);
    try {
      if (!found) throw new Error(`there is no page “${name}”`);
      document.title = `${found.title || found.nav || name} · esr`;
      await found.show(root, params);
    } catch (error) {
      root.replaceChildren(failed(error));
    }
    clearTimeout(late);
    if (mine !== turn) return;
    main.replaceChildren(root);
    root.dispatchEvent(new Event("shown"));
    document.body.dataset.ready = `${name} ${mine}`;
  }
  function failed(error) {
    if (!(error instanceof Error) || error.name !== "Error") console.error(error);
    return el("div", { class: "failed", role: "alert" }, el("h1", null, "This cannot be shown"), el("p", null, error.message || String(error)));
  }
  // A part of a page that comes later than the rest.
  function later(work) {
    const place = el("div", { class: "later" }, el("p", { class: "wait" }, "working …"));
    work().then((found) => { place.replaceChildren(); append(place, [found]); }, (error) => place.replaceChildren(el("p", { class: "faint" }, error.message)));
    return place;
  }

  // What stands beside the pointer or the focus: one place for all hovering.
  const tip = el("div", { id: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  function hover(node, tell) {
    const open = (event) => {
      const told = tell();
      if (!told) return;
      tip.replaceChildren(...[told].flat().map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
      tip.hidden = false;
      const box = node.getBoundingClientRect();
      const x = event.clientX || box.left + box.width / 2, y = event.clientY || box.bottom;
      tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${y + 16 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 10) : y + 16}px`;
    };
    node.addEventListener("pointermove", open);
    node.addEventListener("focus", open);
    node.addEventListener("pointerleave", closeTip);
    node.addEventListener("blur", closeTip);
    return node;
  }
  function closeTip() { tip.hidden = true; }
  addEventListener("keydown", (event) => { if (event.key === "Escape") closeTip(); });

  // A live server: when the store has changed, the page says so, or shows itself anew where that loses nothing.
  let seen = null;
  async function watch() {
    try {
      if (!document.hidden) {
        const now = await (await fetch("api/stamp")).json();
        if (seen && now !== seen) news();
        seen = now;
      }
    } catch { /* the server has ended; what is on the page stays */ }
    setTimeout(watch, 4000);
  }
  function news() {
    const found = pages.get(here().name);
    if (found && found.quiet) return;
    if (found && found.live) { show(); return; }
    const bar = document.getElementById("news");
    bar.replaceChildren("The store holds newer results. ", el("button", { onclick: () => { bar.hidden = true; show(); } }, "Show them"));
    bar.hidden = false;
  }

  function begin() {
    addEventListener("hashchange", () => { document.getElementById("news").hidden = true; show(); scrollTo(0, 0); });
    show();
  }
  function served() { begin(); watch(); }
  function bundled(told) {
    bundle = new esr.Bundle(told);
    document.getElementById("about").replaceChildren(`bundle of ${told.made}`);
    begin();
  }

  return { page, load, el, svg, put, link, address, here, go, note, later, hover, closeTip, served, bundled, get bundle() { return bundle; } };
})();
