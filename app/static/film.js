// One prompt through training: a slider, a play button, the reward so far.
(() => {
  const t2i = window.t2i;
  const FRAME_MS = 420;

  t2i.film = (state) => {
    const { group, run } = state.value;
    const body = t2i.el("div", { class: "film-body" });
    const box = t2i.el(
      "section",
      { class: "film" },
      t2i.el(
        "header",
        {},
        t2i.el("h3", {}, "Through training"),
        t2i.el("p", {}, "the first sample of this prompt at every recorded step, not the best: the film shows the run, not a choice"),
      ),
      body,
    );
    const start = t2i.el(
      "button",
      {
        type: "button",
        class: "film-load",
        onclick: () => {
          start.textContent = "Reading the recorded steps …";
          start.disabled = true;
          state.ask("film", { run, prompt: group.prompt });
        },
      },
      "▶  Play this prompt through training",
    );
    const probe = state.value.prompts.find((one) => one.probe);
    const offer = t2i.el(
      "button",
      { type: "button", class: "film-load", onclick: () => state.choose(probe) },
      probe ? `Show “${t2i.shortened(probe.prompt)}” instead` : "",
    );
    const alone = t2i.el("p", {}, `This prompt was recorded at this step alone, so there is no film of it.${probe ? " The probe comes back at every step, with the same noise." : ""}`);
    body.append(...(group.alone ? [alone, ...(probe ? [offer] : [])] : [start]));
    const film = { box, refresh: () => {} };
    film.show = (value) => {
      if (value.prompt !== group.prompt || value.run !== run) return;
      if (value.notice) return body.replaceChildren(t2i.notice(...value.notice));
      film.refresh = player(state, body, value);
    };
    return film;
  };

  const player = (state, body, { frames, grid, scale }) => {
    let now = 0;
    let timer = null;
    let shown = ""; // what the legend was made of
    const picture = t2i.tile();
    const heat = t2i.tile("heat");
    const caption = t2i.el("output", { class: "film-caption" });
    const play = t2i.el("button", { type: "button", class: "play", "aria-label": "play", onclick: () => (timer ? stop() : run()) }, "▶");
    const range = t2i.slider("training step of the film", { min: 0, max: frames.length - 1, step: 1, value: 0 }, (value) => {
      stop();
      show(value);
    });
    range.classList.add("film-range");
    const legend = t2i.el("div", { class: "film-legend" });
    const told = t2i.el("p", { class: "film-says" });
    const line = rewards(frames);
    const show = (place) => {
      now = place;
      const frame = frames[place];
      range.value = place;
      picture.update(frame, grid, scale, null, state.look);
      const map = t2i.numbers(frame)[state.map] ? state.map : "credit";
      heat.update(frame, grid, scale, map, state.look);
      const drawn = JSON.stringify([map, state.look.chosen, state.look.mode, state.look.opacity]);
      if (drawn !== shown) legend.replaceChildren(t2i.legend(map, scale, state.look, true));
      shown = drawn;
      told.textContent = `Sample ${frame.place} of step ${frame.step}. The colours are on the scale of all ${frames.length} frames of this film, not of the group above.`;
      caption.replaceChildren(
        t2i.el("b", {}, `step ${frame.step}`),
        t2i.el("span", {}, `reward ${t2i.number(frame.reward)}`),
        t2i.el("span", {}, `advantage ${t2i.signed(frame.advantage)}`),
      );
      line.show(place);
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶";
      play.setAttribute("aria-label", "play");
    };
    const run = () => {
      if (now === frames.length - 1) show(0);
      play.textContent = "❚❚";
      play.setAttribute("aria-label", "pause");
      timer = setInterval(() => {
        if (!body.isConnected) return stop();
        show(now + 1);
        if (now === frames.length - 1) stop();
      }, FRAME_MS);
    };
    body.replaceChildren(
      t2i.el(
        "div",
        { class: "player" },
        t2i.el("div", { class: "film-pictures" }, picture.box, heat.box),
        t2i.el("div", { class: "film-side" }, caption, told, legend, line.svg, t2i.el("div", { class: "film-controls" }, play, range)),
      ),
    );
    show(0);
    run();
    return () => show(now);
  };

  // The reward of every frame as a line; the part not played yet is pale.
  const rewards = (frames) => {
    const [width, height] = [600, 90];
    const values = frames.map((frame) => frame.reward ?? 0);
    const low = Math.min(0, ...values);
    const high = Math.max(1, ...values);
    const points = values.map((value, i) => [
      8 + ((width - 16) * i) / Math.max(1, values.length - 1),
      height - 10 - ((height - 20) * (value - low)) / (high - low),
    ]);
    const make = (tag, attributes) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
      return shape;
    };
    const path = (part) => part.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: "rewards", role: "img", "aria-label": "reward at every frame" });
    const past = make("polyline", { class: "past" });
    const dot = make("circle", { r: 5 });
    svg.append(make("polyline", { class: "ahead", points: path(points) }), past, dot);
    const show = (place) => {
      past.setAttribute("points", path(points.slice(0, place + 1)));
      dot.setAttribute("cx", points[place][0]);
      dot.setAttribute("cy", points[place][1]);
    };
    return { svg, show };
  };
})();
