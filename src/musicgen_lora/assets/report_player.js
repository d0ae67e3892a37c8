// The report's players: all sides of a prompt run at once, and one of them is heard.
// No words here: they are in the page, where they can be translated.
"use strict";
(() => {
  const FADE_S = 0.008;
  const SHORTEST_LOOP = 0.02; // of the clip; a shorter drag is a click
  let context = null;
  let active = null;

  function audioContext() {
    context = context || new AudioContext();
    return context;
  }

  function bytesOf(uri) {
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  }

  class Player {
    constructor(root) {
      this.root = root;
      this.bar = root.querySelector(".bar");
      this.head = root.querySelector(".head");
      this.region = root.querySelector(".region");
      this.clock = root.querySelector(".clock");
      this.play = root.querySelector(".play");
      this.buttons = [...root.querySelectorAll("button[data-side]")];
      this.sides = this.buttons.map((button) => button.dataset.side);
      this.side = this.told();
      this.buffers = null;
      this.sources = [];
      this.gains = {};
      this.offset = 0;
      this.startedAt = null;
      this.loop = null; // [from, to] in seconds
      this.play.addEventListener("click", () => this.toggle());
      this.buttons.forEach((button) =>
        button.addEventListener("click", () => this.choose(button.dataset.side)));
      const whole = root.querySelector(".whole");
      if (whole) whole.addEventListener("click", () => this.setLoop(null));
      this.bindBar();
      this.choose(this.side);
    }

    // The side that the report is of.
    told() { return this.sides.includes("adapter") ? "adapter" : this.sides[this.sides.length - 1]; }

    element(side) { return this.root.parentNode.querySelector(`audio[data-side="${side}"]`); }

    get duration() {
      if (this.buffers) return Math.max(...Object.values(this.buffers).map((b) => b.duration));
      return Number(this.root.dataset.duration);
    }

    get playing() { return this.startedAt !== null; }

    get position() {
      if (!this.playing) return this.offset;
      const now = this.offset + audioContext().currentTime - this.startedAt;
      if (this.loop && now > this.loop[1]) {
        const [from, to] = this.loop;
        return from + ((now - from) % (to - from));
      }
      return Math.min(now, this.duration);
    }

    async load() {
      if (this.buffers) return;
      const loaded = {};
      for (const side of this.sides) {
        loaded[side] = await audioContext().decodeAudioData(bytesOf(this.element(side).src));
      }
      this.buffers = loaded;
    }

    async toggle() {
      if (this.playing) { this.pause(); return; }
      if (active && active !== this) active.pause();
      active = this;
      await audioContext().resume();
      await this.load();
      if (!this.playing) this.start(this.position >= this.duration - 0.01 ? 0 : this.position);
    }

    start(offset) {
      this.stopSources();
      const now = audioContext().currentTime;
      if (this.loop && (offset < this.loop[0] || offset >= this.loop[1])) offset = this.loop[0];
      for (const side of this.sides) {
        const source = context.createBufferSource();
        const gain = context.createGain();
        source.buffer = this.buffers[side];
        gain.gain.value = side === this.side ? this.level(side) : 0;
        source.connect(gain).connect(context.destination);
        if (this.loop) {
          source.loop = true;
          [source.loopStart, source.loopEnd] = this.loop;
        }
        source.start(now, offset);
        this.sources.push(source);
        this.gains[side] = gain;
      }
      this.offset = offset;
      this.startedAt = now;
      this.root.classList.add("playing");
      this.draw();
    }

    stopSources() {
      this.sources.forEach((source) => source.stop());
      this.sources = [];
      this.startedAt = null;
    }

    pause() {
      this.offset = this.position;
      this.stopSources();
      this.root.classList.remove("playing");
      this.show();
    }

    level(side) {
      const equal = document.getElementById("equal");
      const button = this.buttons.find((one) => one.dataset.side === side);
      return equal && !equal.checked ? 1 : 10 ** (Number(button.dataset.gain || 0) / 20);
    }

    choose(side) {
      this.side = side;
      for (const [name, gain] of Object.entries(this.gains)) {
        gain.gain.setTargetAtTime(
          name === side ? this.level(name) : 0, audioContext().currentTime, FADE_S);
      }
      this.buttons.forEach((button) =>
        button.setAttribute("aria-pressed", String(button.dataset.side === side)));
      this.bar.querySelectorAll("img").forEach((image) => {
        image.hidden = image.dataset.side !== side;
      });
    }

    step(by) {
      const place = this.sides.indexOf(this.side) + by;
      if (place >= 0 && place < this.sides.length) this.choose(this.sides[place]);
    }

    setLoop(loop) {
      const at = this.position;
      this.loop = loop;
      this.region.hidden = !loop;
      if (loop) {
        this.region.style.left = `${(100 * loop[0]) / this.duration}%`;
        this.region.style.width = `${(100 * (loop[1] - loop[0])) / this.duration}%`;
      }
      const whole = this.root.querySelector(".whole");
      if (whole) whole.disabled = !loop;
      this.seek(loop ? loop[0] : at);
    }

    seek(to) {
      if (this.playing) this.start(to);
      else this.offset = to;
      this.show();
    }

    bindBar() {
      let from = null;
      const share = (event) => {
        const box = this.bar.getBoundingClientRect();
        return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      };
      this.bar.addEventListener("pointerdown", (event) => {
        from = share(event);
        this.bar.setPointerCapture(event.pointerId);
      });
      this.bar.addEventListener("pointerup", (event) => {
        if (from === null) return;
        const [low, high] = [from, share(event)].sort((a, b) => a - b);
        from = null;
        if (high - low >= SHORTEST_LOOP) this.setLoop([low * this.duration, high * this.duration]);
        else this.seek(high * this.duration);
      });
      this.bar.addEventListener("pointercancel", () => { from = null; });
    }

    draw() {
      if (!this.playing) return;
      if (!this.loop && this.position >= this.duration) { this.pause(); return; }
      this.show();
      requestAnimationFrame(() => this.draw());
    }

    show() {
      this.head.style.left = `${(100 * this.position) / this.duration}%`;
      this.clock.textContent = `${this.position.toFixed(1)} / ${this.duration.toFixed(1)} s`;
    }
  }

  // Two-sided exact binomial test of k of n at one half.
  function binomial(k, n) {
    let sum = 0;
    let term = 0.5 ** n;
    const terms = [];
    for (let i = 0; i <= n; i += 1) {
      terms.push(term);
      term = (term * (n - i)) / (i + 1);
    }
    terms.forEach((one) => { if (one <= terms[k] * (1 + 1e-9)) sum += one; });
    return Math.min(1, sum);
  }

  function shuffled(items) {
    const found = [...items];
    for (let i = found.length - 1; i > 0; i -= 1) {
      const j = Math.floor(Math.random() * (i + 1));
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  }

  // Blind listening: which of two is better, without knowing which is which.
  class Blind {
    constructor(root, players) {
      this.root = root;
      this.pairs = players.filter((player) => player.root.dataset.pair);
      this.key = `musicgen-lora votes ${root.dataset.report}`;
      this.votes = this.stored();
      this.player = null;
      const on = (name, act) => root.querySelector(name).addEventListener("click", act);
      on(".begin", () => this.next());
      on(".first", () => this.vote(0));
      on(".second", () => this.vote(1));
      on(".neither", () => this.vote(null));
      on(".forget", () => { this.votes = []; this.keep(); this.tell(); this.next(); });
      on(".hear-first", () => this.hear(0));
      on(".hear-second", () => this.hear(1));
      this.tell();
    }

    stored() {
      try {
        const found = JSON.parse(localStorage.getItem(this.key));
        return Array.isArray(found) ? found : [];
      } catch { return []; }
    }

    keep() {
      try { localStorage.setItem(this.key, JSON.stringify(this.votes)); }
      catch { this.root.querySelector(".unkept").hidden = false; }
    }

    next() {
      if (this.player) this.player.pause();
      const done = new Set(this.votes.map((vote) => vote.pair));
      const open = this.pairs.filter((player) => !done.has(player.root.dataset.pair));
      this.root.querySelector(".asking").hidden = !open.length;
      this.root.querySelector(".done").hidden = open.length > 0;
      this.root.querySelector(".begin").hidden = true;
      if (!open.length) { this.player = null; return; }
      [this.player] = shuffled(open);
      this.order = shuffled(["base", "adapter"]);
      this.mark(null);
    }

    mark(place) {
      [".hear-first", ".hear-second"].forEach((name, index) =>
        this.root.querySelector(name).setAttribute("aria-pressed", String(index === place)));
    }

    async hear(place) {
      if (!this.player) return;
      document.body.classList.add("blind");
      this.player.choose(this.order[place]);
      this.mark(place);
      if (!this.player.playing) await this.player.toggle();
    }

    vote(place) {
      if (!this.player) return;
      this.votes.push({
        pair: this.player.root.dataset.pair,
        better: place === null ? "neither" : this.order[place],
        first: this.order[0],
        at: new Date().toISOString(),
      });
      document.body.classList.remove("blind");
      this.keep();
      this.tell();
      this.next();
    }

    tell() {
      const better = (side) => this.votes.filter((vote) => vote.better === side).length;
      const [base, adapter] = [better("base"), better("adapter")];
      const set = (name, text) => { this.root.querySelector(name).textContent = text; };
      set(".n-adapter", adapter);
      set(".n-base", base);
      set(".n-neither", better("neither"));
      set(".p", base + adapter ? binomial(adapter, base + adapter).toFixed(3) : "\u2013");
      const votes = { report: this.root.dataset.report, votes: this.votes };
      this.root.querySelector(".export").href =
        `data:application/json,${encodeURIComponent(JSON.stringify(votes, null, 1))}`;
    }
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest("input, textarea, select, summary, a, .blind-test")) return;
    const player = active || players[0];
    if (!player || document.body.classList.contains("blind")) return;
    const acts = { " ": () => player.toggle(), a: () => player.choose(player.sides[0]),
      b: () => player.choose(player.told()),
      ArrowLeft: () => player.step(-1), ArrowRight: () => player.step(1) };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  }

  const players = [...document.querySelectorAll(".player")].map((root) => {
    root.hidden = false;
    root.parentNode.querySelector(".plain").hidden = true;
    return new Player(root);
  });
  players.forEach((player) => player.show());
  document.querySelectorAll(".scripted").forEach((element) => { element.hidden = false; });
  const equal = document.getElementById("equal");
  if (equal) equal.addEventListener("change", () => players.forEach((p) => p.choose(p.side)));
  const blind = document.querySelector(".blind-test");
  if (blind) new Blind(blind, players);
  document.addEventListener("keydown", onKey);
})();
