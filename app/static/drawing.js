// Maps over pictures, and their legends. Palettes, scales, lines and labels come from the server (t2i_credit/heatmap), which draws
// files by the same; here they are looked up.
(() => {
  const t2i = window.t2i;

  // The maps: which kind of palette and scale, what the ends of the bar mean.
  t2i.MAPS = {
    token_advantages: {
      title: "Token advantages",
      term: "token advantage",
      says: "advantage × credit: where the update pushes",
      palette: "advantage",
      ends: ["less likely", "more likely"],
    },
    credit: {
      title: "Credit",
      term: "credit",
      says: "weight of each token, mean 1",
      palette: "credit",
      ends: ["counts less", "counts more"],
    },
    signed_contrast: {
      title: "Signed contrast",
      term: "contrast",
      says: "log p(prompt) − log p(negative), nats",
      palette: "contrast",
      ends: ["fits the negative", "fits the prompt"],
    },
    value_change: {
      title: "Value change",
      term: "value change",
      says: "where the critic saw it go wrong, or right",
      palette: "value",
      ends: ["here it went wrong", "here it went right"],
    },
    reward_map: {
      title: "Reward map",
      term: "reward map",
      says: "where the judge looked, for or against",
      palette: "map",
      ends: ["lowered the reward", "raised it"],
    },
  };

  // How a map and its picture are shown together.
  t2i.MODES = {
    lines: ["Lines", "the map's colours, and the picture as lines"],
    map: ["Map", "the map alone"],
    dimmed: ["Dimmed", "the map over the picture in pale grey"],
    picture: ["Picture", "the picture alone"],
  };

  t2i.look = (palettes) => {
    const chosen = Object.fromEntries(Object.entries(palettes).map(([kind, known]) => [kind, Object.keys(known)[0]]));
    return { palettes, chosen, mode: "lines", opacity: 0.7, smooth: false, outlines: true };
  };

  const decoded = new Map();
  const once = (text, decode) => {
    if (!decoded.has(text)) decoded.set(text, decode(text));
    return decoded.get(text);
  };

  t2i.lut = (look, map) => {
    const kind = t2i.MAPS[map].palette;
    return once(look.palettes[kind][look.chosen[kind]], t2i.bytes);
  };

  // Where on the palette a value lies (0..256): how many edges are at or below it. What is not finite lies where 0 does.
  t2i.place = (map, value, scale) => {
    if (!Number.isFinite(value)) value = 0;
    const edges = (scale.decoded ??= {})[map] ??= t2i.floats(scale.edges[t2i.MAPS[map].palette]);
    let [low, high] = [0, edges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (edges[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  // Whether dark ink can be read on a colour (weights of ITU-R BT.601).
  t2i.light = (red, green, blue) => 0.299 * red + 0.587 * green + 0.114 * blue > 140;

  // The pixels of a picture that are on a line, and how strong it is there: see `lines_payload`.
  const linesOf = (sample) => {
    if (sample.lines.at) return sample.lines;
    const [at, level] = [[], []];
    let place = -1;
    for (const step of t2i.bytes(sample.lines.steps)) {
      place += step >> 2;
      if (!(step & 3)) continue;
      at.push(place);
      level.push(step & 3);
    }
    return Object.assign(sample.lines, { at, level });
  };

  // Of each pixel along a side: the token that it lies in, and, for smooth maps, its neighbour and how far it is on the way there.
  const along = (tokens, pixels, smooth) =>
    Array.from({ length: pixels }, (_, pixel) => {
      const place = ((pixel + 0.5) * tokens) / pixels;
      if (!smooth) return [Math.floor(place), 0, 0];
      const from = Math.min(tokens - 1, Math.max(0, place - 0.5));
      const first = Math.floor(from);
      return [first, Math.min(tokens - 1, first + 1), from - first];
    });

  // Lays the map's colours into `pixels` (one number each).
  const colour = (pixels, [height, width], places, [rows, columns], colours, smooth) => {
    const [down, across] = [along(rows, height, smooth), along(columns, width, smooth)];
    for (let y = 0; y < height; y++) {
      const [row, next, low] = down[y];
      if (!smooth && y && down[y - 1][0] === row) {
        pixels.copyWithin(y * width, (y - 1) * width, y * width);
        continue;
      }
      const [upper, lower] = [row * columns, next * columns];
      for (let x = 0; x < width; x++) {
        const [one, other, right] = across[x];
        let place = places[upper + one];
        if (smooth) {
          const above = place + (places[upper + other] - place) * right;
          const below = places[lower + one] + (places[lower + other] - places[lower + one]) * right;
          place = Math.round(above + (below - above) * low);
        }
        pixels[y * width + x] = colours[place];
      }
    }
  };

  const ink = (pixels, { at, level, strengths }) => {
    at.forEach((place, i) => {
      const strength = strengths[level[i]];
      const below = pixels[place];
      const parts = [below & 255, (below >> 8) & 255, (below >> 16) & 255];
      const over = t2i.light(...parts) ? 17 : 255;
      const [red, green, blue] = parts.map((part) => Math.round(part + (over - part) * strength));
      pixels[place] = red | (green << 8) | (blue << 16) | (255 << 24);
    });
  };

  const painted = new WeakMap(); // what a canvas shows
  const SMOOTH = 12; // pixels of a token's side where no lines give the size

  // Paints a map on a canvas: one pixel per token where nothing finer is to be seen.
  t2i.paint = (canvas, sample, grid, scale, map, look, lined) => {
    const values = t2i.numbers(sample)[map];
    canvas.hidden = !values;
    const shown = [sample, scale, map, t2i.lut(look, map), look.smooth, lined];
    if (!values || (painted.has(canvas) && painted.get(canvas).every((part, i) => part === shown[i]))) return;
    painted.set(canvas, shown);
    const lines = lined && sample.lines ? linesOf(sample) : null;
    const size = lines?.size ?? (look.smooth ? grid.map((tokens) => SMOOTH * tokens) : grid);
    [canvas.height, canvas.width] = size;
    canvas.classList.toggle("fine", size !== grid);
    const context = canvas.getContext("2d");
    const image = context.createImageData(size[1], size[0]);
    const pixels = new Uint32Array(image.data.buffer);
    const lut = t2i.lut(look, map);
    const colours = Array.from({ length: 257 }, (_, i) => lut[3 * i] | (lut[3 * i + 1] << 8) | (lut[3 * i + 2] << 16) | (255 << 24));
    const places = Array.from(values, (value) => t2i.place(map, value, scale));
    colour(pixels, size, places, grid, colours, look.smooth);
    if (lines) ink(pixels, lines);
    context.putImageData(image, 0, 0);
  };

  // A picture with a map over it: update(sample, grid, scale, map, look). Only the stage shows the picture alone, and only what
  // is large has lines and outlines.
  t2i.tile = (extra = "") => {
    const image = t2i.el("img", { alt: "", draggable: "false" });
    const canvas = t2i.el("canvas", { "aria-hidden": "true" });
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const lost = t2i.el("span", { class: "lost" }, "picture missing");
    const box = t2i.el("div", { class: "tile " + extra }, image, canvas, svg, lost);
    const [stage, plain] = [extra.includes("stage"), extra.includes("plain")];
    const update = (sample, grid, scale, map, look) => {
      const mode = plain ? "map" : look.mode === "picture" && !stage ? "lines" : look.mode;
      const shown = map && mode !== "picture";
      lost.hidden = Boolean(sample.image || shown);
      lost.textContent = sample.left_out ? "picture left out: the group is too large" : "picture missing";
      image.hidden = !sample.image;
      box.classList.toggle("blank", !sample.image);
      if (sample.image && image.src !== sample.image) image.src = sample.image;
      image.classList.toggle("crisp", sample.pixels[0] < 200);
      image.classList.toggle("pale", Boolean(shown && mode === "dimmed"));
      box.style.aspectRatio = sample.image ? `${sample.pixels[0]} / ${sample.pixels[1]}` : `${grid[1]} / ${grid[0]}`;
      canvas.hidden = !shown;
      canvas.style.opacity = mode === "dimmed" && sample.image ? look.opacity : 1;
      if (shown) t2i.paint(canvas, sample, grid, scale, map, look, mode === "lines");
      outlines(svg, sample, look.outlines && extra.includes("outlined") && !(shown && mode === "lines"), shown ? grid : null);
    };
    return { box, update };
  };

  const drawn = (name, attributes = {}, ...children) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    shape.append(...children);
    return shape;
  };

  // What the detector found. Over a map (of this grid) the middle of each token stays free, so that its colour can be read.
  const outlines = (svg, sample, shown, grid) => {
    const [width, height] = sample.pixels;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    const found = shown && sample.image ? sample.objects || [] : [];
    const paths = found.flatMap((one) =>
      ["halo", "edge"].map((kind) =>
        drawn(
          "path",
          { d: one.path, class: `${kind} ${one.prompted ? "prompted" : "other"}` },
          drawn("title", {}, [one.color, one.name, one.prompted ? "(prompted)" : ""].join(" ")),
        ),
      ),
    );
    if (!grid || !paths.length) return svg.replaceChildren(...paths);
    const [x, y] = [width / grid[1], height / grid[0]];
    const r = Math.min(0.2 * Math.min(x, y), 0.012 * Math.max(width, height));
    const name = (svg.dataset.name ??= `t2i-free-${++masks}`);
    const hole = drawn("circle", { cx: x / 2, cy: y / 2, r, fill: "black" });
    const pattern = { id: `${name}-token`, width: x, height: y, patternUnits: "userSpaceOnUse" };
    const whole = { width, height, fill: `url(#${name}-token)` };
    svg.replaceChildren(
      drawn("pattern", pattern, drawn("rect", { width: x, height: y, fill: "white" }), hole),
      drawn("mask", { id: name, x: 0, y: 0, width, height, maskUnits: "userSpaceOnUse" }, drawn("rect", whole)),
      drawn("g", { mask: `url(#${name})` }, ...paths),
    );
  };
  let masks = 0;

  // Labels stay within the bar, and one that would touch a more important one is left out; its tick stays.
  const settle = (marks, labels) => {
    const taken = [];
    for (const [label, share] of labels) {
      const long = label.offsetWidth;
      const left = Math.max(0, Math.min(marks.clientWidth - long, share * marks.clientWidth - long / 2));
      const free = taken.every(([start, end]) => left > end + 6 || left + long < start - 6);
      label.style.left = `${left}px`;
      label.style.visibility = free ? "" : "hidden";
      if (free) taken.push([left, left + long]);
    }
  };

  // A colour bar with its numbers and the meaning of its ends. Over a dimmed picture it is as see-through as the map: above on the
  // picture's white, below on its black.
  t2i.legend = (map, scale, look, titled = false) => {
    const about = t2i.MAPS[map];
    const lut = t2i.lut(look, map);
    const canvas = t2i.el("canvas", { width: 257, height: 1 });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(257, 1);
    for (let i = 0; i < 257; i++) pixels.data.set([...lut.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(pixels, 0, 0);
    if (look.mode === "dimmed") canvas.style.opacity = look.opacity;
    const labels = scale.marks[about.palette].map(([share, text]) => [t2i.el("span", {}, text), share]);
    const ticks = labels.map(([, share]) => t2i.el("i", { style: `left: ${100 * share}%` }));
    const marks = t2i.el("div", { class: "marks" }, ...ticks, ...labels.map(([label]) => label));
    new ResizeObserver(() => settle(marks, labels)).observe(marks);
    return t2i.el(
      "div",
      { class: "legend" },
      titled ? t2i.el("b", { class: "legend-title" }, about.title, about.term ? t2i.term(about.term) : null) : null,
      t2i.el("div", { class: "bar" }, canvas),
      marks,
      t2i.el("div", { class: "ends" }, t2i.el("span", {}, about.ends[0]), t2i.el("span", {}, about.ends[1])),
    );
  };
})();
