// The images of an evaluation: filtered by task and verdict, with every detection and the judge's reason.
(() => {
  const t2i = window.t2i;
  const MARKS = { right: "✓ ", wrong: "✗ " };

  t2i.gallery = (element, props, trigger, watch) => {
    const root = element.querySelector(".t2i-gallery");
    t2i.follow(props, watch, (value) => {
      if (value.notice) return root.replaceChildren(t2i.notice(...value.notice));
      if (!value.tasks) return root.replaceChildren();
      const ask = (change) => trigger("pick", { task: value.task, verdict: value.verdict, page: 0, ...change });
      root.replaceChildren(filters(value, ask), t2i.el("div", { class: "gallery" }, ...value.items.map(card)), pager(value, ask));
    });
  };

  const filters = (value, ask) =>
    t2i.el(
      "div",
      { class: "filters" },
      chips("task", ["all", ...value.tasks], value.task, (task) => ask({ task })),
      value.verdicts.length ? chips("verdict", value.verdicts, value.verdict, (verdict) => ask({ verdict })) : null,
      t2i.el("span", { class: "count" }, `${value.total.toLocaleString("en")} images`),
    );

  const chips = (label, names, chosen, pick) =>
    t2i.el(
      "div",
      { class: "chips", role: "group", "aria-label": label },
      ...names.map((name) =>
        t2i.el(
          "button",
          { type: "button", "aria-pressed": String(name === chosen), "data-pick": name, onclick: () => pick(name) },
          name.replace("_", " "),
        ),
      ),
    );

  const card = (item) =>
    t2i.el(
      "figure",
      { class: "verdict" + (MARKS[item.verdict] ? ` ${item.verdict}` : "") },
      picture(item),
      t2i.el(
        "figcaption",
        {},
        t2i.el("b", {}, (MARKS[item.verdict] ?? "") + item.verdict),
        t2i.el("span", {}, item.prompt),
        item.boxes.length ? t2i.el("small", {}, "found: " + counted(item.boxes)) : null,
        item.reason ? t2i.el("em", {}, item.reason) : null,
      ),
    );

  // Such as "circle, square × 2".
  const counted = (boxes) => {
    const many = new Map();
    for (const { name } of boxes) many.set(name, (many.get(name) ?? 0) + 1);
    return [...many].map(([name, count]) => (count > 1 ? `${name} × ${count}` : name)).join(", ");
  };

  // The picture with its boxes, whose names show under the pointer; without its pixels, the boxes and names alone.
  const picture = (item) => {
    const [width, height] = item.size;
    const box = t2i.el("div", { class: "detected" + (item.image ? "" : " bare"), title: item.image ? "" : "the pixels were not kept: these are the detections" });
    if (item.image) box.append(t2i.el("img", { src: item.image, alt: item.prompt, class: width < 200 ? "crisp" : "" }));
    for (const one of item.boxes) {
      const [x0, y0, x1, y1] = one.box;
      const frame = t2i.el("div", { class: "frame", title: `${one.name}, confidence ${t2i.number(one.confidence)}` }, t2i.el("span", {}, one.name));
      Object.assign(frame.style, {
        left: `${(100 * x0) / width}%`,
        top: `${(100 * y0) / height}%`,
        width: `${(100 * (x1 - x0)) / width}%`,
        height: `${(100 * (y1 - y0)) / height}%`,
      });
      box.append(frame);
    }
    return box;
  };

  const pager = (value, ask) =>
    value.pages < 2
      ? ""
      : t2i.el(
          "div",
          { class: "pager" },
          t2i.el("button", { type: "button", disabled: value.page === 0, onclick: () => ask({ page: value.page - 1 }) }, "‹ back"),
          t2i.el("span", {}, `page ${value.page + 1} of ${value.pages}`),
          t2i.el("button", { type: "button", disabled: value.page + 1 === value.pages, onclick: () => ask({ page: value.page + 1 }) }, "next ›"),
        );
})();
