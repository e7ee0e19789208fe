"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SHOWN = 200;

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function dot(backend) {
    const made = element("i", { className: "dot" });
    made.style.background = data.colours[backend];
    return made;
  }

  function chooser(label, values, onChange) {
    const select = element("select", { name: label }, ...values.map((value) => element("option", { value }, value || "all")));
    select.addEventListener("change", onChange);
    return { select, label: element("label", {}, label, select) };
  }

  // All results: a table of the rows that pass the filters, in the order of the column that was clicked.
  function results(place) {
    const { columns, choices } = data.results;
    const position = Object.fromEntries(columns.map((column, index) => [column.head, index]));
    const all = columns[0].texts.map((_, row) => row);
    const words = all.map((row) => columns.filter((column) => !column.keys).map((column) => column.texts[row]).join(" ").toLowerCase());
    const body = element("tbody");
    const note = element("p", { className: "soft", ariaLive: "polite" });
    const more = element("button", { type: "button" }, "show all");
    let sorted = { column: -1, descending: false };
    let limit = SHOWN;

    const search = element("input", { type: "search", placeholder: "words of a layer, op, backend" });
    const choosers = Object.entries(choices).map(([head, values]) => [head, chooser(head, ["", ...values], refill)]);
    search.addEventListener("input", refill);
    more.addEventListener("click", () => { limit = Infinity; fill(); });

    const heads = columns.map((column, index) => {
      const button = element("button", { type: "button" }, column.head);
      button.addEventListener("click", () => sort(index));
      return element("th", { scope: "col", className: column.keys ? "r" : "l" }, button);
    });

    function compare(column) {
      const { keys, texts } = columns[column];
      if (!keys) return (a, b) => texts[a].localeCompare(texts[b], "en", { numeric: true });
      return (a, b) => keys[a] - keys[b];
    }

    function sort(column) {
      sorted = { column, descending: sorted.column === column && !sorted.descending };
      heads.forEach((head, index) => {
        if (index === column) head.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      refill();
    }

    function chosen() {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const picked = choosers.filter(([, { select }]) => select.value);
      const rows = all.filter((row) =>
        wanted.every((word) => words[row].includes(word)) &&
        picked.every(([head, { select }]) => columns[position[head]].texts[row] === select.value));
      if (sorted.column < 0) return rows;
      const { keys } = columns[sorted.column];
      const known = keys ? rows.filter((row) => keys[row] !== null) : rows;
      const unknown = keys ? rows.filter((row) => keys[row] === null) : [];
      known.sort(compare(sorted.column));
      if (sorted.descending) known.reverse();
      return [...known, ...unknown]; // what has no number stands last either way
    }

    function cell(column, row) {
      const text = column.texts[row];
      const made = element("td", { className: column.keys ? "r" : "l" });
      if (column.head === "backend") made.append(dot(text));
      made.append(text);
      return made;
    }

    function fill() {
      const rows = chosen();
      const shown = rows.slice(0, limit);
      body.replaceChildren(...shown.map((row) => element("tr", {}, ...columns.map((column) => cell(column, row)))));
      note.textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} cases shown` +
        (rows.length < all.length ? `, of ${all.length.toLocaleString("en")} in all` : "");
      more.hidden = shown.length === rows.length;
    }

    function refill() {
      limit = SHOWN;
      fill();
    }

    const form = element("form", {}, element("label", {}, "search", search), ...choosers.map(([, { label }]) => label), more);
    form.addEventListener("submit", (event) => event.preventDefault());
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
    place.replaceChildren(form, note, element("div", { className: "scroll tall", tabIndex: 0 }, table));
    fill();
  }

  // The ladder of a chosen layer: a bar for each backend, on a logarithmic scale, the slowest first.
  function ladders(place) {
    const found = data.ladders[place.dataset.anchor];
    const shown = element("div", { className: "rungs" });
    const parts = ["op", "layer", "batch"];
    const start = found.find((one) => parts.every((part) => one[part] === place.dataset[part])) || found[0];
    const choosers = parts.map((part) =>
      chooser(part === "batch" ? "batch size" : part, [...new Set(found.map((one) => one[part]))], () => show()));
    choosers.forEach(({ select }, index) => { select.value = start[parts[index]]; });

    function show() {
      const wanted = choosers.map(({ select }) => select.value);
      const one = found.find((each) => parts.every((part, index) => each[part] === wanted[index]));
      if (!one) {
        shown.replaceChildren(element("p", {}, "Fewer than two backends have times here."));
        return;
      }
      const times = one.rungs.map(([, seconds]) => seconds);
      const least = Math.log(Math.min(...times) / 2);
      const span = Math.log(Math.max(...times)) - least;
      shown.replaceChildren(...one.rungs.flatMap(([backend, seconds, predicted, text, step, total], index) => {
        const bar = element("div", { className: predicted ? "bar predicted" : "bar" });
        bar.style.background = data.colours[backend];
        bar.style.width = `${100 * (Math.log(seconds) - least) / span}%`;
        const time = `${predicted ? "≈ " : ""}${text}`;
        const factors = index ? `, ${step} as fast as the one above` + (index > 1 ? `, ${total} the first` : "") : "";
        const why = data.gains[backend] ? `: ${data.gains[backend]}` : "";
        return [
          element("div", { className: "name" }, dot(backend), backend),
          element("div", {}, bar, element("div", { className: "why" }, element("b", {}, time + factors), why)),
        ];
      }));
    }

    const form = element("form", {}, ...choosers.map(({ label }) => label));
    form.addEventListener("submit", (event) => event.preventDefault());
    place.replaceChildren(form, shown);
    show();
  }

  document.querySelectorAll("[data-results]").forEach(results);
  document.querySelectorAll("[data-ladder]").forEach(ladders);
})();
