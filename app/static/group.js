// A row of samples, each picture beside its map, or the answers of a run on text: the newest group of a run, the same prompt under several methods, the
// samples of the playground. Draws what it is given.
(() => {
  const t2i = window.t2i;

  t2i.group = (element, props, watch) => {
    const looks = { picture: t2i.look(t2i.palettes), text: t2i.look(t2i.palettes, true) };
    looks.picture.outlines = false;
    const root = element.querySelector(".t2i-group");
    let shown = "";
    t2i.follow(props, watch, (value) => {
      const key = JSON.stringify([value.key, value.notice]);
      if (key === shown) return; // the same pictures: nothing to redraw, nothing flickers
      shown = key;
      root.replaceChildren(...(value.notice ? [t2i.notice(...value.notice)] : t2i.rows(value, looks)));
    });
  };

  // A heading and its samples for each group.
  t2i.rows = (value, looks) =>
    value.groups.flatMap((group) => {
      const look = group.text ? looks.text : looks.picture;
      return [
        heading(group, value.map, look),
        group.text ? t2i.answers(group, value.map, look) : cards(group, value.map, look, value.asked ?? group.prompt),
      ];
    });

  const swatch = (colour) => {
    const box = t2i.el("i", { class: "swatch", "aria-hidden": "true" });
    box.style.background = colour;
    return box;
  };

  const AREAS = [["upper left", "upper middle", "upper right"], ["middle left", "middle", "middle right"], ["lower left", "lower middle", "lower right"]];

  // What a picture shows, in words: its prompt, its reward, and the ninth of it that holds most credit.
  t2i.alt = (prompt, sample, [rows, columns]) => {
    const parts = [prompt];
    if (sample.reward !== undefined) parts.push(`reward ${t2i.number(sample.reward)}`);
    const credit = sample.arrays && t2i.numbers(sample).credit;
    if (credit && rows >= 3 && columns >= 3) {
      const sums = AREAS.map(() => [0, 0, 0]);
      credit.forEach((weight, t) => {
        if (Number.isFinite(weight)) sums[Math.floor((3 * Math.floor(t / columns)) / rows)][Math.floor((3 * (t % columns)) / columns)] += weight;
      });
      const all = sums.flat();
      const most = Math.max(...all);
      const place = all.indexOf(most);
      if (most > 0) parts.push(`most credit ${AREAS.flat()[place]}, ${Math.round((100 * most) / all.reduce((a, b) => a + b))}% of it`);
    }
    return parts.join(", ");
  };

  const against = (group) => `against ${t2i.negative(group.negative)}`;

  const heading = (group, map, look) =>
    t2i.el(
      "header",
      { class: "group-head" },
      t2i.el(
        "div",
        {},
        t2i.el("h2", {}, group.colour ? swatch(group.colour) : null, group.text ? t2i.shortened(group.prompt) : group.prompt),
        t2i.el("p", {}, group.says ?? against(group)),
        group.text && group.negative !== null ? t2i.el("p", {}, t2i.shortened(against(group))) : null,
      ),
      map ? t2i.legend(map, group.scale, look, group.text ? 1 : look.opacity) : null,
    );

  const cards = (group, map, look, prompt) => {
    const list = t2i.el("div", { class: "cards" + (group.large ? " large" : "") });
    list.style.setProperty("--count", group.samples.length);
    group.samples.forEach((sample, i) => list.append(card(group, sample, map, look, i, prompt)));
    return list;
  };

  const card = (group, sample, map, look, i, prompt) => {
    const grid = sample.grid ?? group.grid;
    const picture = t2i.tile(sample.known ? "forming" : "");
    picture.update(sample, grid, group.scale, null, look, 0);
    picture.box.querySelector("img").alt = t2i.alt(prompt, sample, grid);
    if (sample.known) picture.box.style.setProperty("--known", sample.known);
    const heat = map ? t2i.tile("heat") : null;
    heat?.update(sample, grid, group.scale, map, look, look.opacity);
    const caption = t2i.el("figcaption", {});
    if (sample.title) caption.append(t2i.el("strong", { class: "wide" }, sample.title));
    if (sample.reward !== undefined)
      caption.append(
        t2i.el("b", { title: "reward" }, (sample.gold ? "★ " : "") + t2i.number(sample.reward)),
        t2i.el("span", { title: "advantage", class: t2i.sign(sample.advantage) }, t2i.signed(sample.advantage)),
      );
    if (sample.says) caption.append(t2i.el("span", { class: "wide" }, sample.says));
    const title = `sample ${i + 1}`;
    return t2i.el("figure", { class: "card", title }, picture.box, heat?.box, caption);
  };
})();
