// A row of samples, each picture beside its map, or the answers of a run on text: the newest group of a run, the same prompt under several methods, the
// samples of the playground, whose tokens can be pointed at. Draws what it is given.
(() => {
  const t2i = window.t2i;

  t2i.group = (element, props, trigger, watch) => {
    const look = { ...t2i.look(t2i.palettes), outlines: false };
    const root = element.querySelector(".t2i-group");
    let shown = "";
    t2i.follow(props, watch, (value) => {
      const key = JSON.stringify([value.key, value.notice]);
      if (key === shown) return; // the same pictures: nothing to redraw, nothing flickers
      shown = key;
      const mine = t2i.copied(value);
      if (value.notice) root.replaceChildren(t2i.notice(...value.notice));
      else root.replaceChildren(...(value.inspect ? [desk(mine, look, trigger)] : t2i.rows(mine, look)));
    });
  };

  // A heading and its samples for each group.
  t2i.rows = (value, look) =>
    value.groups.flatMap((group) => [
      heading(group, value.map, look),
      group.text ? t2i.answers(group, value.map, look) : cards(group, value.map, look, value.asked ?? group.prompt),
    ]);

  const swatch = (colour) => {
    const box = t2i.el("i", { class: "swatch", "aria-hidden": "true" });
    box.style.background = colour;
    return box;
  };

  const FEW = 4; // samples in a row that leave room for picture and map side by side on a wide screen
  const AREAS = [["upper left", "upper middle", "upper right"], ["middle left", "middle", "middle right"], ["lower left", "lower middle", "lower right"]];

  // What a picture shows, in words: its prompt, its reward, and the ninth of it that holds most credit.
  t2i.alt = (prompt, sample, [rows, columns] = [0, 0]) => {
    const parts = [prompt];
    if (sample.reward !== undefined) parts.push(`reward ${t2i.number(sample.reward)}`);
    const credit = sample.arrays && t2i.numbers(sample).credit;
    if (credit && rows >= 3 && columns >= 3) {
      const sums = AREAS.map(() => [0, 0, 0]);
      credit.forEach((weight, t) => {
        if (Number.isFinite(weight)) sums[Math.floor((3 * Math.floor(t / columns)) / rows)][Math.floor((3 * (t % columns)) / columns)] += weight;
      });
      const all = sums.flat();
      const most = Math.max(...all);
      const place = all.indexOf(most);
      if (most > 0) parts.push(`most credit ${AREAS.flat()[place]}, ${Math.round((100 * most) / all.reduce((a, b) => a + b))}% of it`);
    }
    return parts.join(", ");
  };

  const against = (group) => `against ${t2i.negative(group.negative)}`;
  t2i.against = (group) => [against(group), ...(group.negative === null && !group.text ? [t2i.term("null prompt")] : [])];

  const heading = (group, map, look) =>
    t2i.el(
      "header",
      { class: "group-head" },
      t2i.el(
        "div",
        {},
        t2i.el("h2", {}, group.colour ? swatch(group.colour) : null, group.text ? t2i.shortened(group.prompt) : group.prompt),
        group.says ? t2i.el("p", {}, group.says, group.title && group.negative === null ? t2i.term("null prompt") : null) : t2i.el("p", {}, ...t2i.against(group)),
        group.text && group.negative !== null ? t2i.el("p", {}, t2i.shortened(against(group))) : null,
      ),
      map ? t2i.legend(map, group.scale, look, true) : null,
    );

  const cards = (group, map, look, prompt) => {
    const list = t2i.el("div", { class: "cards" + (group.large ? " large" : "") + (group.samples.length <= FEW ? " few" : "") });
    list.style.setProperty("--count", group.samples.length);
    group.samples.forEach((sample, i) => list.append(card(group, sample, map, look, i, prompt)));
    return t2i.el("div", { class: "rows-box" }, list);
  };

  // Groups whose tokens can be pointed at: how to look at them, and the numbers of one token beside them. Answers in the browser.
  const desk = (value, look, ask) => {
    const { groups } = value;
    const known = (map) => (map === "token_advantages" ? groups[0].scale.advantage > 0 : groups[0].samples[0].arrays.negative_logprobs || map === "credit");
    const state = { value: { group: groups[0], run: null }, place: 0, token: null, pinned: false, map: known(wished) ? wished : value.map, look, ask };
    const rows = t2i.el("div", { class: "fresh-rows" });
    let shown = []; // of each card: its group, place, and the marks on its pictures
    const inspector = t2i.inspector(state);
    inspector.box.querySelector('[data-save="gif"]')?.remove(); // there is no film of one sample
    const tell = () => {
      for (const one of shown) mark(one, state);
      inspector.refresh();
      const { group } = state.value;
      if (state.token === null && group.samples[state.place].reward === undefined)
        inspector.box.querySelector(".says").textContent = "Nobody scored these images: the credit says where an advantage would go.";
    };
    const point = (one, token, pinned) => {
      if (one) [state.value, state.place] = [{ group: one.group, run: null }, one.place];
      [state.token, state.pinned] = [token, pinned];
      tell();
    };
    const choices = t2i.el("div", { class: "chips", role: "group", "aria-label": "map beside the pictures" });
    const draw = () => {
      choices.replaceChildren();
      shown = [];
      for (const name of t2i.mapNames(groups[0])) {
        const choose = () => {
          state.map = wished = name;
          draw();
          choices.querySelector(`[data-map="${name}"]`).focus();
        };
        choices.append(t2i.el("button", { type: "button", "data-map": name, "aria-pressed": String(name === state.map), disabled: !known(name), onclick: choose }, t2i.MAPS[name].title));
      }
      view.refresh();
      rows.replaceChildren(
        ...groups.flatMap((group) => [
          heading({ ...group, prompt: group.title, says: (groups.length > 1 ? [] : [against(group)]).concat(group.says).join(" · ") }, state.map, look),
          cards(group, state.map, look, group.prompt),
        ]),
      );
      groups.forEach((group, g) =>
        rows.querySelectorAll(".cards")[g].querySelectorAll(".card").forEach((box, place) => shown.push(pointed(box, group, place, state, point))),
      );
      tell();
    };
    const palette = t2i.paletteChoice(state, draw);
    const view = t2i.viewControls(state, draw, palette);
    const controls = t2i.el("div", { class: "fresh-controls" }, choices, view.box);
    draw();
    return t2i.el("div", { class: "fresh t2i-maps" }, t2i.el("div", {}, controls, rows), t2i.el("div", { class: "desk-side" }, inspector.box));
  };
  let wished = "token_advantages"; // the map that was chosen last

  // Makes the pictures of a card answer to pointer and keys; a click keeps the token, Escape lets go.
  const pointed = (box, group, place, state, point) => {
    const [rows, columns] = group.grid;
    const one = { group, place, marks: [] };
    box.querySelectorAll(".tile").forEach((tile, i) => {
      const spot = t2i.el("div", { class: "mark", hidden: true });
      tile.append(spot);
      one.marks.push(spot);
      const at = (event) => {
        const side = tile.getBoundingClientRect();
        const inside = (where, from, size, count) => Math.min(count - 1, Math.max(0, Math.floor(((where - from) / size) * count)));
        return inside(event.clientY, side.top, side.height, rows) * columns + inside(event.clientX, side.left, side.width, columns);
      };
      tile.addEventListener("pointermove", (event) => state.pinned || point(one, at(event), false));
      tile.addEventListener("pointerleave", () => state.pinned || point(null, null, false));
      tile.addEventListener("click", (event) => {
        const same = state.pinned && at(event) === state.token && state.place === place && state.value.group === group;
        point(one, at(event), !same);
      });
      if (i) return;
      tile.tabIndex = 0;
      tile.setAttribute("role", "application");
      tile.setAttribute("aria-label", `${t2i.nameOf(group.samples[place], place)}: picture of ${rows} by ${columns} tokens; arrow keys move between tokens`);
      tile.addEventListener("keydown", (event) => {
        if (event.key === "Escape") return point(null, null, false);
        const here = state.value.group === group && state.place === place ? state.token : null;
        const token = t2i.moved(here, event.key, group.grid);
        if (token === null) return;
        event.preventDefault();
        point(one, token, true);
      });
    });
    return one;
  };

  const mark = (one, state) => {
    const here = state.token !== null && state.place === one.place && state.value.group === one.group;
    for (const spot of one.marks) {
      spot.hidden = !here;
      spot.classList.toggle("pinned", state.pinned);
      if (here) t2i.frame(spot, state.token, one.group.grid);
    }
  };

  const card = (group, sample, map, look, i, prompt) => {
    const grid = sample.grid ?? group.grid;
    const picture = t2i.tile(sample.known ? "forming" : group.title ? "outlined" : "");
    picture.update(sample, grid, group.scale, null, look);
    picture.box.querySelector("img").alt = t2i.alt(prompt, sample, grid);
    if (sample.known) picture.box.style.setProperty("--known", sample.known);
    const heat = map ? t2i.tile("heat") : null;
    heat?.update(sample, grid, group.scale, map, look);
    const caption = t2i.el("figcaption", {});
    if (sample.title) caption.append(t2i.el("strong", { class: "wide" }, sample.title));
    if (sample.reward !== undefined)
      caption.append(
        t2i.el("b", { title: "reward" }, (sample.gold ? "★ " : "") + t2i.number(sample.reward)),
        t2i.el("span", { title: "advantage", class: t2i.sign(sample.advantage) }, t2i.signed(sample.advantage)),
      );
    if (sample.says) caption.append(t2i.el("span", { class: "wide" }, sample.says));
    const title = t2i.nameOf(sample, i);
    return t2i.el("figure", { class: "card", title }, picture.box, heat?.box, caption);
  };
})();
