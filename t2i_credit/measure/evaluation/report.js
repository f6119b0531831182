"use strict";
const chosen = { verdict: "", task: "" };
const cards = [...document.querySelectorAll(".card")];

function show() {
  let images = 0;
  for (const card of cards) {
    let fitting = 0;
    for (const figure of card.querySelectorAll("figure")) {
      const { verdict, change } = figure.dataset;
      figure.hidden = chosen.verdict !== "" && chosen.verdict !== verdict && chosen.verdict !== change;
      fitting += !figure.hidden;
    }
    card.hidden = !fitting || (chosen.task !== "" && chosen.task !== card.dataset.task);
    images += card.hidden ? 0 : fitting;
  }
  document.querySelector(".none").hidden = images > 0;
  document.getElementById("shown").textContent = `${images} shown`;
}

for (const group of document.querySelectorAll("[data-filter]")) {
  group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
    chosen[group.dataset.filter] = button.dataset.value;
    show();
  });
}
document.getElementById("boxes").addEventListener("change", (event) => {
  document.body.classList.toggle("no-boxes", !event.target.checked);
});
show();
