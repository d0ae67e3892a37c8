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
// What was typed and chosen is kept by this browser, field by field, and brought back by a reload.
window.keptFields = {
  read() {
    try { return JSON.parse(localStorage.getItem("musicgen-lora")) || {}; } catch { return {}; }
  },
  add(names, values) {
    const kept = this.read();
    names.forEach((name, at) => { kept[name] = values[at]; });
    try { localStorage.setItem("musicgen-lora", JSON.stringify(kept)); } catch { /* Not allowed. */ }
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
  });
}
function drawn() { window.adoptPlayers(); translate(); }
new MutationObserver(drawn).observe(document.body, { childList: true, subtree: true });
drawn();
