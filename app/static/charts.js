// Curves and bars, drawn in place by plotly: an update changes the lines and keeps zoom, hover and hidden series. Each can be
// focused, and has its numbers as a table.
(() => {
  const t2i = window.t2i;
  const FEW = 6; // steps on an axis, up to which each has a tick
  const CONFIG = { displayModeBar: false, responsive: true };
  let loading = null;

  const library = () => {
    loading ??= new Promise((done, failed) => {
      const script = t2i.el("script", { src: "t2i/plotly.js" });
      script.onload = () => done(window.Plotly);
      script.onerror = failed;
      document.head.append(script);
    });
    return loading;
  };

  const inks = () => {
    const style = getComputedStyle(document.body);
    const [ink, line, panel, strong] = ["quiet", "hairline", "panel", "ink"].map((name) => style.getPropertyValue(`--t2i-${name}`).trim());
    return { ink, line, panel, strong };
  };

  // No tick between two steps: plotly would write 1.5.
  const apart = (one, plot) => {
    if (!one.layout.xaxis.tickformat) return {};
    const shown = plot.layout?.xaxis;
    const places = one.data.flatMap((trace) => trace.x);
    const [from, to] = shown?.autorange === false ? shown.range : [Math.min(...places), Math.max(...places)];
    return to - from < FEW ? { dtick: 1 } : {};
  };

  // A range that is no longer given would else be forgotten, and none be found in its place.
  const ranged = (axis) => ({ autorange: !axis.range, ...axis });

  // pixels; what stands below a chart must never lie on it
  const height = (one) => one.layout.height ?? (one.wide ? 310 : 205);

  const layout = (one, plot) => {
    const { ink, line, panel, strong } = inks();
    const own = one.layout;
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { size: 11 }, automargin: true, fixedrange: false };
    const named = ({ title }) => (title ? { title: { font: { size: 11.5 }, standoff: 6, ...title } } : {});
    return {
      margin: { l: 44, r: 10, t: 6, b: 30 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "IBM Plex Sans, system-ui, sans-serif", size: 12, color: ink },
      hovermode: "x unified",
      hoverlabel: { font: { size: 12, color: strong }, bgcolor: panel, bordercolor: line },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", font: { size: 11 } },
      uirevision: "kept",
      ...own,
      height: height(one),
      xaxis: { ...axis, showgrid: false, ...ranged(own.xaxis), ...named(own.xaxis), ...apart(one, plot) },
      yaxis: { ...axis, nticks: 5, ...ranged(own.yaxis), ...named(own.yaxis) },
    };
  };

  const draw = ({ plot, last }) => window.Plotly?.react(plot, last.data, layout(last, plot), CONFIG);

  t2i.charts = (element, props, watch) => {
    const root = element.querySelector(".t2i-charts");
    const known = new Map();
    const show = async (value) => {
      if (value.notice) {
        known.clear();
        return root.replaceChildren(t2i.notice(...value.notice));
      }
      await library();
      if (value !== latest) return; // overtaken while the library was loading
      if (!known.size) root.replaceChildren();
      for (const line of root.querySelectorAll(":scope > .said, :scope > .told")) line.remove();
      if (value.told) root.prepend(t2i.el("p", { class: "told" }, value.told));
      if (value.said) root.prepend(t2i.el("p", { class: "said" }, value.said));
      for (const [title, chart] of known)
        if (!value.figures.some((one) => one.title === title)) {
          chart.box.remove();
          known.delete(title);
        }
      let before = root.querySelector(":scope > .told") ?? root.querySelector(":scope > .said");
      for (const one of value.figures) {
        if (!known.has(one.title)) known.set(one.title, frame(one));
        const chart = known.get(one.title);
        // every run has its charts in the same order; what stands right is not moved, and keeps the focus
        if (chart.box.previousElementSibling !== before || !chart.box.isConnected) before ? before.after(chart.box) : root.prepend(chart.box);
        before = chart.box;
        chart.update(one);
      }
    };
    let latest = null;
    t2i.follow(props, watch, (value) => {
      latest = value;
      show(value);
    });
    new MutationObserver(() => [...known.values()].forEach(draw)).observe(document.body, { attributeFilter: ["class"] });
    new ResizeObserver(() => {
      for (const { plot } of known.values()) if (plot.offsetWidth) window.Plotly?.Plots.resize(plot);
    }).observe(root);
  };

  // A chart that stands still: its box, and what another value changes.
  const frame = (one) => {
    const says = t2i.el("p", {});
    const plot = t2i.el("div", { class: "plot", tabindex: 0, role: "img" });
    const table = t2i.el("div", { class: "numbers", tabindex: 0, role: "region", "aria-label": `numbers of ${one.title}` });
    const details = t2i.el("details", {}, t2i.el("summary", {}, "Numbers"), table);
    const box = t2i.el("section", { class: "chart" }, t2i.el("header", {}, t2i.el("h2", {}, ...t2i.explained(one.title)), says), plot, details);
    const chart = { box, plot, last: one };
    const fill = () => details.open && table.replaceChildren(numbers(chart.last));
    details.addEventListener("toggle", fill);
    // plotly keeps a press from taking the focus, and an open list would stay open
    plot.addEventListener("pointerdown", () => plot.focus({ preventScroll: true }), true);
    plot.addEventListener("keydown", (event) => walk(event, chart));
    plot.addEventListener("blur", () => window.Plotly.Fx.unhover(plot));
    chart.update = (next) => {
      box.classList.toggle("wide", next.wide);
      says.textContent = next.says;
      plot.setAttribute("aria-label", `${next.title}: ${next.says}. ${ends(next)}`);
      chart.last = next;
      plot.style.minHeight = `${height(next)}px`;
      const listening = plot.on;
      draw(chart);
      if (!listening) plot.on("plotly_relayout", () => (apart(chart.last, plot).dtick ?? undefined) !== plot.layout.xaxis.dtick && draw(chart));
      fill();
    };
    return chart;
  };

  // Arrow keys move the box with the numbers along the chart.
  const walk = (event, chart) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity, Escape: 0 }[event.key];
    const places = chart.last.data.at(-1)?.x ?? [];
    if (move === undefined || !places.length) return;
    event.preventDefault();
    if (!move) return window.Plotly.Fx.unhover(chart.plot);
    chart.at = Math.min(places.length - 1, Math.max(0, (chart.at ?? (move > 0 ? -1 : places.length)) + move));
    const place = places[chart.at];
    window.Plotly.Fx.hover(chart.plot, { xval: typeof place === "number" ? place : chart.at, yval: 0 }, "xy");
  };

  const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))).replace("-", "\u2212") : value ?? "–");

  // Where each line begins and ends, in words.
  const ends = ({ data }) =>
    data
      .filter((trace) => trace.hoverinfo !== "skip" && trace.x.length && trace.type !== "bar")
      .map(({ name, x, y }) => `${name}: ${short(y[0])} at ${short(x[0])}, ${short(y.at(-1))} at ${short(x.at(-1))}`)
      .join("; ");

  const numbers = ({ data, layout: { xaxis } }) => {
    const rows = new Map();
    data.forEach(({ x, y }, column) =>
      x.forEach((place, i) => {
        if (!rows.has(place)) rows.set(place, Array(data.length).fill(null));
        rows.get(place)[column] = y[i];
      }),
    );
    const order = [...rows].sort(([a], [b]) => (typeof a === "number" ? a - b : 0));
    const cells = (kind, texts, scope) => texts.map((text) => t2i.el(kind, { scope }, text));
    return t2i.el(
      "table",
      {},
      t2i.el("thead", {}, t2i.el("tr", {}, ...cells("th", [xaxis.title?.text ?? "", ...data.map((trace) => trace.meta ?? trace.name)], "col"))),
      t2i.el("tbody", {}, ...order.map(([place, values]) => t2i.el("tr", {}, ...cells("th", [short(place)], "row"), ...cells("td", values.map(short))))),
    );
  };
})();
