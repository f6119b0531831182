// The credit maps in one file: every recorded group lies in the page, and nothing is asked of a server.
(() => {
  const t2i = window.t2i;

  t2i.single = (element, pages) => {
    let heard = () => {};
    const lively = (page) => page.group.scale.advantage > 0;
    // With a group to explain credit on, where all of the step are flat: the newest step's that has one.
    const shown = (found) => {
      const flat = !pages.some((page) => page.group.step === found.group.step && lively(page));
      return flat ? { ...found, example: pages.find(lively)?.group } : found;
    };
    const props = { value: shown(pages[0]) };
    const find = ({ step, group, prompt }) => {
      const there = pages.filter((page) => page.group.step === step);
      const probe = there.find((page) => page.prompts.find((one) => one.group === page.group.number)?.probe);
      return there.find((page) => page.group.number === group) ?? there.find((page) => page.group.prompt === prompt) ?? (prompt && probe) ?? there[0];
    };
    // The likeliest other codes of a sample, if they are in the file.
    const others = ({ run, step, place }) => {
      const found = pages.flatMap((page) => (page.group.step === step ? (page.others ?? []) : [])).find((one) => one.place === place);
      return { kind: "others", run, step, place, ...(found ?? { error: "Other codes of this sample are not in this file." }) };
    };
    // One sample of a prompt at every step that is in the file.
    const through = ({ run, prompt, number }) => {
      const known = pages.filter((page) => page.group.prompt === prompt && number < page.group.samples.length);
      const found = known.sort((a, b) => a.group.step - b.group.step);
      const samples = found.map((page) => [...page.group.samples].sort((a, b) => a.place - b.place)[number]);
      return {
        kind: "through",
        run,
        prompt,
        number,
        steps: found.map((page) => page.group.step),
        places: samples.map((one) => one.place),
        advantages: samples.map((one) => one.advantage),
        rows: samples.map((one) => Array.from(t2i.floats(one.arrays.credit))),
        same: found.every((page) => page.prompts.find((one) => one.group === page.group.number)?.probe),
        known: found.length,
      };
    };
    const ANSWERS = { others, through, choose: (asked) => ({ ...shown(find(asked)), turn: asked.turn }) };
    const trigger = (event, asked) => {
      if (!ANSWERS[event]) return;
      props.value = ANSWERS[event](asked);
      queueMicrotask(heard); // as an answer comes: after the question is through
    };
    t2i.maps(element, props, trigger, (_, look) => (heard = look), []);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const dress = () => document.body.classList.toggle("dark", dark.matches);
    dark.addEventListener("change", dress);
    dress();
  };
})();
