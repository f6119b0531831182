// What every part of the page draws with: elements, numbers, palettes, maps over pictures. Texts of runs and visitors
// enter the page as text nodes only.
(() => {
  const t2i = (window.t2i = window.t2i || {});

  t2i.el = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  t2i.floats = (text) => new Float32Array(bytes(text).buffer);
  t2i.ints = (text) => new Int32Array(bytes(text).buffer);

  const MINUS = "\u2212";
  t2i.number = (value, digits = 2) =>
    value === null || value === undefined || !Number.isFinite(value)
      ? "n/a"
      : value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", MINUS);
  t2i.signed = (value, digits = 2) => {
    const text = t2i.number(value, digits);
    return value > 0 && Number(text) !== 0 ? "+" + text : text;
  };

  // Whether an advantage is for or against a sample: the name of its colour.
  t2i.sign = (advantage) => (advantage > 0.005 ? "for" : advantage < -0.005 ? "against" : "");

  // The maps: which palette, which part of the group's scale, what the ends of the bar mean.
  t2i.MAPS = {
    token_advantages: {
      title: "Token advantages",
      says: "advantage × credit: where the update pushes",
      palette: "advantage",
      ends: ["less likely", "more likely"],
      limit: (scale) => scale.advantage,
      clipped: "advantage",
    },
    credit: {
      title: "Credit",
      says: "weight of each token, mean 1",
      palette: "sequential",
      ends: ["counts less", "counts more"],
      limit: (scale) => scale.credit,
    },
    signed_contrast: {
      title: "Signed contrast",
      says: "log p(prompt) − log p(negative), nats",
      palette: "contrast",
      ends: ["fits the negative", "fits the prompt"],
      limit: (scale) => scale.contrast,
      clipped: "contrast",
    },
  };

  // Decodes a sample's arrays once; the signed contrast is made of the two log-probs.
  t2i.numbers = (sample) => {
    if (sample.decoded) return sample.decoded;
    const found = { tokens: sample.tokens ? t2i.ints(sample.tokens) : null };
    for (const [name, text] of Object.entries(sample.arrays)) found[name] = t2i.floats(text);
    if (found.negative_logprobs)
      found.signed_contrast = found.logprobs.map((value, i) => value - found.negative_logprobs[i]);
    sample.decoded = found;
    return found;
  };

  const luts = new Map();
  const lutOf = (text) => {
    if (!luts.has(text)) luts.set(text, bytes(text));
    return luts.get(text);
  };

  // Pictures stand in the dark, and what counts shines; written tokens stand on paper, in palettes with a light middle.
  t2i.look = (palettes, paper = false) => {
    const chosen = Object.fromEntries(
      Object.entries(palettes).map(([kind, known]) => [kind, Object.keys(known).find((name) => !paper || name !== "glow")]),
    );
    return { palettes, chosen, opacity: 0.9, smooth: false, outlines: true };
  };
  t2i.lut = (look, map) => {
    const kind = t2i.MAPS[map].palette;
    return lutOf(look.palettes[kind][look.chosen[kind]]);
  };

  // Where on the palette a value lies (0..256); what is not finite lies where 0 does. Signed maps have a square-root scale: one
  // image that is far from the others would otherwise leave these without colour. The legend's marks say so.
  t2i.place = (map, value, scale) => {
    if (!Number.isFinite(value)) value = 0;
    const limit = t2i.MAPS[map].limit(scale) || 1;
    if (t2i.MAPS[map].palette === "sequential") {
      const share = Math.min(1, Math.max(0, value / limit));
      return Math.round(256 * share);
    }
    const share = Math.sqrt(Math.min(1, Math.abs(value) / limit));
    return Math.round(128 * (1 + Math.sign(value) * share));
  };

  // Paints a map on a canvas of one pixel per token, equally see-through everywhere. It colours the light on the picture (a
  // style multiplies them), so the legend's colours are those of a white picture.
  t2i.paint = (canvas, sample, grid, scale, map, look, opacity) => {
    const values = t2i.numbers(sample)[map];
    [canvas.height, canvas.width] = grid;
    canvas.classList.toggle("smooth", look.smooth);
    canvas.hidden = !values;
    if (!values) return;
    const lut = t2i.lut(look, map);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(grid[1], grid[0]);
    for (let t = 0; t < values.length; t++) {
      const place = t2i.place(map, values[t], scale);
      for (let c = 0; c < 3; c++) pixels.data[4 * t + c] = lut[3 * place + c];
      pixels.data[4 * t + 3] = Math.round(255 * opacity);
    }
    context.putImageData(pixels, 0, 0);
  };

  // A picture with a map over it: update(sample, grid, scale, map, look, opacity).
  t2i.tile = (extra = "") => {
    const image = t2i.el("img", { alt: "", draggable: "false" });
    const canvas = t2i.el("canvas", { "aria-hidden": "true" });
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const lost = t2i.el("span", { class: "lost" }, "picture missing");
    const box = t2i.el("div", { class: "tile " + extra }, image, canvas, svg, lost);
    const update = (sample, grid, scale, map, look, opacity) => {
      lost.hidden = Boolean(sample.image);
      image.hidden = !sample.image;
      box.classList.toggle("blank", !sample.image);
      if (sample.image && image.src !== sample.image) image.src = sample.image;
      image.classList.toggle("crisp", sample.pixels[0] < 200);
      image.classList.toggle("grey", Boolean(map) && opacity > 0 && sample.image);
      box.style.aspectRatio = sample.image ? `${sample.pixels[0]} / ${sample.pixels[1]}` : `${grid[1]} / ${grid[0]}`;
      canvas.hidden = !map;
      if (map) t2i.paint(canvas, sample, grid, scale, map, look, opacity);
      outlines(svg, sample, look.outlines && extra.includes("outlined"));
    };
    return { box, update };
  };

  const outlines = (svg, sample, shown) => {
    svg.setAttribute("viewBox", `0 0 ${sample.pixels[0]} ${sample.pixels[1]}`);
    svg.setAttribute("preserveAspectRatio", "none");
    const found = shown && sample.image ? sample.objects || [] : [];
    svg.replaceChildren(
      ...found.flatMap((one) =>
        ["halo", "edge"].map((kind) => {
          const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
          path.setAttribute("d", one.path);
          path.setAttribute("class", `${kind} ${one.prompted ? "prompted" : "other"}`);
          const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
          title.textContent = [one.color, one.name, one.prompted ? "(prompted)" : ""].join(" ");
          path.append(title);
          return path;
        }),
      ),
    );
  };

  // A quarter of the limit stands halfway: see `place`.
  const signedMarks = (limit, beyond) => [
    [0, (beyond ? "≤ " : "") + t2i.signed(-limit)],
    ...(limit ? [[0.25, t2i.signed(-limit / 4)]] : []),
    [0.5, "0"],
    ...(limit ? [[0.75, t2i.signed(limit / 4)]] : []),
    [1, (beyond ? "≥ " : "") + t2i.signed(limit)],
  ];

  // A colour bar with its numbers and the meaning of its ends, as see-through as the map, on white.
  t2i.legend = (map, scale, look, opacity) => {
    const about = t2i.MAPS[map];
    const lut = t2i.lut(look, map);
    const canvas = t2i.el("canvas", { width: 257, height: 1 });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(257, 1);
    for (let i = 0; i < 257; i++) pixels.data.set([lut[3 * i], lut[3 * i + 1], lut[3 * i + 2], Math.round(255 * opacity)], 4 * i);
    context.putImageData(pixels, 0, 0);
    const limit = about.limit(scale);
    const beyond = (scale.clipped || []).includes(about.clipped);
    const marks =
      about.palette === "sequential"
        ? [[0, "0"], [1 / limit, "1"], [1, t2i.number(limit)]]
        : signedMarks(limit, beyond);
    const labels = marks.map(([share, text]) => {
      const label = t2i.el("span", { class: { 0: "low", 0.25: "quarter", 0.75: "quarter", 1: "high" }[share] }, text);
      label.style.left = `${100 * share}%`;
      return label;
    });
    return t2i.el(
      "div",
      { class: "legend" },
      canvas,
      t2i.el("div", { class: "marks" }, ...labels),
      t2i.el("div", { class: "ends" }, t2i.el("span", {}, about.ends[0]), t2i.el("span", {}, about.ends[1])),
    );
  };

  t2i.negative = (text) => (text === null ? "the model's null prompt" : text === "" ? "the empty text" : `“${text}”`);

  t2i.notice = (title, text, command) =>
    t2i.el(
      "div",
      { class: "notice empty" },
      t2i.el("strong", {}, title),
      text ? t2i.el("p", {}, text) : null,
      command ? t2i.el("code", {}, command) : null,
    );

  // Calls `show` with the component's value now and whenever it changes.
  t2i.follow = (props, watch, show) => {
    const look = () => props.value && typeof props.value === "object" && show(props.value);
    watch("value", look);
    look();
  };

  t2i.slider = (label, { min, max, step, value }, change) => {
    const input = t2i.el("input", { type: "range", min, max, step, value, "aria-label": label });
    input.addEventListener("input", () => change(Number(input.value)));
    return input;
  };
})();
