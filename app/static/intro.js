// What credit is, in four pictures made of the group that is shown; folded away after the first visit.
(() => {
  const t2i = window.t2i;
  const KEY = "t2i-credit-introduced";
  const SHOWN = 6; // samples of the group at most

  t2i.intro = (state) => {
    const grid = t2i.el("div", { class: "intro-grid" });
    const box = t2i.el("details", { class: "intro" }, t2i.el("summary", {}, "What am I looking at? Four pictures of this run"), grid);
    box.open = !localStorage.getItem(KEY);
    localStorage.setItem(KEY, "yes");
    return { box, refresh: () => draw(grid, state) };
  };

  const draw = (grid, state) => {
    const group = state.value.example ?? state.value.group; // another step's, where every group of this one is flat
    const made = group.text ? "answers" : "images";
    const samples = group.samples.filter((sample) => Number.isFinite(sample.reward) && Number.isFinite(sample.advantage));
    if (samples.length < 2) return grid.replaceChildren(t2i.el("p", {}, "This group has too little to explain it on."));
    const two = [samples[0], samples.at(-1)];
    const some = samples.length <= SHOWN ? samples : Array.from({ length: SHOWN }, (_, i) => samples[Math.round((i * (samples.length - 1)) / (SHOWN - 1))]);
    const picture = (sample, map) => {
      if (group.text) return t2i.excerpt(sample, map, group.scale, state.look);
      const tile = t2i.tile("intro-tile");
      tile.update(sample, group.grid, group.scale, map, state.look);
      return tile.box;
    };
    const told = (sample, text) => t2i.el("span", { class: t2i.sign(sample.advantage) }, text);
    const advantage = (sample) => `advantage ${t2i.signed(sample.advantage)}`;
    const pushed = group.scale.advantage > 0;
    grid.classList.toggle("of-text", Boolean(group.text));
    const shown = samples.length > some.length ? `, ${some.length} of them here` : "";
    const where = state.value.example ? ` It is of step ${group.step}: at step ${state.value.group.step} every group's rewards are equal.` : "";
    grid.replaceChildren(
      step("1", "group", `A group: ${samples.length} ${made} ${group.text ? "to" : "of"} “${t2i.shortened(group.prompt)}”, each with its reward${shown}.${where}`, rows(some, (sample) => [picture(sample, null), told(sample, t2i.number(sample.reward))])),
      step("2", "advantage", pushed ? "Advantages: who is better than the group's mean, and by how much." : "Advantages: who is better than the group's mean. Here nobody is.", bars(some)),
      step("3", "credit", `Credit: which tokens of ${group.text ? "an answer" : "a sample"} count. Each method has its own way; the mean is 1.`, rows(two, (sample) => [picture(sample, "credit"), told(sample, advantage(sample))])),
      step(
        "4",
        "token advantage",
        pushed ? "What the update pushes: advantage × credit. These tokens become likelier here, and less likely there." : "What the update pushes: advantage × credit. All rewards are equal, so this group pushes nothing.",
        rows(two, (sample, i) => [picture(sample, pushed ? "token_advantages" : null), told(sample, pushed ? ["the best", "the worst"][i] : advantage(sample))]),
      ),
    );
  };

  const step = (number, term, says, body) =>
    t2i.el("figure", {}, body, t2i.el("figcaption", {}, t2i.el("b", {}, number), t2i.el("span", {}, says, " ", t2i.term(term))));

  const rows = (samples, parts) =>
    t2i.el(
      "div",
      { class: "intro-row", style: `--columns: ${samples.length < 4 ? samples.length : Math.ceil(samples.length / 2)}` },
      ...samples.map((sample, i) => t2i.el("div", {}, ...parts(sample, i))),
    );

  const bars = (samples) => {
    const most = Math.max(1e-9, ...samples.map((sample) => Math.abs(sample.advantage)));
    return t2i.el(
      "div",
      { class: "intro-bars" },
      ...samples.map((sample) => {
        const bar = t2i.el("i", { class: t2i.sign(sample.advantage) });
        bar.style.setProperty("--share", String(sample.advantage / most));
        return t2i.el("div", {}, bar, t2i.el("span", { class: t2i.sign(sample.advantage) }, t2i.signed(sample.advantage)));
      }),
    );
  };
})();
