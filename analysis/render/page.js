// A click on a heading of a table sorts its rows by that column, another one the other way round.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const value = (row, at) => {
    const text = row.cells[at].textContent.trim().replaceAll("−", "-").replaceAll(",", "");
    const number = parseFloat(text.replace(/^[<>+]\s*/, ""));
    return { text, number, missing: text === "–" || text === "" };
  };
  const order = (a, b) =>
    Number.isNaN(a.number) || Number.isNaN(b.number)
      ? a.text.localeCompare(b.text)
      : a.number - b.number;
  table.querySelectorAll("thead button").forEach((button, at) => {
    button.addEventListener("click", () => {
      const cell = button.closest("th");
      const down = cell.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", down ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => ({ row, key: value(row, at) }));
      rows.sort((a, b) =>
        a.key.missing || b.key.missing
          ? a.key.missing - b.key.missing
          : (down ? 1 : -1) * order(a.key, b.key),
      );
      body.append(...rows.map((one) => one.row));
    });
  });
}
// What is wider than the screen says that it can be moved sideways.
const hint = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("wide", box.firstElementChild.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", hint);
addEventListener("load", hint);
hint();
