// Above the credit maps: which recorded step, and which prompt. It stays where it is while what lies below is drawn anew, so that
// a drag, the focus and a typed number are never lost.
(() => {
  const t2i = window.t2i;
  const PLAY_MS = 350; // at least, between two steps

  t2i.mapsHead = (state) => {
    let wished = null; // the place among the steps that was asked for and has not come yet
    let asking = false;
    let timer = null;
    const said = t2i.el("output", { class: "step-says" });
    const range = t2i.slider("training step", { min: 0, max: 0, step: 1, value: 0 }, (place) => go(place, true));
    range.classList.add("step-range");
    const number = t2i.el("input", { type: "number", class: "step-number", "aria-label": "step number", inputmode: "numeric" });
    let typing = false; // a number that is being typed is left alone until it is entered; then the step that is shown stands there
    number.addEventListener("input", () => (typing = true));
    number.addEventListener("change", () => {
      typing = false;
      go(number.value ? nearest(Number(number.value)) : here(), true);
      tell();
    });
    number.addEventListener("blur", () => ((typing = false), tell()));
    const button = (label, text, act) => t2i.el("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    const back = button("the recorded step before", "‹", () => go(here() - 1, true));
    const next = button("the next recorded step", "›", () => go(here() + 1, true));
    const play = button("play through the recorded steps", "▶", () => (timer === null ? begin() : stop()));
    play.classList.add("play");
    const select = t2i.el("select", { "aria-label": "prompt" });
    state.choose = ({ group, prompt }) => {
      state.prompt = prompt;
      state.ask("choose", { step: state.value.group.step, group });
    };
    state.goTo = (step) => go(nearest(step), true);
    select.addEventListener("change", () => state.choose(state.value.prompts.find((one) => one.group === Number(select.value))));
    const against = t2i.el("output", {});
    const probed = t2i.term("probe");
    const away = t2i.el("p", { class: "away", role: "status" });
    const box = t2i.el(
      "header",
      { class: "maps-head" },
      t2i.el(
        "div",
        { class: "field", role: "group", "aria-label": "training step" },
        t2i.el("span", {}, "Training step"),
        t2i.el("div", { class: "steps" }, back, range, next, number, play),
        said,
      ),
      t2i.el("div", { class: "field" }, t2i.el("span", {}, "Prompt", probed), select, against, away),
    );

    const shown = () => state.value.steps.indexOf(state.value.group.step);
    const here = () => wished ?? shown();
    const nearest = (step) => {
      const away = state.value.steps.map((one) => Math.abs(one - step));
      return away.indexOf(Math.min(...away));
    };
    // One question at a time; when its answer comes, what was wished last is asked for.
    const go = (place, byHand) => {
      if (byHand) stop();
      const { steps } = state.value;
      wished = Math.max(0, Math.min(steps.length - 1, place));
      tell();
      if (asking) return;
      if (wished === shown()) return void ((wished = null), tell());
      asking = true;
      if (byHand) state.prompt ??= state.value.group.prompt;
      state.ask("choose", { step: steps[wished], prompt: state.prompt });
    };
    const begin = () => {
      play.replaceChildren("❚❚");
      play.setAttribute("aria-label", "pause");
      if (here() === state.value.steps.length - 1) go(0);
      timer = setInterval(() => {
        if (!box.isConnected || here() === state.value.steps.length - 1) return stop();
        if (!asking) go(here() + 1);
      }, PLAY_MS);
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.replaceChildren("▶");
      play.setAttribute("aria-label", "play through the recorded steps");
    };
    const tell = () => {
      const { steps } = state.value;
      said.textContent = `step ${steps[here()]}${wished === null ? "" : " …"} · ${here() + 1} of ${steps.length} recorded`;
      if (document.activeElement !== range || wished === null) range.value = here();
      if (!typing) number.value = steps[here()];
      // not `disabled`, which would take the focus away
      [back.ariaDisabled, next.ariaDisabled] = [here() === 0, here() === steps.length - 1].map(String);
    };
    const update = ({ answered = true, goOn = false } = {}) => {
      const { steps, group, prompts } = state.value;
      if (answered) asking = false;
      if (wished !== null && (wished === shown() || wished >= steps.length)) wished = null;
      range.max = Math.max(0, steps.length - 1);
      for (const one of [range, number, play]) one.disabled = steps.length < 2;
      [number.min, number.max] = [steps[0], steps.at(-1)];
      tell();
      select.replaceChildren(
        ...prompts.map((one) =>
          t2i.el(
            "option",
            { value: one.group, selected: one.group === group.number },
            t2i.shortened(one.prompt) + (one.probe ? "  (probe: same noise at every step)" : ""),
          ),
        ),
      );
      against.replaceChildren(...(group.text ? [] : t2i.against(group)));
      probed.hidden = !prompts.some((one) => one.probe);
      const missed = state.prompt !== undefined && state.prompt !== group.prompt;
      const lacks = missed ? `“${t2i.shortened(state.prompt)}” was not recorded at this step.` : "";
      away.textContent = [state.missing, lacks].filter(Boolean).join(" ");
      if (wished !== null) go(wished);
      else if (goOn) go(steps.length - 1);
    };
    return { box, refresh: update };
  };
})();
