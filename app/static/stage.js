// The large picture beside the same under the chosen map, and a loupe: both point at tokens.
(() => {
  const t2i = window.t2i;

  t2i.stage = (state) => {
    const [rows, columns] = state.value.group.grid;
    const tiles = [t2i.tile("plate outlined"), t2i.tile("stage outlined")];
    const marks = tiles.map((tile) => {
      const mark = t2i.el("div", { class: "mark", hidden: true });
      tile.box.append(mark);
      return mark;
    });
    const point = (token, pinned) => {
      if (token === state.token && pinned === state.pinned) return;
      [state.token, state.pinned] = [token, pinned];
      show();
      state.parts.inspector.refresh();
      t2i.address.tell(state);
    };
    for (const { box } of tiles) pointing(box, state, point);
    const [picture, lit] = tiles;
    Object.entries({
      tabindex: 0,
      role: "application",
      "aria-label": `picture of ${rows} by ${columns} tokens; arrow keys move between tokens`,
    }).forEach(([name, text]) => lit.box.setAttribute(name, text));
    lit.box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") point(null, false);
      const token = t2i.moved(state.token, event.key, [rows, columns]);
      if (token === null) return;
      event.preventDefault();
      point(token, true);
    });
    const show = () => {
      for (const mark of marks) {
        mark.hidden = state.token === null;
        if (state.token === null) continue;
        mark.classList.toggle("pinned", state.pinned);
        t2i.frame(mark, state.token, [rows, columns]);
      }
    };
    const told = t2i.el("figcaption", { class: "plate-says" });
    const legend = t2i.el("figcaption", { class: "stage-legend" });
    const box = t2i.el(
      "div",
      { class: "pair" },
      t2i.el("figure", {}, picture.box, told),
      t2i.el("figure", {}, lit.box, legend),
    );
    const update = () => {
      const { group } = state.value;
      const sample = t2i.sampleOf(state);
      picture.update(sample, group.grid, group.scale, null, state.look);
      lit.update(sample, group.grid, group.scale, state.map, state.look);
      told.replaceChildren(
        t2i.el("b", { title: "its number in this step, as in the table and in the names of files" }, sample.gold ? "★ a golden reference" : t2i.nameOf(sample, state.place) + t2i.rankOf(state.place, group.samples)),
        t2i.el("span", {}, `reward ${t2i.number(sample.reward)}`),
        t2i.el("span", { class: t2i.sign(sample.advantage) }, `advantage ${t2i.signed(sample.advantage)}`),
      );
      legend.replaceChildren(t2i.legend(state.map, group.scale, state.look));
      show();
    };
    const letGo = () => {
      point(null, false);
      lit.box.focus({ preventScroll: true });
    };
    return { box, refresh: update, letGo };
  };

  // The pointer over a picture: a mouse points at a token and a click keeps it or lets go; a finger keeps what it touches, and
  // takes it along when it slides.
  const pointing = (box, state, point) => {
    const [rows, columns] = state.value.group.grid;
    let [finger, before] = [false, null]; // of the press that a click ends: what was kept when it began
    const at = (event) => {
      const place = box.getBoundingClientRect();
      const column = Math.floor(((event.clientX - place.left) / place.width) * columns);
      const row = Math.floor(((event.clientY - place.top) / place.height) * rows);
      return column < 0 || row < 0 || column >= columns || row >= rows ? null : row * columns + column;
    };
    box.addEventListener("pointerdown", (event) => {
      [finger, before] = [event.pointerType !== "mouse", state.pinned ? state.token : null];
    });
    box.addEventListener("pointermove", (event) => {
      const token = at(event);
      if (event.pointerType === "mouse") state.pinned || point(token, false);
      else if (event.buttons && token !== null) point(token, true);
    });
    box.addEventListener("pointerleave", (event) => event.pointerType !== "mouse" || state.pinned || point(null, false));
    box.addEventListener("click", (event) => {
      const token = at(event);
      if (token !== before) point(token, token !== null);
      else point(finger ? null : token, false);
    });
  };

  const LOUPE = 264; // pixels of its canvases

  // The neighbourhood of a token, large: of the picture, and of the map.
  t2i.loupe = (state) => {
    const canvases = ["picture", "map"].map((name) => t2i.el("canvas", { class: `loupe-${name}`, width: LOUPE, height: LOUPE }));
    const box = t2i.el("div", { class: "loupe", "aria-hidden": "true" }, ...canvases);
    const photo = new Image();
    photo.addEventListener("load", () => update());
    const heat = t2i.el("canvas");
    const update = () => {
      const { grid, scale } = state.value.group;
      const sample = t2i.sampleOf(state);
      box.hidden = state.token === null;
      if (box.hidden) return;
      if (sample.image && photo.src !== sample.image) photo.src = sample.image;
      t2i.paint(heat, sample, grid, scale, state.map, state.look, true);
      const seen = grid.map((tokens) => Math.min(tokens, Math.min(...grid) < 12 ? 3 : 7));
      const [row, column] = [Math.floor(state.token / grid[1]), state.token % grid[1]];
      const [top, left] = [row, column].map((one, i) => Math.max(0, Math.min(grid[i] - seen[i], one - (seen[i] - 1) / 2)));
      for (const [canvas, source, width, height] of [
        [canvases[0], photo, photo.naturalWidth, photo.naturalHeight],
        [canvases[1], heat, heat.width, heat.height],
      ]) {
        canvas.hidden = !width || heat.hidden;
        if (canvas.hidden) continue;
        const [x, y] = [width / grid[1], height / grid[0]];
        const tall = Math.round((LOUPE * seen[0] * y) / (seen[1] * x));
        if (canvas.height !== tall) canvas.height = tall;
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = width > 200;
        context.drawImage(source, left * x, top * y, seen[1] * x, seen[0] * y, 0, 0, LOUPE, canvas.height);
        const [wide, high] = [LOUPE / seen[1], canvas.height / seen[0]];
        for (const [line, colour] of [[7, "#11141b"], [3, "#ffffff"]]) {
          [context.lineWidth, context.strokeStyle] = [line, colour];
          // at an edge of the canvas inside of it, or half of the line would be cut
          const [x1, y1] = [Math.max(4, (column - left) * wide), Math.max(4, (row - top) * high)];
          const [x2, y2] = [Math.min(LOUPE - 4, (column - left + 1) * wide), Math.min(canvas.height - 4, (row - top + 1) * high)];
          context.strokeRect(x1, y1, x2 - x1, y2 - y1);
        }
      }
    };
    return { box, refresh: update };
  };
})();
