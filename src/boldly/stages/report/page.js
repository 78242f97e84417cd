// Tables: a click on a heading sorts the rows, a text filters them. Everything is readable without this script.
"use strict";
const compare = new Intl.Collator(undefined, { numeric: true }).compare;

function valueOf(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
}

function order(one, other, sign) {
  // Empty cells stay last, whichever way the others are sorted.
  if (one === "" || other === "") return (one === "") - (other === "");
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * compare(String(one), String(other));
}

for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([one], [other]) => order(one, other, descending ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

for (const input of document.querySelectorAll(".filter input")) {
  const rows = [...input.closest(".table").querySelectorAll("tbody tr")];
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// What is folded away belongs on paper as well.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
