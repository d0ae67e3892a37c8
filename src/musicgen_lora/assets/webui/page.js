// Ctrl+Enter generates; players are built from what Gradio draws.
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    const button = document.querySelector("#generate");
    if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
  }
});
// A download dragged out of the window becomes a file, in browsers that support it.
document.addEventListener("dragstart", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[download]");
  if (link) {
    event.dataTransfer.setData("DownloadURL", `application/octet-stream:${link.download}:${link.href}`);
  }
});
// This browser keeps what was typed and chosen, field by field, and a reload restores it; each
// of its tabs has its own copy, and a new one starts with what was kept last.
const KEPT = "musicgen-lora", TAB = "musicgen-lora tab";
function stored(place, key, value) {
  try {
    if (value !== undefined) place().setItem(key, JSON.stringify(value));
    return JSON.parse(place().getItem(key));
  } catch { return null; /* Not allowed, or not ours. */ }
}
const OWN = () => sessionStorage, COMMON = () => localStorage;
window.keptFields = {
  read() { return stored(OWN, KEPT) || stored(COMMON, KEPT) || {}; },
  add(names, values) {
    const kept = this.read();
    names.forEach((name, at) => { kept[name] = values[at]; });
    [OWN, COMMON].forEach((place) => stored(place, KEPT, kept));
    return [];
  },
  bring(places, values) {
    const kept = this.read();
    places.forEach((at) => { values[at] = kept; });
    return values;
  },
};
// What is typed into the table of clips is lost unless it is saved.
window.addEventListener("beforeunload", (event) => {
  if (window.unsavedClips) event.preventDefault();
});
// What Gradio says only in English. For a slider's two fields it repeats what their roles say.
const SPOKEN = ["aria-label", "title", "placeholder"];
const OUTSIDE = /^Value (\S+) is (less than minimum|greater than maximum) value (\S+)\.$/;
function said(text) {
  const outside = OUTSIDE.exec(text.trim());
  if (outside) {
    const [, value, side, limit] = outside;
    return window.pageWords[`Value {value} is ${side} value {limit}.`]
      .replace("{value}", () => value).replace("{limit}", () => limit);
  }
  return window.pageWords[text.trim()] || text.replace(/^(number input|range slider) for /, "");
}
function translate() {
  document.querySelectorAll(SPOKEN.map((name) => `[${name}]`).join()).forEach((element) => {
    for (const name of SPOKEN) {
      const text = element.getAttribute(name);
      if (text && said(text) !== text) element.setAttribute(name, said(text));
    }
  });
  document.querySelectorAll(".toast-title, .toast-message-text").forEach((element) => {
    const text = element.firstChild;
    if (text && said(text.nodeValue || "") !== text.nodeValue) text.nodeValue = said(text.nodeValue);
  });
}
// Gradio gives each radio button a group of its own, so arrow keys lead nowhere.
const ARROWS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
document.addEventListener("keydown", (event) => {
  const by = ARROWS[event.key];
  if (!by || !event.target.matches("input[type=radio]")) return;
  const buttons = [...event.target.closest(".block").querySelectorAll("input[type=radio]")];
  const next = buttons.at((buttons.indexOf(event.target) + by) % buttons.length);
  event.preventDefault();
  next.focus();
  next.click();
});
// The key that leaves a list makes Gradio reopen it, over what is beside it.
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && event.target.closest("[role=combobox]")) event.stopImmediatePropagation();
}, true);
// A reload returns to the same tab.
const tabs = () => [...document.querySelectorAll("#tabs button[role=tab]")];
document.addEventListener("click", (event) => {
  const at = event.target instanceof Element ? tabs().indexOf(event.target.closest("[role=tab]")) : -1;
  if (at >= 0) stored(OWN, TAB, at);
});
tabs()[stored(OWN, TAB)]?.click();
// A focused button of the strip keeps the focus when the strip is redrawn.
let held = null;
document.addEventListener("focusin", (event) => {
  const button = event.target.closest("#strip [data-job]");
  held = button && `#strip [data-act="${button.dataset.act}"][data-job="${button.dataset.job}"]`;
});
document.addEventListener("pointerdown", () => { held = null; });
function hold() {
  if (held && document.activeElement === document.body)
    document.querySelector(held)?.focus();
}
function drawn() { window.adoptPlayers(); translate(); hold(); }
new MutationObserver(drawn).observe(document.body, { childList: true, subtree: true });
drawn();
