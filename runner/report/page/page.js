"use strict";
// A click on a column heading sorts the table, by the data-value of the cells if they have one.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = heading.closest("table"), body = table.tBodies[0];
    const column = heading.cellIndex, sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const isNumeric = heading.classList.contains("n");
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!isNumeric) return sign * a.localeCompare(b, "en", { numeric: true });
      return a === "" || b === "" ? (a === "") - (b === "") : sign * (Number(a) - Number(b));
    });
    for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...rows);
  });
}
for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      // If the clipboard is not accessible, select the text, so that Ctrl-C copies it.
      getSelection().selectAllChildren(text);
    }
  });
}
// Open the folds when the page is printed, because paper cannot be unfolded.
const unfold = (within) => { for (const fold of within) fold.open = true; };
addEventListener("beforeprint", () => unfold(document.querySelectorAll("details:not(.long)")));
