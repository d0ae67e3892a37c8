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
// What Gradio says in English alone.
function translate() {
  Object.entries(window.pageWords).forEach(([english, word]) => {
    document.querySelectorAll(`input[placeholder="${english}"]`)
      .forEach((field) => { field.placeholder = word; field.setAttribute("aria-label", word); });
    document.querySelectorAll(".toast-message-text").forEach((said) => {
      if (said.textContent.trim() === english) said.textContent = word;
    });
  });
}
// A reload is where it was.
const tabs = () => [...document.querySelectorAll("#tabs button[role=tab]")];
document.addEventListener("click", (event) => {
  const at = event.target instanceof Element ? tabs().indexOf(event.target.closest("[role=tab]")) : -1;
  if (at >= 0) stored(OWN, TAB, at);
});
tabs()[stored(OWN, TAB)]?.click();
function drawn() { window.adoptPlayers(); translate(); }
new MutationObserver(drawn).observe(document.body, { childList: true, subtree: true });
drawn();
