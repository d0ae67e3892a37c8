// Ctrl+Enter generates; players are made of what Gradio draws.
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    const button = document.querySelector("#generate");
    if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
  }
});
// A download that is dragged out of the window becomes a file there, by browsers that can.
document.addEventListener("dragstart", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[download]");
  if (link) {
    event.dataTransfer.setData("DownloadURL", `application/octet-stream:${link.download}:${link.href}`);
  }
});
// What was typed and chosen is kept by this browser, field by field, and brought back by a reload;
// each of its tabs has its own, and a new one begins with what was kept last.
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
// What is written into the table of clips is kept by nobody before it is saved.
window.addEventListener("beforeunload", (event) => {
  if (window.unsavedClips) event.preventDefault();
});
// What Gradio says in English alone. Of a slider's two fields it says what their roles say already.
const SPOKEN = ["aria-label", "title", "placeholder"];
function said(text) {
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
// Gradio gives each button of a choice a group of its own, in which no arrow key leads anywhere.
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
// Gradio opens a list again for the key that leaves it, above what is beside it.
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && event.target.closest("[role=combobox]")) event.stopImmediatePropagation();
}, true);
// A reload is where it was.
const tabs = () => [...document.querySelectorAll("#tabs button[role=tab]")];
document.addEventListener("click", (event) => {
  const at = event.target instanceof Element ? tabs().indexOf(event.target.closest("[role=tab]")) : -1;
  if (at >= 0) stored(OWN, TAB, at);
});
tabs()[stored(OWN, TAB)]?.click();
// A button of the strip that has the focus keeps it when the strip is drawn anew.
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
