// Curves and bars, drawn in place by plotly: an update changes the lines and keeps zoom, hover and hidden series.
(() => {
  const t2i = window.t2i;
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
    return { ink: style.getPropertyValue("--t2i-quiet").trim(), line: style.getPropertyValue("--t2i-hairline").trim() };
  };

  const layout = (own, wide) => {
    const { ink, line } = inks();
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { size: 11 }, automargin: true, fixedrange: false };
    return {
      height: wide ? 300 : 190,
      margin: { l: 44, r: 10, t: 6, b: 30 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "IBM Plex Sans, system-ui, sans-serif", size: 12, color: ink },
      hovermode: "x unified",
      hoverlabel: { font: { size: 12 } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", font: { size: 11 } },
      uirevision: "kept",
      ...own,
      xaxis: { ...axis, showgrid: false, ...(own.xaxis ?? {}) },
      yaxis: { ...axis, nticks: 5, ...(own.yaxis ?? {}) },
    };
  };

  t2i.charts = (element, props, watch) => {
    const root = element.querySelector(".t2i-charts");
    const known = new Map();
    const draw = async (value) => {
      if (value.notice) {
        known.clear();
        return root.replaceChildren(t2i.notice(...value.notice));
      }
      const Plotly = await library();
      if (value !== latest) return; // overtaken while the library was loading
      if (!known.size) root.replaceChildren();
      root.querySelector(":scope > .said")?.remove();
      if (value.said) root.prepend(t2i.el("p", { class: "said" }, value.said));
      for (const [title, chart] of known)
        if (!value.figures.some((one) => one.title === title)) {
          chart.box.remove();
          known.delete(title);
        }
      for (const one of value.figures) {
        if (!known.has(one.title)) known.set(one.title, frame(root, one));
        const chart = known.get(one.title);
        chart.says.textContent = one.says;
        chart.last = one;
        Plotly.react(chart.plot, one.data, layout(one.layout, one.wide), { displayModeBar: false, responsive: true });
      }
    };
    let latest = null;
    t2i.follow(props, watch, (value) => {
      latest = value;
      draw(value);
    });
    const repaint = () => {
      for (const { plot, last } of known.values())
        window.Plotly?.react(plot, last.data, layout(last.layout, last.wide), { displayModeBar: false, responsive: true });
    };
    new MutationObserver(repaint).observe(document.body, { attributeFilter: ["class"] });
    new ResizeObserver(() => {
      for (const { plot } of known.values()) if (plot.offsetWidth) window.Plotly?.Plots.resize(plot);
    }).observe(root);
  };

  const frame = (root, one) => {
    const plot = t2i.el("div", { class: "plot" });
    const says = t2i.el("p", {});
    const box = t2i.el("section", { class: "chart" + (one.wide ? " wide" : "") }, t2i.el("header", {}, t2i.el("h3", {}, one.title), says), plot);
    root.append(box);
    return { box, plot, says };
  };
})();
