"use strict";
// Data of a bundle: packed JSON in scripts beside the page, each loaded when first asked for.
esr.Bundle = class {
  constructor(told) {
    Object.assign(this, told);
    this.waiting = new Map();
    this.files = new Map();
  }
  async load(name, params) {
    const key = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined)
      .map(([one, value]) => [one, String(value)]).sort(([a], [b]) => (a < b ? -1 : 1)).map((pair) => pair.join("=")).join("&");
    const first = this.first[name] || [];
    let low = 0, high = first.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (first[middle][0] <= key) low = middle + 1; else high = middle;
    }
    const found = low ? (await this.file(first[low - 1][1]))[key] : undefined;
    if (found === undefined) throw new Error(`This bundle does not hold ${name === "trial" ? "that trial" : `“${name}” of ${key || "this"}`}; python -m esr view shows everything that the store holds.`);
    return found;
  }
  file(number) {
    if (!this.files.has(number)) {
      this.files.set(number, new Promise((done, failed) => {
        this.waiting.set(number, done);
        const lost = () => { this.files.delete(number); failed(new Error(`data/${number}.js is missing in this bundle`)); };
        document.head.append(esr.el("script", { src: `data/${number}.js`, onerror: lost }));
      }));
    }
    return this.files.get(number);
  }
  take(number, packed) { this.waiting.get(number)(this.unpack(packed)); }
  async unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
};
