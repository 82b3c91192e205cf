"use strict";
(function () {
  function sortAndFilter() {
    const table = document.getElementById("site-table");
    if (!table) return;
    const rows = Array.from(table.tBodies);
    const text = (row, column) => row.rows[0].cells[column].textContent.trim().toLowerCase();
    const numbers = { number: (row) => +row.id.slice(5), saved: (row) => -row.dataset.saved, lost: (row) => +row.dataset.lost };
    for (const head of table.tHead.rows[0].cells) {
      const key = head.dataset.key;
      if (!key) continue;
      const value = numbers[key] || ((row) => text(row, head.cellIndex));
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sign = down ? -1 : 1;
        rows.sort((a, b) => sign * (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0) || numbers.number(a) - numbers.number(b));
        table.append(...rows);
      });
    }
    const filter = document.getElementById("filter");
    const changedOnly = document.getElementById("changed-only");
    const shown = document.getElementById("shown");
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const said = row.rows[0].textContent.toLowerCase();
        const wanted = words.every((word) => said.includes(word)) && (!changedOnly.checked || "changed" in row.dataset);
        row.hidden = !wanted;
        count += wanted;
      }
      shown.textContent = count + " of " + rows.length + " sites";
    };
    filter.addEventListener("input", apply);
    changedOnly.addEventListener("change", apply);
    filter.closest(".tools").hidden = false;
    apply();
  }

  function zoom() {
    const picture = document.getElementById("picture");
    const pane = picture.parentElement;
    const overview = document.getElementById("overview");
    const frame = document.getElementById("window");
    const natural = picture.viewBox.baseVal;
    let scale = 1;
    const track = () => {
      frame.setAttribute("x", Math.max(0, pane.scrollLeft / scale));
      frame.setAttribute("y", pane.scrollTop / scale);
      frame.setAttribute("width", Math.min(natural.width, pane.clientWidth / scale));
      frame.setAttribute("height", Math.min(natural.height, pane.clientHeight / scale));
    };
    const show = (wanted) => {
      const x = (pane.scrollLeft + pane.clientWidth / 2) / scale;
      const y = pane.scrollTop / scale;
      scale = Math.min(4, Math.max(0.05, wanted));
      picture.setAttribute("width", natural.width * scale);
      picture.setAttribute("height", natural.height * scale);
      pane.scrollTo(x * scale - pane.clientWidth / 2, y * scale);
      track();
    };
    const fit = () => Math.min(1, pane.clientWidth / natural.width);
    const steps = {
      in: () => scale * 1.25,
      out: () => scale / 1.25,
      fit: fit,
      whole: () => Math.min(fit(), pane.clientHeight / natural.height),
    };
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => show(steps[button.dataset.zoom]()));
    }
    overview.addEventListener("click", (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(overview.getScreenCTM().inverse());
      pane.scrollTo(place.x * scale - pane.clientWidth / 2, place.y * scale - pane.clientHeight / 2);
    });
    pane.addEventListener("scroll", track);
    window.addEventListener("resize", track);
    document.getElementById("zoom").hidden = false;
    show(Math.max(fit(), 0.75));
  }

  sortAndFilter();
  zoom();
})();
