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
document.getElementById("boxes")?.addEventListener("change", (event) => {
  document.body.classList.toggle("no-boxes", !event.target.checked);
});
if (document.querySelector("[data-filter]")) show();

// Cards in the order of one of their keys, unknown ones last.
const order = document.getElementById("order");
function arrange() {
  const [key, way] = order.value.split("|");
  const sign = way === "up" ? 1 : -1;
  const value = (card) => JSON.parse(card.dataset.order)[key] ?? sign * Infinity;
  document.querySelector(".cards").append(...cards.toSorted((a, b) => sign * (value(a) - value(b)) || 0));
}
if (order) {
  order.addEventListener("change", arrange);
  arrange();
}
