// The players of the report and of the web page: all sides of a prompt play in sync, one of them
// audible. When the page redraws a player with the same data-key, it keeps its state and plays on.
// No text here: it is in the page, where it can be translated.
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

  async function bytesOf(uri) {
    if (!uri.startsWith("data:")) {
      const answer = await fetch(uri);
      if (!answer.ok) throw new Error(`${uri}: ${answer.status}`);
      return answer.arrayBuffer();
    }
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  }

  // Root mean square of a sound.
  function levelOf(buffer) {
    let sum = 0;
    for (let channel = 0; channel < buffer.numberOfChannels; channel += 1)
      buffer.getChannelData(channel).forEach((value) => { sum += value * value; });
    return Math.sqrt(sum / (buffer.length * buffer.numberOfChannels)) || 1e-6;
  }

  class Player {
    constructor(root) {
      this.side = null;
      this.buffers = {};
      this.levels = {};
      this.sources = [];
      this.gains = {};
      this.offset = 0;
      this.startedAt = null;
      this.loop = null; // [from, to] in seconds
      this.repeats = false; // the whole clip
      this.isLarge = false; // the large spectrogram is open
      this.bind(root);
    }

    bind(root) {
      const before = this.sides || [];
      this.root = root;
      this.bar = root.querySelector(".bar");
      this.head = root.querySelector(".head");
      this.region = root.querySelector(".region");
      this.clock = root.querySelector(".clock");
      this.play = root.querySelector(".play");
      this.buttons = [...root.querySelectorAll("button[data-side]")];
      this.sides = this.buttons.map((button) => button.dataset.side);
      this.play.addEventListener("click", () => this.toggle());
      this.buttons.forEach((button) =>
        button.addEventListener("click", () => this.choose(button.dataset.side)));
      const whole = root.querySelector(".whole");
      if (whole) whole.addEventListener("click", () => this.setLoop(null));
      this.again = root.querySelector(".again");
      if (this.again) this.again.addEventListener("click", () => this.repeat(!this.repeats));
      this.bindBar();
      const large = root.parentNode.querySelector("details.large");
      if (large) {
        large.open = this.isLarge;
        large.addEventListener("toggle", () => { this.isLarge = large.open; });
      }
      root.classList.toggle("playing", this.playing);
      before.filter((side) => !this.sides.includes(side))
        .forEach((side) => { delete this.buffers[side]; delete this.levels[side]; });
      // A new side is selected, unless somebody is listening.
      const grew = before.length < this.sides.length && !this.playing;
      if (grew || !this.sides.includes(this.side))
        this.side = before.length ? this.sides[this.sides.length - 1] : this.told();
      this.choose(this.side);
      this.mark();
    }

    // The side that the report describes.
    told() { return this.sides.includes("adapter") ? "adapter" : this.sides[this.sides.length - 1]; }

    element(side) { return this.root.parentNode.querySelector(`audio[data-side="${side}"]`); }

    get duration() {
      const loaded = Object.values(this.buffers).map((buffer) => buffer.duration);
      return loaded.length ? Math.max(...loaded) : Number(this.root.dataset.duration);
    }

    get span() { return this.loop || (this.repeats ? [0, this.duration] : null); }

    get playing() { return this.startedAt !== null; }

    get position() {
      if (!this.playing) return this.offset;
      const now = this.offset + audioContext().currentTime - this.startedAt;
      if (this.span && now > this.span[1]) {
        const [from, to] = this.span;
        return from + ((now - from) % (to - from));
      }
      return Math.min(now, this.duration);
    }

    async load() {
      const missing = this.sides.filter((side) => !this.buffers[side]);
      const bytes = await Promise.all(missing.map((side) => bytesOf(this.element(side).src)));
      const loaded = await Promise.all(bytes.map((each) => audioContext().decodeAudioData(each)));
      missing.forEach((side, index) => {
        this.buffers[side] = loaded[index];
        this.levels[side] = levelOf(loaded[index]);
      });
    }

    // If this browser can't decode the audio, fall back to its native player.
    fail() {
      this.root.hidden = true;
      this.root.parentNode.querySelector(".plain").hidden = false;
    }

    async toggle() {
      if (this.playing) { this.pause(); return; }
      if (active && active !== this) active.pause();
      active = this;
      await audioContext().resume();
      try { await this.load(); } catch { this.fail(); return; }
      if (!this.playing && active === this) this.start(this.position >= this.duration - 0.01 ? 0 : this.position);
    }

    start(offset) {
      this.stopSources();
      const now = audioContext().currentTime;
      const span = this.span;
      if (span && (offset < span[0] || offset >= span[1])) [offset] = span;
      this.gains = {};
      for (const side of this.sides.filter((one) => this.buffers[one])) {
        const source = context.createBufferSource();
        const gain = context.createGain();
        source.buffer = this.buffers[side];
        gain.gain.value = side === this.side ? this.level(side) : 0;
        source.connect(gain).connect(context.destination);
        if (span) {
          source.loop = true;
          [source.loopStart, source.loopEnd] = span;
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

    // The louder of two sounds better. Without given gains, all are turned down to the quietest.
    level(side) {
      const equal = document.getElementById("equal");
      const { gain } = this.buttons.find((one) => one.dataset.side === side).dataset;
      if (equal && !equal.checked) return 1;
      if (gain !== undefined) return 10 ** (Number(gain) / 20);
      return Math.min(...this.sides.map((one) => this.levels[one] || 1)) / (this.levels[side] || 1);
    }

    choose(side) {
      this.side = side;
      // Read once: the clock goes on between two readings, and one side would fade before the other.
      const now = audioContext().currentTime;
      for (const [name, gain] of Object.entries(this.gains)) {
        gain.gain.setTargetAtTime(name === side ? this.level(name) : 0, now, FADE_S);
      }
      // The side was added while the others play.
      if (this.playing && !this.gains[side]) {
        this.load().then(() => this.start(this.position), () => this.fail());
      }
      this.buttons.forEach((button) =>
        button.setAttribute("aria-pressed", String(button.dataset.side === side)));
      this.root.parentNode.querySelectorAll("img[data-side], a[data-side]").forEach((one) => {
        one.hidden = one.dataset.side !== side;
      });
    }

    step(by) {
      const place = this.sides.indexOf(this.side) + by;
      if (place >= 0 && place < this.sides.length) this.choose(this.sides[place]);
    }

    setLoop(loop) {
      const at = this.position;
      this.loop = loop;
      this.mark();
      this.seek(loop ? loop[0] : at);
    }

    repeat(repeats) {
      const at = this.position;
      this.repeats = repeats;
      this.mark();
      this.seek(at);
    }

    // Show the loop in the page.
    mark() {
      this.region.hidden = !this.loop;
      if (this.loop) {
        this.region.style.left = `${(100 * this.loop[0]) / this.duration}%`;
        this.region.style.width = `${(100 * (this.loop[1] - this.loop[0])) / this.duration}%`;
      }
      const whole = this.root.querySelector(".whole");
      if (whole) whole.disabled = !this.loop;
      if (this.again) this.again.setAttribute("aria-pressed", String(this.repeats));
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
      this.bar.addEventListener("keydown", (event) => {
        const to = { ArrowLeft: this.position - 1, ArrowRight: this.position + 1,
          Home: 0, End: this.duration }[event.key];
        if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        this.seek(Math.min(this.duration, Math.max(0, to)));
      });
    }

    draw() {
      if (!this.playing) return;
      if (!this.span && this.position >= this.duration) { this.pause(); return; }
      this.show();
      requestAnimationFrame(() => this.draw());
    }

    show() {
      this.head.style.left = `${(100 * this.position) / (this.duration || 1)}%`;
      // The duration may be unknown until the audio is loaded.
      const whole = this.duration ? ` / ${this.duration.toFixed(1)} s` : " s";
      this.clock.textContent = this.position.toFixed(1) + whole;
      this.bar.setAttribute("aria-valuemax", this.duration.toFixed(1));
      this.bar.setAttribute("aria-valuenow", this.position.toFixed(1));
    }
  }

  // Two-sided exact binomial test of k out of n against one half.
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
      // For keyboard users: focus the next button to press; a hidden one would lose the focus.
      this.root.querySelector(open.length ? ".hear-first" : ".export").focus({ preventScroll: true });
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

  // Whether the focus was moved by keyboard: then Space presses a button, as everywhere.
  let byKeys = false;

  function onKey(event) {
    if (event.key === "Tab") byKeys = true;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest("input, textarea, select, summary, a, .blind-test")) return;
    if (event.key === " " && byKeys && at.closest("button")) return;
    const inside = at.closest(".player");
    if (at.closest("button, [role], [tabindex]") && !inside) return;
    const player = players.find((one) => one.root === inside) || active
      || players.find((one) => one.root.offsetParent);
    if (!player || document.body.classList.contains("blind")) return;
    const acts = { " ": () => player.toggle(), a: () => player.choose(player.sides[0]),
      b: () => player.choose(player.told()),
      ArrowLeft: () => player.step(-1), ArrowRight: () => player.step(1) };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  }

  const players = [];
  const known = new Map();

  // Creates players for new elements in the page, and drops those that have left it.
  function adopt() {
    document.querySelectorAll(".player[hidden]:not([data-adopted])").forEach((root) => {
      root.dataset.adopted = "";
      root.hidden = false;
      root.parentNode.querySelector(".plain").hidden = true;
      const before = known.get(root.dataset.key);
      const player = before || new Player(root);
      if (before) before.bind(root);
      else players.push(player);
      if (root.dataset.key) known.set(root.dataset.key, player);
      player.show();
    });
    players.filter((player) => !player.root.isConnected).forEach((player) => {
      if (player.playing) player.pause();
      if (active === player) active = null;
      known.delete(player.root.dataset.key);
      players.splice(players.indexOf(player), 1);
    });
  }

  adopt();
  window.adoptPlayers = adopt;
  // A player's audible side and its position; null at the beginning and the end.
  window.playerAt = (root) => {
    const player = players.find((one) => one.root === root);
    const at = player.position;
    return { side: player.side, at: at > 0.05 && at < player.duration - 0.05 ? at : null };
  };
  document.querySelectorAll(".scripted").forEach((element) => { element.hidden = false; });
  const equal = document.getElementById("equal");
  if (equal) equal.addEventListener("change", () => players.forEach((p) => p.choose(p.side)));
  const blind = document.querySelector(".blind-test");
  if (blind) new Blind(blind, players);
  document.addEventListener("keydown", onKey);
  document.addEventListener("pointerdown", () => { byKeys = false; }, true);
})();
