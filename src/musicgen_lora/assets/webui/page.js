// Ctrl+Enter generates; players are made of what Gradio draws.
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    const button = document.querySelector("#generate");
    if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
  }
});
new MutationObserver(window.adoptPlayers)
  .observe(document.body, { childList: true, subtree: true });
window.adoptPlayers();
