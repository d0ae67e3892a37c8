// The visible texts of a page whose contrast is below WCAG's AA.
() => {
  const parsed = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = (top, below) => below.map((part, at) => (at < 3 ? top[at] * top[3] + part * (1 - top[3]) : 1));
  const light = (color) => {
    const [red, green, blue] = color.slice(0, 3).map((part) =>
      part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const line = (element) => element ? [...line(element.parentElement), element] : [];
  const isText = (element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && /[\p{L}\p{N}]/u.test(node.nodeValue))
    || element.matches("textarea, input:is([type=text], [type=number], :not([type]))");
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || !isText(element)) continue;
    const styles = line(element).map((each) => getComputedStyle(each));
    const below = styles.reduce((color, style) => over(parsed(style.backgroundColor), color), [255, 255, 255, 1]);
    const isEmpty = "placeholder" in element && !element.value;
    const style = isEmpty ? getComputedStyle(element, "::placeholder") : styles.at(-1);
    const text = parsed(style.color);
    text[3] *= styles.reduce((opacity, each) => opacity * each.opacity, 1);
    const [low, high] = [light(over(text, below)), light(below)].sort((one, other) => one - other);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5)
      found.push(`${ratio.toFixed(2)}: ${(element.textContent || element.value || element.placeholder).trim().slice(0, 60)}`);
  }
  return found;
}
