// What every part of the page draws with: elements, numbers, arrays. Texts of runs and visitors
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

  t2i.bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  t2i.floats = (text) => new Float32Array(t2i.bytes(text).buffer);
  t2i.ints = (text) => new Int32Array(t2i.bytes(text).buffer);

  const MINUS = "\u2212";
  t2i.number = (value, digits = 2) =>
    value === null || value === undefined || !Number.isFinite(value)
      ? "n/a"
      : value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", MINUS);
  t2i.signed = (value, digits = 2) => {
    const text = t2i.number(value, digits);
    return value > 0 && Number(text) !== 0 ? "+" + text : text;
  };

  // A sample has the number that it has in the run folder, in the table and in the names of files; fresh ones are counted.
  t2i.nameOf = (sample, place) => `Sample ${sample.place ?? place}`;
  t2i.rankOf = (place, samples) => (samples.length > 1 ? ` · ${place + 1} of ${samples.length} by reward` : "");

  // Whether an advantage is for or against a sample: the name of its colour.
  t2i.sign = (advantage) => (advantage > 0.005 ? "for" : advantage < -0.005 ? "against" : "");

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

  t2i.negative = (text) => (text === null ? "the model's null prompt" : text === "" ? "the empty text" : `“${text}”`);

  t2i.notice = (title, text, command) =>
    t2i.el(
      "div",
      { class: "notice empty" },
      t2i.el("strong", {}, title),
      text ? t2i.el("p", {}, text) : null,
      command ? t2i.el("code", {}, command) : null,
    );

  // A copy of our own: what the library holds is slow to read, and is copied with all that is kept in it at every event.
  t2i.copied = (value) => {
    if (!value || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(t2i.copied);
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, t2i.copied(part)]));
  };

  // Calls `show` with the component's value now and whenever it changes.
  t2i.follow = (props, watch, show) => {
    const look = () => props.value && typeof props.value === "object" && show(props.value);
    watch("value", look);
    look();
  };

  // Where an arrow key leads on a grid: it stays at the edge. null for other keys.
  t2i.moved = (token, key, [rows, columns]) => {
    const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key] ?? [];
    if (down === undefined) return null;
    if (token === null) return 0;
    const within = (place, count) => Math.min(count - 1, Math.max(0, place));
    return within(Math.floor(token / columns) + down, rows) * columns + within((token % columns) + right, columns);
  };

  // Lays the frame of a token over its picture; at the picture's edge it keeps room for its line, in a corner it is as round.
  t2i.frame = (mark, token, [rows, columns]) => {
    const [row, column] = [Math.floor(token / columns), token % columns];
    const away = [row / rows, (columns - 1 - column) / columns, (rows - 1 - row) / rows, column / columns];
    mark.style.inset = away.map((share) => `max(var(--line), ${100 * share}%)`).join(" ");
    const round = [0, 1, 2, 3].map((corner) => away[corner] === 0 && away[(corner + 3) % 4] === 0);
    mark.style.borderRadius = round.map((is) => (is ? "calc(var(--round, 6px) - var(--line))" : "3px")).join(" ");
  };

  t2i.slider = (label, { min, max, step, value }, change) => {
    const input = t2i.el("input", { type: "range", min, max, step, value, "aria-label": label });
    input.addEventListener("input", () => change(Number(input.value)));
    return input;
  };
})();
