// Where a token's value stands: among all values of its map, and beside the same place in the other samples of the group.
(() => {
  const t2i = window.t2i;
  const BARS = 32; // of 8 colours each, and the last one of 9
  const HIGH = 30;

  t2i.spread = (state) => {
    const heights = t2i.el("div", { class: "spread-bars", "aria-hidden": "true" });
    const says = t2i.el("p", {});
    const others = t2i.el("div", { class: "spread-others", role: "img" });
    const told = t2i.el("p", {}, "The same place in the other samples");
    const box = t2i.el("div", { class: "spread" }, heights, says, others, told);
    let drawn = []; // the values and colours of the bars
    const update = () => {
      const { group } = state.value;
      const values = t2i.numbers(t2i.sampleOf(state))[state.map];
      box.hidden = state.token === null || !values;
      if (box.hidden) return;
      const lut = t2i.lut(state.look, state.map);
      const colour = (place) => `rgb(${lut.subarray(3 * place, 3 * place + 3).join()})`;
      const placed = (value) => t2i.place(state.map, value, group.scale);
      const bar = (value) => Math.min(BARS - 1, placed(value) >> 3);
      if (values !== drawn[0] || lut !== drawn[1]) {
        drawn = [values, lut];
        const counts = Array(BARS).fill(0);
        for (const value of values) counts[bar(value)]++;
        const most = Math.max(...counts);
        heights.replaceChildren(
          ...counts.map((count, i) => {
            const height = count && Math.max(2, Math.round(HIGH * Math.sqrt(count / most)));
            return t2i.el("span", {}, t2i.el("i", { style: `height: ${height}px; background: ${colour(8 * i + 4)}` }));
          }),
        );
      }
      heights.querySelector(".here")?.classList.remove("here");
      heights.children[bar(values[state.token])].classList.add("here");
      const higher = values.filter((value) => value > values[state.token]).length;
      const name = { token_advantages: "token advantage", credit: "credit", signed_contrast: "signed contrast", value_change: "value change", reward_map: "reward map" }[state.map];
      const equal = values.every((value) => value === values[0]);
      says.textContent = equal ? `The ${values.length} values of ${name} are all equal` : `Number ${higher + 1} of ${values.length} by ${name}, highest first`;
      const same = group.samples.map((sample) => t2i.numbers(sample)[state.map]?.[state.token]);
      others.setAttribute("aria-label", same.map((value) => t2i.number(value)).join(", "));
      others.replaceChildren(
        ...same.map((value, place) =>
          t2i.el("span", {
            class: place === state.place ? "here" : null,
            style: `background: ${colour(placed(value))}`,
            title: `${t2i.nameOf(group.samples[place], place)}: ${t2i.number(value)}`,
          }),
        ),
      );
      others.hidden = told.hidden = same.length < 2;
    };
    return { box, refresh: update };
  };
})();
