// The credit maps: one group of one step. Everything here answers in the browser; only another step or prompt, a film and a
// download ask the server.
(() => {
  const t2i = window.t2i;
  t2i.turn = 0; // counts what is asked of the maps: the server may answer an earlier question later
  const NAMES = (t2i.MAP_NAMES = ["token_advantages", "credit", "signed_contrast", "value_change", "reward_map"]);
  const SOMETIMES = ["value_change", "reward_map"];

  // Those to choose from: the last two only where a critic said something, or a part of the reward says where it looked.
  t2i.mapNames = ({ samples }) => NAMES.filter((name) => !SOMETIMES.includes(name) || samples[0].arrays[name]);

  t2i.maps = (element, props, trigger, watch, events) => {
    const root = element.querySelector(".t2i-maps");
    const state = {
      looks: { picture: t2i.look(t2i.palettes), text: t2i.look(t2i.palettes) },
      wished: null, // the map that was chosen; null = none so far
      map: "token_advantages", // the one that is shown
      place: 0,
      token: null,
      pinned: false,
      value: null,
      answered: 0, // the turn of what is shown
      ask: (event, data) => {
        if (event !== "choose") return trigger(event, data);
        keep(state.value, data);
        if (data.step !== state.heading?.step) state.heading = null;
        trigger(event, { ...data, turn: ++t2i.turn });
      },
      events,
    };
    t2i.follow(props, watch, (held) => {
      const value = t2i.copied(held);
      if (value.kind === "film") return state.film?.show(value);
      if (value.kind === "others" || value.kind === "through") return t2i.hear(state, value);
      if (value.kind === "steps") return grown(state, value);
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

  // The run has gone on: who looked at the newest step, and keeps no token, goes along.
  const grown = (state, { run, steps }) => {
    if (state.value?.run !== run) return;
    const { group } = state.value;
    const newest = group.step === state.value.steps.at(-1) && steps.at(-1) > group.step;
    state.value.steps = steps;
    state.head.refresh({ answered: false, goOn: newest && !state.pinned }); // news, and no answer: a question under way stays so
  };

  // What was chosen, for when the tab is opened again (see page.py); at the newest step the newest is followed.
  const keep = ({ run, steps, prompts }, { step, group, prompt }) => {
    t2i.kept = { run, prompt: prompt ?? prompts.find((one) => one.group === group)?.prompt };
    if (step !== steps.at(-1)) t2i.kept.step = step;
  };

  const receive = (root, state, value) => {
    const before = state.value;
    state.value = value;
    t2i.address.still = false;
    if (before?.run !== value.run) [state.head, state.prompt] = [null, t2i.kept?.run === value.run ? t2i.kept.prompt : undefined];
    state.look = value.group.text ? state.looks.text : state.looks.picture;
    const same = before && before.run === value.run && before.group.prompt === value.group.prompt;
    const probe = value.prompts.find((one) => one.group === value.group.number)?.probe;
    if (same && probe) state.place = ofTheSameNoise(before.group.samples, value.group.samples, state.place);
    if (!same || state.place >= value.group.samples.length) state.place = mostPushed(value.group.samples);
    if (!same) [state.token, state.pinned] = [null, false];
    if (state.heading?.step === value.group.step) {
      state.place = Math.max(0, value.group.samples.findIndex((one) => one.place === state.heading.sample));
      state.heading = null;
    }
    if (before) state.missing = "";
    if (t2i.wanted && (t2i.wanted.run ?? value.run) === value.run) restore(state, t2i.wanted);
    t2i.wanted = null;
    const { scale, samples } = value.group;
    const { arrays } = samples[0];
    const there = { token_advantages: true, signed_contrast: arrays.negative_logprobs, value_change: arrays.value_change, reward_map: arrays.reward_map, credit: true };
    const usual = scale.advantage > 0 ? "token_advantages" : "credit"; // where nothing is pushed the advantages would be blank
    state.map = there[state.wished] ? state.wished : usual; // what was chosen stays, blank or not
    build(root, state);
  };

  // What the address asks for, as far as it is there; `state.missing` says what is not.
  const restore = (state, { step, sample, token, map, palette }) => {
    const { steps, group: { samples, step: shown } } = state.value;
    const many = t2i.numbers(samples[0]).credit.length;
    state.missing = [
      step === undefined || steps.includes(step) ? "" : `Step ${step} was not recorded; step ${shown} is shown.`,
      token === undefined || token < many ? "" : `There is no token ${token}; they are numbered 0 to ${many - 1}.`,
    ].filter(Boolean).join(" ");
    const place = samples.findIndex((one) => one.place === sample);
    if (place >= 0) state.place = place;
    if (token < t2i.numbers(samples[state.place]).credit.length) [state.token, state.pinned] = [token, true];
    if (NAMES.includes(map)) state.wished = map;
    const kind = t2i.MAPS[state.wished ?? "token_advantages"].palette;
    if (palette && Object.hasOwn(state.look.palettes[kind], palette)) state.look.chosen[kind] = palette;
  };

  // A probe has the same noise at every step: the sample that was looked at is followed, wherever its reward puts it now.
  const ofTheSameNoise = (before, now, place) => {
    const numbers = (samples) => samples.map((sample) => sample.place).sort((a, b) => a - b);
    const wanted = numbers(now)[numbers(before).indexOf(before[place].place)];
    const found = now.findIndex((sample) => sample.place === wanted);
    return found < 0 ? place : found;
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
    const desk = (group.text ? t2i.textDesk : pictureDesk)(state, again, palette);
    state.parts = desk.parts;
    state.film = group.text ? null : t2i.film(state);
    const there = group.samples.length;
    const first = group.of > there ? `the first ${there} of ${group.of.toLocaleString("en")}` : there;
    const many = `${first} ${group.text ? "answers to" : "samples of"} this prompt`;
    if (!state.head) {
      state.head = t2i.mapsHead(state);
      state.body = t2i.el("div", {});
      state.intro = t2i.intro(state);
      root.replaceChildren(state.head.box, state.intro.box, state.body);
    }
    state.body.replaceChildren(
      desk.box,
      section("The whole group", `${many}, best reward first, on one scale`, desk.parts.strip.box),
      ...(state.film ? [state.film.box] : []),
    );
    state.head.refresh();
    state.intro.refresh();
    refresh(state);
    if (state.refocus) root.querySelector(`.${state.refocus}`)?.focus({ preventScroll: true });
    state.refocus = null;
  };

  const pictureDesk = (state, again, palette) => {
    const view = t2i.viewControls(state, again, palette);
    const parts = { stage: t2i.stage(state), choice: choice(state), view, inspector: t2i.inspector(state), strip: strip(state) };
    const pictures = t2i.el("div", { class: "desk-stage" }, parts.stage.box, parts.choice.box, t2i.nothingPushed(state), view.box);
    const box = t2i.el("div", { class: "desk" }, pictures, t2i.el("div", { class: "desk-side" }, parts.inspector.box));
    return { parts, box };
  };

  // Why a map other than the token advantages may be shown.
  t2i.nothingPushed = ({ value: { group } }) => {
    const equal = new Set(group.samples.map((sample) => sample.reward)).size === 1;
    const says = group.scale.advantage > 0 ? "" : `Nothing is pushed at this step${equal ? ": every reward of this group is equal" : ""}.`;
    return t2i.el("p", { class: "nothing-pushed", role: "status" }, says);
  };

  const section = (title, says, body) =>
    t2i.el("section", {}, t2i.el("header", {}, t2i.el("h3", {}, title), t2i.el("p", {}, says)), body);

  const refresh = (state) => {
    for (const part of Object.values(state.parts)) part.refresh();
    state.film?.refresh();
    t2i.address.tell(state);
  };

  t2i.sampleOf = (state) => state.value.group.samples[state.place];

  // What the map of the critic says of itself at this step: while its weight is 0, nothing that it says is used.
  const believed = ({ critic_weight: weight }) =>
    weight === 0 ? "the critic is not believed yet (weight 0)" : t2i.MAPS.value_change.says + (weight ? `; weight ${t2i.number(weight)}` : "");

  // The maps by themselves; a click lays one over the picture.
  const choice = (state) => {
    const box = t2i.el("div", { class: "choice", role: "group", "aria-label": "map over the picture" });
    const entries = t2i.mapNames(state.value.group).map((name) => {
      const tile = t2i.tile("plain");
      const about = t2i.MAPS[name];
      const button = t2i.el(
        "button",
        { type: "button", "data-map": name, onclick: () => ((state.map = state.wished = name), refresh(state)) },
        tile.box,
        t2i.el("span", {}, t2i.el("b", {}, about.title), t2i.el("small", {}, name === "value_change" ? believed(state.value.group) : about.says)),
      );
      box.append(button);
      return { name, tile, button };
    });
    const update = () => {
      const { grid, scale } = state.value.group;
      const sample = t2i.sampleOf(state);
      for (const { name, tile, button } of entries) {
        tile.update(sample, grid, scale, name, state.look);
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
          "aria-label": `${t2i.nameOf(sample, place)}, reward and advantage ${sample.gold ? "★ " : ""}${t2i.number(sample.reward)} ${t2i.signed(sample.advantage)}`,
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
        picture.update(sample, grid, scale, null, state.look);
        heat.update(sample, grid, scale, state.map, state.look);
        button.setAttribute("aria-pressed", place === state.place);
      });
    };
    return { box, refresh: update };
  };
})();
