// One place of a sample: the likeliest codes that were not drawn there, and its credit through training. Both are asked for when they
// are first needed, and kept: the codes of a sample, and a prompt's sample at every recorded step, all places at once.
(() => {
  const t2i = window.t2i;
  const KEPT = 24; // answers of each kind

  const KEYS = {
    others: ({ run, step, place }) => JSON.stringify([run, step, place]),
    through: ({ run, prompt, number }) => JSON.stringify([run, prompt, number]),
  };

  // One question of a kind at a time: what is missing when its answer comes is asked for then.
  const known = (state, kind, asked, fresh = () => true) => {
    const heard = ((state.heard ??= {})[kind] ??= { answers: new Map(), asking: false });
    const found = heard.answers.get(KEYS[kind](asked));
    if (found && fresh(found)) return found;
    if (!heard.asking) {
      heard.asking = true;
      state.ask(kind, asked);
    }
    return found;
  };

  t2i.hear = (state, value) => {
    const { answers } = ((state.heard ??= {})[value.kind] ??= { answers: new Map() });
    state.heard[value.kind].asking = false;
    if (value.codes) {
      [value.codes, value.logprobs] = [t2i.ints(value.codes), t2i.floats(value.logprobs)];
      value.taken = value.taken && t2i.floats(value.taken);
      value.picture = new Image();
      value.picture.addEventListener("load", () => state.parts?.inspector.refresh());
      value.picture.src = value.pictures;
    }
    if (value.steps) {
      const credit = value.rows ? null : t2i.floats(value.credit);
      const many = credit && credit.length / value.steps.length;
      value.rows ??= value.steps.map((_, i) => credit.subarray(i * many, (i + 1) * many));
    }
    value.newest = state.value?.steps.at(-1);
    answers.set(KEYS[value.kind](value), value);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
    if (state.value) state.parts?.inspector.refresh();
  };

  const chance = (logprob) => {
    const share = 100 * Math.exp(logprob);
    if (!Number.isFinite(share)) return "n/a";
    return share < 0.01 ? "<0.01%" : `${share.toFixed(share < 1 ? 2 : share < 9.95 ? 1 : 0)}%`;
  };

  // The code that was drawn, then the likeliest others: what the picture shows with each, its number and probability.
  t2i.others = (state) => {
    const row = t2i.el("div", { class: "others-row" });
    const told = t2i.el("p", {});
    const title = t2i.el("h4", { title: "the likeliest codes that were not drawn here, and what the picture would show with them" }, "Other codes here");
    const box = t2i.el("div", { class: "others" }, title, row, told);
    const photo = new Image();
    photo.addEventListener("load", () => update());
    const patch = (source, x, y, width, height) => {
      const canvas = t2i.el("canvas", { width: 64, height: 64 });
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = width > 32;
      if (source.complete && source.naturalWidth) context.drawImage(source, x, y, width, height, 0, 0, 64, 64);
      return canvas;
    };
    const entry = (canvas, code, logprob, here) =>
      t2i.el(
        "figure",
        { class: here ? "here" : null, "data-code": code, title: here ? "the code that was drawn" : null },
        canvas,
        t2i.el("figcaption", {}, t2i.el("b", {}, logprob === undefined ? "n/a" : chance(logprob)), t2i.el("span", {}, String(code))),
      );
    const say = (...words) => {
      row.replaceChildren();
      told.replaceChildren(...words);
    };
    const kept = t2i.el("code", {}, "log.alternatives=4");
    const update = () => {
      const { group, run } = state.value;
      box.hidden = state.token === null || !run;
      if (box.hidden) return;
      const sample = t2i.sampleOf(state);
      title.hidden = !group.others;
      if (group.others === null) return say("Other codes are left out of this file: it would be too large.");
      if (!group.others) return say("A run with ", kept, " shows other codes here.");
      const found = known(state, "others", { run, step: group.step, place: sample.place });
      if (!found) return say("…");
      if (found.error) return say(found.error);
      const [rows, columns] = group.grid;
      const [top, left] = [Math.floor(state.token / columns), state.token % columns];
      if (sample.image && photo.src !== sample.image) photo.src = sample.image;
      const [wide, high] = [photo.naturalWidth / columns, photo.naturalHeight / rows];
      const drawn = entry(patch(photo, left * wide, top * high, wide, high), t2i.numbers(sample).tokens[state.token], found.taken?.[state.token], true);
      const { side, count } = found;
      const others = Array.from({ length: count }, (_, k) => k)
        .filter((k) => found.codes[state.token * count + k] >= 0)
        .map((k) => {
          const at = state.token * count + k;
          return entry(patch(found.picture, left * side, (k * rows + top) * side, side, side), found.codes[at], found.logprobs[at], false);
        });
      row.replaceChildren(drawn, ...others);
      told.replaceChildren(others.length ? "" : "A golden reference was not sampled, so no other codes are known.");
    };
    return { box, refresh: update };
  };

  const [WIDTH, HEIGHT, CREDIT, EDGE] = [300, 84, 52, 5]; // of the plot; of the part for the credit; of its margins

  const shape = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  // The credit of the place at every recorded step of the prompt, the sample's advantage below it; a click goes to a step.
  t2i.through = (state) => {
    const title = t2i.el("h4", {}, "This place through training");
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "through-plot", role: "slider", tabindex: 0 });
    const told = t2i.el("p", { class: "through-says" });
    const about = t2i.el("p", {});
    const box = t2i.el("div", { class: "through" }, title, svg, told, about);
    let shown = null; // the answer whose plot this is
    let pointed = null; // the place among its steps
    const say = (text) => {
      [shown, svg.style.display, about.textContent] = [null, "none", ""];
      told.textContent = text;
    };
    const update = () => {
      const { group, run, steps } = state.value;
      box.hidden = state.token === null || !run || steps.length < 2;
      if (box.hidden) return;
      if (group.alone) return say("This prompt was recorded at this step alone.");
      const number = group.samples.map((one) => one.place).sort((a, b) => a - b).indexOf(t2i.sampleOf(state).place);
      const asked = { run, prompt: group.prompt, number };
      const found = state.pinned
        ? known(state, "through", asked, (one) => one.newest === steps.at(-1))
        : state.heard?.through?.answers.get(KEYS.through(asked));
      if (!found) return say(state.pinned ? "…" : "Click the token to see it.");
      if (found.error) return say(found.error);
      if (state.token >= found.rows[0].length) return say("The steps have another grid.");
      shown = found;
      svg.style.display = "";
      draw(found);
      const more = found.known > found.steps.length ? `${found.steps.length} of ${found.known} steps` : `${found.steps.length} steps`;
      about.textContent = `${more}, ${found.same ? "the same noise at each" : "other noise at each"}. Line: credit, 1 dotted. Bars: the sample's advantage.`;
    };
    const x = (steps, i) => EDGE + ((WIDTH - 2 * EDGE) * (steps[i] - steps[0])) / Math.max(1, steps.at(-1) - steps[0]);
    const draw = ({ steps, rows, advantages }) => {
      const finite = (value) => (Number.isFinite(value) ? value : 0);
      const values = rows.map((row) => finite(row[state.token]));
      const most = Math.max(1.5, ...values);
      const y = (value) => CREDIT - EDGE - ((CREDIT - 2 * EDGE) * value) / most;
      const pushed = advantages.map(finite);
      const large = Math.max(1e-6, ...pushed.map(Math.abs));
      const middle = (CREDIT + HEIGHT) / 2;
      const wide = Math.max(1.5, Math.min(7, (0.6 * (WIDTH - 2 * EDGE)) / steps.length));
      const here = steps.indexOf(state.value.group.step);
      const bars = pushed.map((value, i) => {
        const tall = (Math.abs(value) / large) * ((HEIGHT - CREDIT) / 2 - 1);
        return shape("rect", { class: t2i.sign(value) || "none", x: x(steps, i) - wide / 2, y: value > 0 ? middle - tall : middle, width: wide, height: Math.max(0.8, tall) });
      });
      const line = shape("polyline", { points: values.map((value, i) => `${x(steps, i).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
      svg.replaceChildren(
        shape("line", { class: "one", x1: 0, x2: WIDTH, y1: y(1), y2: y(1) }),
        line,
        ...bars,
        ...[pointed, here].filter((i) => i !== null && i >= 0).map((i) => shape("circle", { class: i === here ? "here" : "pointed", cx: x(steps, i), cy: y(values[i]), r: 4 })),
      );
      const place = pointed ?? here;
      const says = place >= 0 ? `step ${steps[place]}: credit ${t2i.number(rows[place][state.token])}, advantage ${t2i.signed(advantages[place])}` : "click a step to go there";
      told.textContent = says;
      Object.entries({ "aria-label": "step of this place", "aria-valuemin": steps[0], "aria-valuemax": steps.at(-1), "aria-valuenow": steps[Math.max(0, place)], "aria-valuetext": says }).forEach(([name, value]) => svg.setAttribute(name, value));
    };
    const at = (event) => {
      const place = svg.getBoundingClientRect();
      const wanted = ((event.clientX - place.left) / place.width) * WIDTH;
      const away = shown.steps.map((_, i) => Math.abs(x(shown.steps, i) - wanted));
      return away.indexOf(Math.min(...away));
    };
    const go = (i) => {
      const step = shown?.steps[i];
      if (step === undefined || step === state.value.group.step) return;
      state.heading = { step, sample: shown.places[i] };
      state.goTo(step);
    };
    svg.addEventListener("pointermove", (event) => shown && ((pointed = at(event)), draw(shown)));
    svg.addEventListener("pointerleave", () => ((pointed = null), shown && draw(shown)));
    svg.addEventListener("click", (event) => shown && go(at(event)));
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (!move || !shown) return;
      event.preventDefault();
      const { steps } = shown;
      const before = steps.findLastIndex((step) => step <= state.value.group.step);
      go(Math.max(0, Math.min(steps.length - 1, before + move)));
      state.refocus = "through-plot";
    });
    return { box, refresh: update };
  };
})();
