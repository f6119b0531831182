// The same prompt under several runs: a slider of recorded steps, two of the runs over one another, where their maps differ, and
// a row of samples for each run.
(() => {
  const t2i = window.t2i;
  const WAIT = 250; // ms without a move of the slider before the step is asked for

  // Never one of a sample's own maps: it is drawn of two (see `difference`).
  t2i.MAPS.difference = {
    title: "Difference",
    palette: "contrast",
    ends: ["more in the first", "more in the second"],
  };

  t2i.versus = (element, props, trigger, watch) => {
    const root = element.querySelector(".t2i-versus");
    const look = { ...t2i.look(t2i.palettes), outlines: false };
    const head = stepHead((step) => {
      t2i.address.write({ at: step });
      trigger("pick", { step });
    });
    const wipe = wiping(look);
    const rows = t2i.el("div", { class: "t2i-group" });
    const frame = t2i.el("div", {}, head.box, wipe.box, rows);
    let shown = "";
    t2i.follow(props, watch, (value) => {
      if (value.notice) {
        shown = "";
        return root.replaceChildren(t2i.notice(...value.notice));
      }
      if (frame.parentNode !== root) root.replaceChildren(frame); // once: what has the focus keeps it
      head.update(value);
      const key = JSON.stringify([value.key, value.told]);
      if (key === shown) return;
      shown = key;
      wipe.update(value);
      rows.replaceChildren(...t2i.rows(value, look));
    });
  };

  const stepHead = (pick) => {
    let steps = [];
    let timer = null;
    const told = t2i.el("p", { class: "told" });
    const output = t2i.el("output", {});
    const say = (place) => (output.textContent = `step ${steps[place]} · ${place + 1} of ${steps.length} that all have recorded`);
    const range = t2i.slider("recorded step of the pictures", { min: 0, max: 0, step: 1, value: 0 }, (place) => {
      say(place);
      clearTimeout(timer);
      timer = setTimeout(() => pick(place === steps.length - 1 ? null : steps[place]), WAIT);
    });
    const line = t2i.el("div", { class: "versus-step" }, range, output);
    const update = (value) => {
      steps = value.steps ?? [];
      line.hidden = steps.length < 2;
      told.textContent = value.told ?? "";
      range.max = steps.length - 1;
      range.value = steps.indexOf(value.step);
      range.setAttribute("aria-valuetext", `step ${value.step}`);
      if (steps.length) say(Number(range.value));
    };
    return { box: t2i.el("div", {}, line, told), update };
  };

  const choice = (label, change) => {
    const select = t2i.el("select", { onchange: change });
    const box = t2i.el("label", {}, t2i.el("span", {}, label), select);
    // What was chosen stays chosen where it is still offered.
    const offer = (names, first) => {
      const before = select.value;
      select.replaceChildren(...names.map(([value, text]) => t2i.el("option", { value }, text)));
      select.value = names.some(([value]) => String(value) === before) ? before : first;
    };
    return { box, select, offer };
  };

  const wiping = (look) => {
    let value = null;
    let samples = [];
    const refresh = () => value && draw();
    const pick = () => (offerSamples(), draw());
    const [left, right] = [choice("First", pick), choice("Second", pick)];
    const [which, map] = [choice("Sample", refresh), choice("Shown", refresh)];
    const [under, over, subtracted] = [t2i.tile("heat"), t2i.tile("heat"), t2i.tile("plain")];
    subtracted.box.querySelector(".lost").remove(); // it has no picture to miss
    const edge = t2i.el("i", { class: "edge", "aria-hidden": "true" });
    const stage = t2i.el("div", { class: "wipe-stage" }, under.box, over.box, edge);
    const move = (share) => {
      range.value = share;
      stage.style.setProperty("--wipe", `${share}%`);
      range.setAttribute("aria-valuetext", `${share}% of the first, ${100 - share}% of the second`);
    };
    const range = t2i.slider("how much of the first picture is seen", { min: 0, max: 100, step: 1, value: 50 }, move);
    const at = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const { left: from, width } = stage.getBoundingClientRect();
      move(Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - from)) / width))));
    };
    stage.addEventListener("pointerdown", at);
    stage.addEventListener("pointermove", at);
    const names = t2i.el("figcaption", { class: "wipe-names" });
    const legend = t2i.el("div", {});
    const says = t2i.el("p", {});
    const differs = t2i.el("figure", { class: "wipe-difference" }, subtracted.box, t2i.el("figcaption", {}, legend, says));
    const box = t2i.el(
      "section",
      { class: "wipe" },
      t2i.el("header", {}, t2i.el("h2", {}, "One run over the other"), t2i.el("p", {}, "The slider uncovers the second picture from the right; arrow keys move it.")),
      t2i.el("div", { class: "wipe-choices" }, left.box, right.box, which.box, map.box),
      t2i.el("div", { class: "wipe-pair" }, t2i.el("figure", {}, stage, range, names), differs),
    );
    const group = (side) => value.groups[Number(side.select.value)];
    const offerSamples = () => {
      const many = Math.min(group(left).samples.length, group(right).samples.length);
      which.offer(Array.from({ length: many }, (_, i) => [i, `${i + 1} of ${many}`]), 0);
    };
    const draw = () => {
      const [a, b] = [group(left), group(right)];
      samples = [a, b].map((one) => one.samples[Number(which.select.value)]);
      const shown = map.select.value === "picture" ? null : map.select.value;
      [under, over].forEach((tile, i) => {
        const { grid, scale } = [b, a][i];
        const sample = [samples[1], samples[0]][i];
        tile.update(sample, grid, scale, shown && t2i.numbers(sample)[shown] ? shown : null, look);
        tile.box.querySelector("img").alt = t2i.alt(value.asked, sample, grid);
      });
      names.replaceChildren(
        ...[a, b].map((one, i) => t2i.el("span", {}, t2i.el("b", {}, one.prompt), ` reward ${t2i.number(samples[i].reward)}`)),
      );
      difference([a, b], shown ?? "credit");
    };
    // The chosen map of the second sample minus that of the first, place by place.
    const difference = ([a, b], name) => {
      const [first, second] = samples.map((sample) => t2i.numbers(sample)[name]);
      const same = String(a.grid) === String(b.grid) && first && second;
      subtracted.box.hidden = legend.hidden = !same;
      const title = t2i.MAPS[name].title.toLowerCase();
      if (!same) {
        says.textContent = first && second ? `Their grids differ (${a.grid.join(" × ")} and ${b.grid.join(" × ")} tokens), so their maps cannot be subtracted.` : `Not both have numbers for ${title}.`;
        return;
      }
      const values = second.map((number, i) => number - first[i]);
      const most = values.reduce((found, number) => (Number.isFinite(number) ? Math.max(found, Math.abs(number)) : found), 0);
      subtracted.box.hidden = legend.hidden = !most;
      const { edges, marks } = value.unit;
      const stretched = t2i.floats(edges.contrast).map((edge) => edge * most);
      const text = (mark) => t2i.signed(most * Number(mark.replace("\u2212", "-")));
      const scale = { decoded: { difference: stretched }, marks: { contrast: marks.contrast.map(([share, mark]) => [share, text(mark)]) } };
      const drawn = { decoded: { difference: values }, image: null, pixels: [a.grid[1], a.grid[0]] };
      subtracted.update(drawn, a.grid, scale, "difference", look);
      subtracted.box.setAttribute("role", "img");
      subtracted.box.setAttribute("aria-label", `map: ${title} of the second minus that of the first, at most ${t2i.number(most)} apart`);
      legend.replaceChildren(t2i.legend("difference", scale, look));
      const [codes, others] = samples.map((sample) => t2i.numbers(sample).tokens);
      const alike = codes.reduce((count, code, i) => count + (code === others[i]), 0);
      const noise = value.probe && a.seed === b.seed && a.seed !== null && a !== b;
      says.textContent =
        (most ? `The ${title} of the second minus that of the first, token by token. ` : `The ${title} is the same everywhere. `) +
        `It compares places of the grid, not objects: ${alike} of ${codes.length} tokens are the same in both pictures` +
        (noise ? ", which were drawn from the same noise." : ", which were drawn from different noise.");
    };
    const update = (next) => {
      value = next;
      box.hidden = value.groups.length < 2;
      if (box.hidden) return;
      const runs = value.groups.map((one, i) => [i, one.prompt]);
      left.offer(runs, 0);
      right.offer(runs, 1);
      const there = (name) => value.groups.some((one) => one.samples.some((sample) => t2i.numbers(sample)[name]));
      const maps = t2i.MAP_NAMES.filter(there).map((name) => [name, t2i.MAPS[name].title]);
      map.offer([["picture", "Picture"], ...maps], "picture");
      offerSamples();
      draw();
    };
    move(50);
    return { box, update };
  };
})();
