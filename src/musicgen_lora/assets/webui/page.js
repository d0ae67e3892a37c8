() => {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      const button = document.querySelector("#generate");
      if (button && button.offsetParent !== null) { event.preventDefault(); button.click(); }
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".pair .switch");
    if (!button) return;
    const figure = button.closest(".pair");
    const [first, second] = figure.querySelectorAll("audio");
    const from = first.controls ? first : second;
    const to = from === first ? second : first;
    const playing = !from.paused;
    to.currentTime = from.currentTime;
    from.pause();
    from.controls = false;
    to.controls = true;
    button.textContent = (to === first ? button.dataset.a : button.dataset.b) + " ⇄";
    if (playing) to.play();
  });
  document.addEventListener("play", (event) => {
    for (const other of document.querySelectorAll("audio")) {
      if (other !== event.target) other.pause();
    }
  }, true);
}
