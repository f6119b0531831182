// Beside the credit maps: how to look at them, and the numbers of one token.
(() => {
  const t2i = window.t2i;

  // The palette of the chosen map.
  t2i.paletteChoice = (state, refresh) => {
    const { look } = state;
    const select = t2i.el("select", { "aria-label": "palette" });
    let shown = "";
    const fill = () => {
      const kind = t2i.MAPS[state.map].palette;
      if (kind === shown) return;
      shown = kind;
      select.replaceChildren(
        ...Object.keys(look.palettes[kind]).map((name) =>
          t2i.el("option", { value: name, selected: name === look.chosen[kind] }, name),
        ),
      );
    };
    select.addEventListener("change", () => {
      look.chosen[t2i.MAPS[state.map].palette] = select.value;
      refresh();
    });
    return { box: t2i.el("label", { class: "palette" }, t2i.el("span", {}, "Palette"), select), refresh: fill };
  };

  // How map and picture are shown together, interpolation, outlines, palette; over a dimmed picture, how far it shows through.
  t2i.viewControls = (state, refresh, palette) => {
    const { look } = state;
    const check = (label, name) => {
      const input = t2i.el("input", { type: "checkbox", checked: look[name] });
      input.addEventListener("change", () => ((look[name] = input.checked), refresh()));
      return t2i.el("label", { class: "check" }, input, label);
    };
    const modes = Object.entries(t2i.MODES).map(([name, [label, title]]) =>
      t2i.el("button", { type: "button", title, "data-mode": name, onclick: () => ((look.mode = name), refresh()) }, label),
    );
    const opacity = t2i.slider("opacity of the map", { min: 0.3, max: 1, step: 0.01, value: look.opacity }, (value) => {
      look.opacity = value;
      refresh();
    });
    const through = t2i.el("label", { class: "opacity" }, t2i.el("span", {}, "Map over picture"), opacity);
    const known = state.value.group.samples.some((sample) => sample.objects.length);
    const box = t2i.el(
      "div",
      { class: "view" },
      t2i.el("div", { class: "chips", role: "group", "aria-label": "map and picture" }, ...modes),
      through,
      check("Smooth", "smooth"),
      known ? check("Object outlines", "outlines") : null,
      palette.box,
    );
    const update = () => {
      for (const mode of modes) mode.setAttribute("aria-pressed", mode.dataset.mode === look.mode);
      through.hidden = look.mode !== "dimmed";
      palette.refresh();
    };
    return { box, refresh: update };
  };

  // Four digits behind the point, or the power of ten of what they would round away.
  const fine = (value, form) => {
    if (!value || Math.abs(value) >= 0.00005) return form(value, 4);
    const plus = value > 0 && form === t2i.signed ? "+" : "";
    return plus + value.toExponential(1).replaceAll("-", "\u2212");
  };

  const ROWS = (t2i.ROWS = [
    ["logprobs", "log p, prompt", "nats, under the positive prompt", (v) => fine(v, t2i.number)],
    ["negative_logprobs", "log p, negative", "nats, under the negative prompt", (v) => fine(v, t2i.number)],
    ["signed_contrast", "Contrast", "the difference of both, nats", (v) => fine(v, t2i.signed)],
    ["contrast", "Evidence", "what the credit is ranked by", (v) => fine(v, t2i.number)],
    ["credit", "Credit", "1 = as much as the average token", (v) => fine(v, t2i.number)],
    ["token_advantages", "Token advantage", "the sample's advantage times the credit", (v) => fine(v, t2i.signed)],
    ["value_change", "Value change", "what this token did to the reward that the critic expects", (v) => fine(v, t2i.signed)],
    ["reward_map", "Reward map", "what this token did to the reward", (v) => fine(v, t2i.signed)],
    ["entropy", "Entropy", "nats; how unsure the policy was", (v) => fine(v, t2i.number)],
  ]);

  // The numbers of the token that is pointed at, else those of the sample.
  t2i.inspector = (state) => {
    const head = t2i.el("div", { class: "inspector-head" });
    const table = t2i.el("dl", {});
    const says = t2i.el("p", { class: "says" });
    const save = t2i.el(
      "div",
      { class: "save" },
      t2i.el("span", {}, "Download"),
      ...[
        ["png", "PNG", "this sample with all its maps"],
        ["gif", "GIF", "this prompt through training"],
        ["csv", "CSV", "every token of the group; in the playground of all groups"],
      ]
        .filter(([kind]) => kind === "csv" || !state.value.group.text)
        .map(([kind, label, title]) =>
          t2i.el("button", { type: "button", title, "data-save": kind, onclick: () => download(state, kind) }, label),
        ),
      ...(state.value.run ? FILES : []).map(([kind, label, title]) =>
        t2i.el("button", { type: "button", title, "data-file": kind, onclick: ({ currentTarget }) => fetched(currentTarget, says, state, kind) }, label),
      ),
    );
    const of = state.value.group.text ? [] : [t2i.loupe(state), t2i.spread(state), t2i.others(state), t2i.through(state)];
    const [loupe, spread, others, through] = of;
    const box = t2i.el("aside", { class: "inspector", "aria-live": "polite" }, head, loupe?.box, table, others?.box, spread?.box, through?.box, says, save);
    const update = () => {
      const sample = t2i.sampleOf(state);
      const numbers = t2i.numbers(sample);
      const token = state.token;
      if (loupe) hold(box, state);
      for (const part of of) part.refresh();
      if (token === null) return overview(state, sample, head, table, says);
      const { text, grid } = state.value.group;
      head.replaceChildren(
        t2i.el("h3", {}, `Token ${token}`, t2i.term("token")),
        text ? wording(sample, token) : t2i.el("p", {}, `${spot(token, grid[1])} · code `, code(numbers.tokens[token]), t2i.term("code")),
        loupe && state.pinned ? letGo(state) : "",
      );
      table.replaceChildren(
        ...ROWS.filter(([name]) => numbers[name]).flatMap(([name, label, title, form]) => [
          t2i.el("dt", { title }, ...t2i.explained(label)),
          t2i.el("dd", { "data-number": name, "data-value": numbers[name][token] }, form(numbers[name][token])),
        ]),
      );
      says.textContent = sentence(numbers, token, sample, text ? ["token", "answer"] : ["code", "image"]);
    };
    return { box, refresh: update };
  };

  const letGo = (state) => {
    const close = () => state.parts.stage.letGo();
    return t2i.el("button", { type: "button", class: "let-go", "aria-label": "let go of the token", onclick: close }, "×");
  };

  // On a wide screen the card stays as high as the most that it has said at this width, also when it is drawn anew. While a token is
  // kept, a phone has its numbers in a sheet at the bottom of the screen; their usual place stays as high.
  const hold = (box, state) => {
    const side = box.parentElement;
    if (side && matchMedia("(min-width: 1101px)").matches) {
      const most = state.high?.width === side.offsetWidth ? state.high.most : 0;
      state.high = { width: side.offsetWidth, most: Math.max(most, box.offsetHeight) };
      side.style.minHeight = side.matches(".desk > *") ? `${state.high.most}px` : "";
    } else if (side && !state.pinned) side.style.minHeight = "";
    else if (side && !box.classList.contains("held")) side.style.minHeight = `${box.offsetHeight}px`;
    box.classList.toggle("held", state.pinned);
  };

  const spot = (token, columns) => `row ${Math.floor(token / columns)}, column ${token % columns}`;
  const wording = (sample, token) =>
    t2i.el("p", {}, t2i.el("b", { class: "quoted" }, sample.quoted[token]), ` · one of ${sample.pills.length}, counted from 0`);
  const code = (number) => t2i.el("b", { "data-number": "code", "data-value": number }, String(number));

  // Of the numbers among the values: null stands for what was not finite.
  const mean = (values) => {
    const known = values.filter(Number.isFinite);
    return known.reduce((sum, value) => sum + value, 0) / known.length;
  };

  const overview = (state, sample, head, table, says) => {
    const { group } = state.value;
    const [one, made] = group.text ? ["answer", "written"] : ["image", "drawn"];
    head.replaceChildren(
      t2i.el("h3", {}, group.text ? `Answer ${state.place + 1} of ${group.samples.length}` : t2i.nameOf(sample, state.place)),
      t2i.el("p", {}, sample.gold ? `a golden reference, not ${made} by the model` : "point at a token, or click it", t2i.term("token")),
    );
    const rows = [
      ["Reward", t2i.number(sample.reward, 3)],
      ...Object.entries(sample.parts).map(([name, value]) => [name, t2i.number(value, 3)]),
      ["Advantage", t2i.signed(sample.advantage, 3)],
      ["Group's mean reward", t2i.number(mean(group.samples.map((one) => one.reward)), 3)],
    ];
    if (sample.located) {
      rows.push(["Credit on prompted objects", `${t2i.number(sample.located.on_objects)} × mean`]);
      rows.push(["Their share of the picture", `${Math.round(100 * sample.located.area)}%`]);
    }
    const seen = sample.objects.map((one) => [one.color, one.name].filter(Boolean).join(" "));
    if (sample.objects.length) rows.push(["The detector sees", seen.join(", ")]);
    table.replaceChildren(...rows.flatMap(([name, value]) => [t2i.el("dt", {}, ...t2i.explained(name)), t2i.el("dd", {}, value)]));
    says.textContent = !Number.isFinite(sample.advantage)
      ? `The advantage of this ${one} was not finite.`
      : Math.abs(sample.advantage) < 0.005
        ? `This ${one} earned what its group earned on average, so none of its tokens is pushed.`
        : sample.advantage > 0
          ? `This ${one} earned more than its group: its tokens become likelier, those with much credit most.`
          : `This ${one} earned less than its group: its tokens become less likely, those with much credit most.`;
  };

  // The same in words.
  const sentence = (numbers, token, sample, [piece, whole]) => {
    const parts = [];
    if (Number.isFinite(numbers.signed_contrast?.[token])) {
      const ratio = Math.exp(Math.min(20, Math.abs(numbers.signed_contrast[token])));
      const side = numbers.signed_contrast[token] >= 0 ? "likelier" : "less likely";
      parts.push(
        ratio < 1.05
          ? `Both prompts think the same of this ${piece}.`
          : `The prompt makes this ${piece} ${ratio < 100 ? ratio.toPrecision(2) : "over 100"} times ${side} than the negative prompt.`,
      );
    }
    const advantage = numbers.token_advantages?.[token];
    if (Number.isFinite(advantage) && sample.advantage !== undefined)
      parts.push(
        Math.abs(advantage) < 0.005
          ? "The update leaves it alone."
          : `The update makes it ${advantage > 0 ? "likelier" : "less likely"}, ${t2i.number(numbers.credit[token])} times as strongly as the average token of this ${whole}.`,
      );
    return parts.join(" ");
  };

  // Files that the server makes of a whole step or run (exports.py); why it cannot, its answer says.
  const FILES = [
    ["page", "HTML", "every map of this step as one page that needs no server"],
    ["archive", "ZIP", "all that this run recorded: metrics as CSV, pictures, numbers"],
  ];
  const fetched = async (button, says, state, kind) => {
    const { run, group } = state.value;
    button.disabled = true;
    button.textContent = "…";
    try {
      const answer = await fetch(`t2i/${kind}?${new URLSearchParams({ run, step: group.step })}`);
      if (!answer.ok) throw new Error(await answer.text());
      t2i.handOver(await answer.blob(), kind === "page" ? `${run}-step${group.step}.html` : `${run}.zip`);
    } catch (error) {
      says.textContent = error.message;
    }
    [button.disabled, button.textContent] = [false, FILES.find(([name]) => name === kind)[1]];
    button.focus();
  };

  const download = (state, kind) => {
    const { group, run } = state.value;
    const palettes = state.look.chosen;
    state.ask("save", { run, kind, step: group.step, group: group.number, place: t2i.sampleOf(state).place, palettes });
  };
})();
