// The images of an evaluation by prompt: filtered by task and verdict, with every detection, the judge's reason and what was there
// before. A picture is enlarged by a press; arrow keys go on, Escape goes back.
(() => {
  const t2i = window.t2i;
  const MARKS = { right: "✓ ", wrong: "✗ ", missing: "– " };

  t2i.gallery = (element, props, trigger, watch) => {
    const root = element.querySelector(".t2i-gallery");
    const large = enlarged();
    t2i.follow(props, watch, (value) => {
      if (value.notice) return root.replaceChildren(t2i.notice(...value.notice));
      if (!value.tasks) return root.replaceChildren();
      const { task, verdict, order } = value;
      const ask = (change) => trigger("pick", { task, verdict, order, page: 0, ...change });
      const pressed = root.contains(document.activeElement) ? document.activeElement.dataset.pick : null;
      const items = value.cards.flatMap((card) => card.items);
      const show = (item) => large.open(items, items.indexOf(item), root);
      root.replaceChildren(
        filters(value, ask),
        t2i.el("div", { class: "gallery" }, ...value.cards.map((card) => prompt(card, show))),
        pager(value, ask),
        large.box,
      );
      // the button that was pressed is a new one now
      if (pressed) root.querySelector(`[data-pick="${CSS.escape(pressed)}"]`)?.focus();
    });
  };

  const filters = (value, ask) => {
    const verdicts = Object.entries(value.verdicts);
    const images = `${value.total.toLocaleString("en")} images of ${value.prompts.toLocaleString("en")} prompts`;
    return t2i.el(
      "div",
      { class: "filters" },
      verdicts.length ? chips("verdict", verdicts, value.verdict, (verdict) => ask({ verdict })) : null,
      chips("task", ["all", ...value.tasks].map((name) => [name]), value.task, (task) => ask({ task })),
      chips("order", value.orders.map((name) => [name]), value.order, (order) => ask({ order })),
      t2i.el("span", { class: "count", role: "status" }, images),
    );
  };

  const chips = (label, names, chosen, pick) =>
    t2i.el(
      "div",
      { class: "chips", role: "group", "aria-label": label },
      ...names.map(([name, count]) =>
        t2i.el(
          "button",
          { type: "button", "aria-pressed": String(name === chosen), "data-pick": `${label}: ${name}`, onclick: () => pick(name) },
          name.replaceAll("_", " "),
          count === undefined ? null : t2i.el("small", {}, ` ${count}`),
        ),
      ),
    );

  const prompt = (card, show) => {
    const right = card.right === null ? "" : `${card.right} of ${card.of} right` + (card.was === null ? "" : `, ${card.was} before`);
    const images = t2i.el("div", { class: "prompt-images" }, ...card.items.map((item) => one(item, show)));
    images.style.setProperty("--count", card.items.length);
    return t2i.el(
      "section",
      { class: "prompt-card" },
      t2i.el("h2", {}, card.prompt),
      t2i.el("p", {}, [card.task.replaceAll("_", " "), right].filter(Boolean).join(" · ")),
      images,
    );
  };

  const one = (item, show) =>
    t2i.el(
      "figure",
      { class: "verdict" + (MARKS[item.verdict] ? ` ${item.verdict}` : "") },
      t2i.el("button", { type: "button", class: "enlarge", "aria-label": `enlarge: ${described(item)}`, onclick: () => show(item) }, picture(item)),
      t2i.el("figcaption", {}, ...caption(item)),
    );

  const caption = (item) => [
    t2i.el("b", {}, (MARKS[item.verdict] ?? "") + item.verdict + (item.change ? `, ${item.change}` : "")),
    item.boxes.length ? t2i.el("small", {}, "found: " + counted(item.boxes)) : null,
    item.reason ? t2i.el("em", {}, item.reason) : null,
    item.before ? t2i.el("small", { class: "was" }, picture(item.before), t2i.el("span", {}, `before: ${item.before.verdict}`)) : null,
  ].filter(Boolean);

  const described = (item) =>
    [item.prompt, item.verdict, item.reason, item.boxes.length ? `found: ${counted(item.boxes)}` : ""].filter(Boolean).join(", ");

  // Such as "circle, square × 2".
  const counted = (boxes) => {
    const many = new Map();
    for (const { name } of boxes) many.set(name, (many.get(name) ?? 0) + 1);
    return [...many].map(([name, count]) => (count > 1 ? `${name} × ${count}` : name)).join(", ");
  };

  // The picture with its boxes, whose names show under the pointer; without its pixels, the boxes and names alone.
  const picture = (item) => {
    const [width, height] = item.size;
    const box = t2i.el("span", { class: "detected" + (item.image ? "" : " bare"), title: item.image ? "" : "the pixels were not kept: these are the detections" });
    box.style.aspectRatio = `${width} / ${height}`;
    if (item.image) box.append(t2i.el("img", { src: item.image, alt: described(item), class: width < 200 ? "crisp" : "" }));
    for (const one of item.boxes) {
      const [x0, y0, x1, y1] = one.box;
      const frame = t2i.el("span", { class: "frame", title: `${one.name}, confidence ${t2i.number(one.confidence)}` }, t2i.el("span", {}, one.name));
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

  // One picture, and the one before it, as large as the window lets them be.
  const enlarged = () => {
    let items = [];
    let at = 0;
    let root = null;
    const body = t2i.el("div", { class: "large-body" });
    const button = (label, text, press) => t2i.el("button", { type: "button", "aria-label": label, onclick: press }, text);
    const box = t2i.el(
      "dialog",
      { class: "large", "aria-label": "enlarged picture" },
      body,
      t2i.el("div", { class: "pager" }, button("picture before", "‹", () => go(-1)), button("close", "Close", () => box.close()), button("next picture", "›", () => go(1))),
    );
    const go = (by) => {
      at = Math.min(items.length - 1, Math.max(0, at + by));
      const item = items[at];
      const side = (one, label) => t2i.el("figure", {}, picture(one), t2i.el("figcaption", {}, label ? t2i.el("b", {}, label) : null, ...caption({ ...one, before: null })));
      body.replaceChildren(
        t2i.el("h2", {}, item.prompt),
        t2i.el("div", { class: "large-pair" }, side(item, item.before ? "After: " : ""), item.before ? side(item.before, "Before: ") : ""),
      );
    };
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) (event.preventDefault(), go(by));
    });
    box.addEventListener("click", (event) => event.target === box && box.close()); // beside it
    box.addEventListener("close", () => root?.querySelectorAll(".enlarge")[at]?.focus());
    const open = (shown, place, where) => {
      [items, at, root] = [shown, place, where];
      go(0);
      box.showModal();
    };
    return { box, open };
  };

  const pager = (value, ask) => {
    if (value.pages < 2) return "";
    const turn = (label, text, page, off) => t2i.el("button", { type: "button", disabled: off, "data-pick": label, onclick: () => ask({ page }) }, text);
    return t2i.el(
      "div",
      { class: "pager" },
      turn("back", "‹ back", value.page - 1, value.page === 0),
      t2i.el("span", {}, `page ${value.page + 1} of ${value.pages}`),
      turn("next", "next ›", value.page + 1, value.page + 1 === value.pages),
    );
  };
})();
