(() => {
  const top = hit => Math.round(hit.closest("li").getBoundingClientRect().top + scrollY);
  document.getElementById("keys").hidden = document.querySelector(".hit") === null;
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.defaultPrevented) return;
    // What has keys of its own keeps them.
    if (event.target.closest("input, select, textarea, dialog, [data-keys]")) return;
    const hits = [...document.querySelectorAll(".hit:not([hidden] *)")];
    if (hits.length === 0) return;
    const at = hits.indexOf(document.activeElement);
    const last = hits.length - 1;
    const second = hits.findIndex(hit => top(hit) !== top(hits[0])); // the first of the second line
    const columns = second < 0 ? hits.length : second;
    let to = -1;
    switch (event.key.toLowerCase()) {
      case "j": case "arrowright": to = at + 1; break;
      case "k": case "arrowleft": to = at - 1; break;
      // Up and down go on scrolling the page while no hit has the focus.
      case "arrowup": to = at - columns; break;
      case "arrowdown": if (at >= 0 && top(hits[at]) < top(hits[last])) to = Math.min(at + columns, last); break;
    }
    if (to < 0 || to > last) {
      // Beyond the first and last line they go to its ends, at once: a scroll under way would meet the next key's.
      if (at < 0 || !/^arrow(up|down)$/i.test(event.key)) return;
      event.preventDefault();
      scrollTo(0, /up/i.test(event.key) ? 0 : document.documentElement.scrollHeight);
      return;
    }
    event.preventDefault();
    hits[to].focus({ preventScroll: true });
    hits[to].closest("li").scrollIntoView({ block: "nearest" });
  });
})();
