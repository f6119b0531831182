// Answers of a run on text: every token a pill in the colour of its value. The newest group, and what the credit maps have in
// place of a picture. Tokens enter the page as text nodes only.
(() => {
  const t2i = window.t2i;
  const LONG = 160; // letters of a prompt in a list
  const SOME = 60; // tokens of an excerpt

  t2i.shortened = (text) => (text.length > LONG ? text.slice(0, LONG) + " …" : text);

  // The tokens of an answer, and what colours them by a map.
  const row = (sample) => {
    const pills = sample.pills.map((text, token) => t2i.el("span", { class: "pill", "data-token": token }, text));
    const lines = pills.flatMap((pill, token) =>
      sample.pills[token].includes("\u21b5") ? [pill, t2i.el("br")] : [pill],
    );
    const box = t2i.el("div", { class: "pills", dir: "ltr" }, ...lines);
    if (!pills.length) box.append(t2i.el("span", { class: "none" }, "no token of this answer counts"));
    const tint = (map, scale, look) => {
      const values = t2i.numbers(sample)[map];
      if (!values) return;
      const lut = t2i.lut(look, map);
      pills.forEach((pill, token) => {
        const place = t2i.place(map, values[token], scale);
        const colour = lut.subarray(3 * place, 3 * place + 3);
        pill.style.background = `rgb(${colour.join()})`;
        pill.style.color = t2i.light(...colour) ? "#111" : "#fff";
      });
    };
    return { box, pills, tint };
  };

  // The beginning of an answer: in a line, or coloured by a map.
  t2i.excerpt = (sample, map, scale, look) => {
    if (!map) return t2i.el("div", { class: "pills line", dir: "ltr" }, sample.pills.slice(0, SOME).join(""));
    const some = sample.pills.length > SOME ? { ...sample, decoded: t2i.numbers(sample), pills: sample.pills.slice(0, SOME) } : sample;
    const { box, tint } = row(some);
    tint(map, scale, look);
    return box;
  };

  const marks = (sample) =>
    t2i.el(
      "div",
      { class: "marks-of" },
      t2i.el("b", { title: "reward" }, (sample.gold ? "★ " : "") + t2i.number(sample.reward)),
      t2i.el("span", { title: "advantage", class: t2i.sign(sample.advantage) }, t2i.signed(sample.advantage)),
    );

  // The newest group: a row per answer.
  t2i.answers = (group, map, look) =>
    t2i.el(
      "div",
      { class: "answers" },
      ...group.samples.map((sample, place) => {
        const { box, tint } = row(sample);
        if (map) tint(map, group.scale, look);
        box.addEventListener("pointerover", ({ target }) => {
          const token = target.dataset.token;
          if (token === undefined) return;
          const numbers = t2i.numbers(sample);
          const known = t2i.ROWS.filter(([name]) => numbers[name]);
          const lines = known.map(([name, label, , form]) => `${label}: ${form(numbers[name][token])}`);
          target.title = [sample.quoted[token], ...lines].join("\n");
        });
        return t2i.el("div", { class: "answer", "data-place": sample.place, "aria-label": `answer ${place + 1}` }, marks(sample), box);
      }),
    );

  // Both prompts in full.
  const asked = ({ prompt, negative }) => {
    const line = (name, text) => [t2i.el("dt", {}, name), t2i.el("dd", {}, text)];
    return t2i.el(
      "dl",
      { class: "asked" },
      ...line("Prompt", prompt),
      ...line("Negative", negative === null ? "none: this credit compares no prompts" : negative || "the empty text"),
    );
  };

  // What the desk of the credit maps shows of a group: `parts` that refresh, and the boxes in their places.
  t2i.textDesk = (state, refresh, palette) => {
    const legend = t2i.el("div", { class: "stage-legend" });
    const parts = { stage: stage(state, legend), choice: choice(state, refresh), palette, inspector: t2i.inspector(state) };
    const view = t2i.el("div", { class: "view" }, legend, palette.box);
    const main = t2i.el("div", { class: "desk-stage" }, asked(state.value.group), parts.choice.box, t2i.nothingPushed(state), parts.stage.box, view);
    const box = t2i.el("div", { class: "desk of-text" }, main, t2i.el("div", { class: "desk-side" }, parts.inspector.box));
    return { parts: { ...parts, strip: strip(state, refresh) }, box };
  };

  // The chosen answer; points at tokens as the picture does.
  const stage = (state, legend) => {
    const label = "tokens of the answer; arrow keys move between them";
    const box = t2i.el("div", { class: "answer-stage", tabindex: 0, role: "application", "aria-label": label });
    let shown = null;
    let sample = null;
    const point = (token, pinned) => {
      [state.token, state.pinned] = [token, pinned];
      show();
      state.parts.inspector.refresh();
    };
    const at = (event) => {
      const pill = event.target.closest(".pill");
      return pill ? Number(pill.dataset.token) : null;
    };
    box.addEventListener("pointerover", (event) => state.pinned || point(at(event), false));
    box.addEventListener("pointerleave", () => state.pinned || point(null, false));
    box.addEventListener("click", (event) => {
      const token = at(event);
      point(token, token !== null && !(state.pinned && token === state.token));
    });
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") point(null, false);
      const token = moved(shown.pills, state.token, event.key);
      if (token === null) return;
      event.preventDefault();
      point(token, true);
      shown.pills[token].scrollIntoView({ block: "nearest" });
    });
    const show = () => {
      box.querySelector(".pointed")?.classList.remove("pointed", "pinned");
      if (state.token !== null) shown.pills[state.token].classList.add("pointed", ...(state.pinned ? ["pinned"] : []));
    };
    const update = () => {
      if (sample !== t2i.sampleOf(state)) {
        sample = t2i.sampleOf(state);
        shown = row(sample);
        box.replaceChildren(shown.box);
        if (state.token >= shown.pills.length) [state.token, state.pinned] = [null, false];
      }
      const { scale } = state.value.group;
      shown.tint(state.map, scale, state.look);
      legend.replaceChildren(t2i.legend(state.map, scale, state.look));
      show();
    };
    return { box, refresh: update };
  };

  // Where an arrow key leads: along the answer, or to the next token above or below; null for other keys.
  const moved = (pills, token, key) => {
    const along = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const down = { ArrowUp: -1, ArrowDown: 1 }[key];
    if ((!along && !down) || !pills.length) return null;
    if (token === null) return 0;
    if (along) return Math.min(pills.length - 1, Math.max(0, token + along));
    const from = pills[token].getBoundingClientRect();
    const far = pills.map((pill) => {
      const { top, left } = pill.getBoundingClientRect();
      const lines = (top - from.top) * down;
      return lines < from.height / 2 ? Infinity : 1000 * lines + Math.abs(left - from.left);
    });
    const nearest = Math.min(...far);
    return Number.isFinite(nearest) ? far.indexOf(nearest) : token;
  };

  // The three ways to colour the tokens.
  const choice = (state, refresh) => {
    const says = t2i.el("p", {});
    const buttons = t2i.mapNames(state.value.group).map((name) =>
      t2i.el(
        "button",
        { type: "button", "data-map": name, onclick: () => ((state.map = state.wished = name), refresh()) },
        t2i.MAPS[name].title,
      ),
    );
    const chips = t2i.el("div", { class: "chips", role: "group", "aria-label": "colour of the tokens" }, ...buttons);
    const update = () => {
      const numbers = t2i.numbers(t2i.sampleOf(state));
      for (const button of buttons) {
        button.setAttribute("aria-pressed", button.dataset.map === state.map);
        button.disabled = !numbers[button.dataset.map];
      }
      says.textContent = t2i.MAPS[state.map].says;
    };
    return { box: t2i.el("div", { class: "text-choice" }, chips, says), refresh: update };
  };

  // The whole group under the chosen map; a click brings an answer to the desk, with the token that was clicked.
  const strip = (state, refresh) => {
    const entries = state.value.group.samples.map((sample, place) => {
      const { box, tint } = row(sample);
      const choose = ({ target }) => {
        const token = target.closest(".pill")?.dataset.token;
        [state.place, state.token, state.pinned] = [place, token === undefined ? null : Number(token), token !== undefined];
        refresh();
      };
      const label = `answer ${place + 1}, reward ${t2i.number(sample.reward)}`;
      const button = t2i.el(
        "button",
        { type: "button", class: "answer", "data-place": sample.place, "aria-label": label, onclick: choose },
        marks(sample),
        box,
      );
      return { button, tint };
    });
    const update = () =>
      entries.forEach(({ button, tint }, place) => {
        tint(state.map, state.value.group.scale, state.look);
        button.setAttribute("aria-pressed", place === state.place);
      });
    return { box: t2i.el("div", { class: "answers" }, ...entries.map((one) => one.button)), refresh: update };
  };
})();
