// The credit maps: one group of one step. Everything here answers in the browser; only another step or prompt, a film and a
// download ask the server.
(() => {
  const t2i = window.t2i;
  t2i.turn = 0; // counts what is asked of the maps: the server may answer an earlier question later
  const NAMES = (t2i.MAP_NAMES = ["token_advantages", "credit", "signed_contrast"]);

  t2i.maps = (element, props, trigger, watch, events) => {
    const root = element.querySelector(".t2i-maps");
    const state = {
      looks: { picture: t2i.look(t2i.palettes), text: t2i.look(t2i.palettes, true) },
      wished: "token_advantages", // the map that was asked for
      map: "token_advantages", // the one that is shown
      place: 0,
      token: null,
      pinned: false,
      value: null,
      answered: 0, // the turn of what is shown
      ask: (event, data) => {
        if (event !== "choose") return trigger(event, data);
        keep(state.value, data);
        trigger(event, { ...data, turn: ++t2i.turn });
      },
      events,
    };
    t2i.follow(props, watch, (value) => {
      if (value.kind === "film") return state.film?.show(value);
      if (value.turn < state.answered) return;
      state.answered = value.turn ?? state.answered;
      if (value.kind === "notice") {
        [state.value, state.head] = [null, null];
        root.replaceChildren(t2i.notice(...value.notice));
        return;
      }
      receive(root, state, value);
    });
  };

  // What was chosen, for when the tab is opened again (see page.py); at the newest step the newest is followed.
  const keep = ({ run, steps, prompts }, { step, group, prompt }) => {
    t2i.kept = { run, prompt: prompt ?? prompts.find((one) => one.group === group)?.prompt };
    if (step !== steps.at(-1)) t2i.kept.step = step;
  };

  const receive = (root, state, value) => {
    const before = state.value;
    state.value = value;
    if (before?.run !== value.run) [state.head, state.prompt] = [null, t2i.kept?.run === value.run ? t2i.kept.prompt : undefined];
    state.look = value.group.text ? state.looks.text : state.looks.picture;
    const same = before && before.run === value.run && before.group.prompt === value.group.prompt;
    if (!same || state.place >= value.group.samples.length) state.place = mostPushed(value.group.samples);
    if (!same) [state.token, state.pinned] = [null, false];
    if (t2i.wanted && (t2i.wanted.run ?? value.run) === value.run) restore(state, t2i.wanted);
    t2i.wanted = null;
    const { scale, samples } = value.group;
    const there = { token_advantages: scale.advantage, signed_contrast: samples[0].arrays.negative_logprobs, credit: true };
    state.map = there[state.wished] ? state.wished : "credit"; // nothing is pushed, or no prompts are compared
    build(root, state);
  };

  // What the address asks for, as far as it is there.
  const restore = (state, { sample, token, map, palette }) => {
    const { samples, grid } = state.value.group;
    const place = samples.findIndex((one) => one.place === sample);
    if (place >= 0) state.place = place;
    if (token < grid[0] * grid[1]) [state.token, state.pinned] = [token, true];
    if (NAMES.includes(map)) state.wished = map;
    const kind = t2i.MAPS[state.wished].palette;
    if (palette && Object.hasOwn(state.look.palettes[kind], palette)) state.look.chosen[kind] = palette;
  };

  // The sample that the update moves most.
  const mostPushed = (samples) => {
    const sizes = samples.map((sample) => Math.abs(sample.advantage ?? 0));
    return sizes.indexOf(Math.max(...sizes));
  };

  const build = (root, state) => {
    const { group } = state.value;
    const again = () => refresh(state);
    const palette = t2i.paletteChoice(state, again);
    const desk = group.text ? t2i.textDesk(state, again, palette) : pictureDesk(state, again, palette);
    state.parts = desk.parts;
    state.film = group.text ? null : t2i.film(state);
    const many = `${group.samples.length} ${group.text ? "answers to" : "samples of"} this prompt`;
    if (!state.head) {
      state.head = t2i.mapsHead(state);
      state.body = t2i.el("div", {});
      root.replaceChildren(state.head.box, state.body);
    }
    state.body.replaceChildren(
      desk.box,
      section("The whole group", `${many}, best reward first, on one scale`, desk.parts.strip.box),
      ...(state.film ? [state.film.box] : []),
    );
    state.head.refresh();
    refresh(state);
  };

  const pictureDesk = (state, again, palette) => {
    const parts = { stage: stage(state), choice: choice(state), palette, inspector: t2i.inspector(state), strip: strip(state) };
    const pictures = t2i.el("div", { class: "desk-stage" }, parts.stage.box, parts.choice.box, t2i.viewControls(state, again, palette));
    const box = t2i.el("div", { class: "desk" }, pictures, t2i.el("div", { class: "desk-side" }, parts.inspector.box));
    return { parts, box };
  };

  const section = (title, says, body) =>
    t2i.el("section", {}, t2i.el("header", {}, t2i.el("h3", {}, title), t2i.el("p", {}, says)), body);

  const refresh = (state) => {
    for (const part of Object.values(state.parts)) part.refresh();
    state.film?.refresh();
    t2i.address.tell(state);
  };

  t2i.sampleOf = (state) => state.value.group.samples[state.place];

  // The picture beside the same under the chosen map; both point at tokens.
  const stage = (state) => {
    const [rows, columns] = state.value.group.grid;
    const tiles = [t2i.tile("plate outlined"), t2i.tile("stage outlined")];
    const marks = tiles.map((tile) => {
      const mark = t2i.el("div", { class: "mark", hidden: true });
      tile.box.append(mark);
      return mark;
    });
    const point = (token, pinned) => {
      [state.token, state.pinned] = [token, pinned];
      show();
      state.parts.inspector.refresh();
      t2i.address.tell(state);
    };
    for (const { box } of tiles) pointing(box, state, point);
    const [picture, lit] = tiles;
    Object.entries({
      tabindex: 0,
      role: "application",
      "aria-label": `picture of ${rows} by ${columns} tokens; arrow keys move between tokens`,
    }).forEach(([name, text]) => lit.box.setAttribute(name, text));
    lit.box.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (event.key === "Escape") point(null, false);
      if (!move) return;
      event.preventDefault();
      point(Math.min(rows * columns - 1, Math.max(0, (state.token ?? 0) + move)), true);
    });
    const show = () => {
      for (const mark of marks) {
        mark.hidden = state.token === null;
        if (state.token === null) continue;
        mark.classList.toggle("pinned", state.pinned);
        Object.assign(mark.style, {
          left: `${(100 * (state.token % columns)) / columns}%`,
          top: `${(100 * Math.floor(state.token / columns)) / rows}%`,
          width: `${100 / columns}%`,
          height: `${100 / rows}%`,
        });
      }
    };
    const told = t2i.el("figcaption", { class: "plate-says" });
    const legend = t2i.el("figcaption", { class: "stage-legend" });
    const box = t2i.el(
      "div",
      { class: "pair" },
      t2i.el("figure", {}, picture.box, told),
      t2i.el("figure", {}, lit.box, legend),
    );
    const update = () => {
      const { group } = state.value;
      const sample = t2i.sampleOf(state);
      picture.update(sample, group.grid, group.scale, null, state.look, 0);
      lit.update(sample, group.grid, group.scale, state.map, state.look, state.look.opacity);
      told.replaceChildren(
        t2i.el("b", {}, sample.gold ? "★ a golden reference" : `Sample ${state.place + 1} of ${group.samples.length}`),
        t2i.el("span", {}, `reward ${t2i.number(sample.reward)}`),
        t2i.el("span", { class: t2i.sign(sample.advantage) }, `advantage ${t2i.signed(sample.advantage)}`),
      );
      legend.replaceChildren(t2i.legend(state.map, group.scale, state.look, state.look.opacity));
      show();
    };
    return { box, refresh: update };
  };

  // The pointer over a picture: hover points at a token, a click keeps it or lets go.
  const pointing = (box, state, point) => {
    const [rows, columns] = state.value.group.grid;
    const at = (event) => {
      const place = box.getBoundingClientRect();
      const column = Math.floor(((event.clientX - place.left) / place.width) * columns);
      const row = Math.floor(((event.clientY - place.top) / place.height) * rows);
      return column < 0 || row < 0 || column >= columns || row >= rows ? null : row * columns + column;
    };
    box.addEventListener("pointermove", (event) => state.pinned || point(at(event), false));
    box.addEventListener("pointerleave", () => state.pinned || point(null, false));
    box.addEventListener("click", (event) => {
      const token = at(event);
      point(token, !(state.pinned && token === state.token));
    });
  };

  // The three maps by themselves; a click lays one over the picture.
  const choice = (state) => {
    const box = t2i.el("div", { class: "choice", role: "group", "aria-label": "map over the picture" });
    const entries = NAMES.map((name) => {
      const tile = t2i.tile("plain");
      const about = t2i.MAPS[name];
      const button = t2i.el(
        "button",
        { type: "button", "data-map": name, onclick: () => ((state.map = state.wished = name), refresh(state)) },
        tile.box,
        t2i.el("span", {}, t2i.el("b", {}, about.title), t2i.el("small", {}, about.says)),
      );
      box.append(button);
      return { name, tile, button };
    });
    const update = () => {
      const { grid, scale } = state.value.group;
      const sample = t2i.sampleOf(state);
      for (const { name, tile, button } of entries) {
        tile.update(sample, grid, scale, name, state.look, 1);
        button.setAttribute("aria-pressed", name === state.map);
        button.disabled = !t2i.numbers(sample)[name];
      }
    };
    return { box, refresh: update };
  };

  // The whole group side by side under the chosen map.
  const strip = (state) => {
    const box = t2i.el("div", { class: "strip" });
    box.style.setProperty("--count", state.value.group.samples.length);
    const entries = state.value.group.samples.map((sample, place) => {
      const picture = t2i.tile();
      const heat = t2i.tile("heat");
      const button = t2i.el(
        "button",
        {
          type: "button",
          "data-place": sample.place,
          "aria-label": `sample ${place + 1}, reward ${t2i.number(sample.reward)}`,
          onclick: () => ((state.place = place), refresh(state)),
        },
        picture.box,
        heat.box,
        t2i.el(
          "span",
          { class: "caption" },
          t2i.el("b", {}, (sample.gold ? "★ " : "") + t2i.number(sample.reward)),
          t2i.el("span", { class: t2i.sign(sample.advantage) }, t2i.signed(sample.advantage)),
        ),
      );
      box.append(button);
      return { sample, picture, heat, button };
    });
    const update = () => {
      const { grid, scale } = state.value.group;
      entries.forEach(({ sample, picture, heat, button }, place) => {
        picture.update(sample, grid, scale, null, state.look, 0);
        heat.update(sample, grid, scale, state.map, state.look, state.look.opacity);
        button.setAttribute("aria-pressed", place === state.place);
      });
    };
    return { box, refresh: update };
  };
})();
