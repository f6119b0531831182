// An address for everything: what is shown stands behind the # of the page's address, so that reload, Back and a copied link show
// the same. Values from there are texts of anybody: they choose among what is there, and enter the page as text only.
(() => {
  const t2i = window.t2i;
  const LONGEST = 4000; // letters of one value

  const read = () =>
    Object.fromEntries([...new URLSearchParams(location.hash.slice(1))].map(([name, value]) => [name, value.slice(0, LONGEST)]));

  // Changes some of it; null takes a value away. `step` = a new entry for Back.
  const write = (changes, step = false) => {
    const found = { ...read(), ...changes };
    const told = new URLSearchParams(Object.entries(found).filter(([, value]) => value !== null && value !== undefined && value !== ""));
    const hash = "#" + told.toString();
    if (hash === location.hash || (hash === "#" && !location.hash)) return;
    history[step ? "pushState" : "replaceState"](null, "", hash === "#" ? location.pathname + location.search : hash);
  };

  // What a form says (see links.py): {name: its beginning}, and the values now; a word that is typed is written when it is over.
  const WAIT = 300; // ms
  let waiting = null;
  const told = (value) => (Array.isArray(value) ? value.map((one) => String(one).replace(/[%,]/g, encodeURIComponent)).join(",") : value);
  const form = (beginning, values) => {
    const changes = Object.entries(beginning).map(([name, first], i) => {
      const [now, before] = [told(values[i] ?? ""), told(first ?? "")];
      return [name, String(now) === String(before) ? null : now];
    });
    clearTimeout(waiting);
    waiting = setTimeout(() => write(Object.fromEntries(changes)), WAIT);
  };

  // ready: the tab that the address names is open; until then the one that the page begins with is not what anybody chose.
  t2i.address = { read, write, form, still: false, ready: false };

  const OF_A_GROUP = { step: null, prompt: null, sample: null, token: null };
  const number = (text) => (text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined);

  // What the maps are to show first, from the address; and what they show, to the address.
  t2i.address.maps = () => {
    const { run, step, prompt, sample, token, map, palette } = read();
    return { run, step: number(step), prompt, sample: number(sample), token: number(token), map, palette };
  };
  t2i.address.tell = (state) => {
    if (t2i.address.still) return;
    const { group, run, steps } = state.value;
    const kind = t2i.MAPS[state.map].palette;
    write({
      run,
      step: group.step === steps.at(-1) && state.prompt === undefined ? null : group.step,
      prompt: group.prompt,
      sample: t2i.sampleOf(state).place,
      token: state.pinned ? state.token : null,
      map: state.map,
      palette: state.look.chosen[kind],
    });
  };

  // Another run or tab is a step for Back.
  t2i.address.choose = (changes) => {
    if ("tab" in changes && !t2i.address.ready) return;
    const before = read();
    const other = Object.entries(changes).some(([name, value]) => (before[name] ?? null) !== value);
    if (other) write({ ...("run" in changes && before.run ? OF_A_GROUP : {}), ...changes }, "tab" in before || "run" in before);
  };

  const tabs = () => [...document.querySelectorAll('#tabs [role="tab"]')];
  const open = (tab) => tabs().find((one) => one.textContent.trim() === tab)?.click();

  // A hidden component: its value says that the page is ready; event "go" asks for another run.
  t2i.links = (element, props, trigger, watch) => {
    const names = () => props.value?.tabs ?? {};
    const show = (ready) => {
      const { tab } = read();
      t2i.address.ready = true;
      if (!ready.tabs) return;
      if (tab in ready.tabs) return open(ready.tabs[tab]);
      const now = tabs().find((one) => one.ariaSelected === "true")?.textContent.trim(); // clicked before this
      write({ tab: Object.keys(ready.tabs).find((name) => ready.tabs[name] === now && name !== "training") }, true);
    };
    t2i.follow(props, watch, show);
    window.addEventListener("popstate", () => {
      t2i.address.still = true; // until the maps that were asked for are there
      const { run, tab } = read();
      t2i.kept = t2i.address.maps();
      t2i.wanted = t2i.address.maps();
      trigger("go", { run });
      open(names()[tab ?? "training"]);
    });
  };

  t2i.copyLink = async (button) => {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "copied";
    } catch {
      window.prompt("The link to what is shown", location.href); // no clipboard without TLS
    }
    setTimeout(() => (button.textContent = said), 1500);
  };

  // At once, before the first answer comes.
  t2i.kept = t2i.address.maps();
  t2i.wanted = t2i.address.maps();
})();
