// The credit maps in one file: every recorded group lies in the page, and nothing is asked of a server.
(() => {
  const t2i = window.t2i;

  t2i.single = (element, pages) => {
    let heard = () => {};
    const props = { value: pages[0] };
    const find = ({ step, group, prompt }) => {
      const there = pages.filter((page) => page.group.step === step);
      const probe = there.find((page) => page.prompts.find((one) => one.group === page.group.number)?.probe);
      return there.find((page) => page.group.number === group) ?? there.find((page) => page.group.prompt === prompt) ?? (prompt && probe) ?? there[0];
    };
    const trigger = (event, asked) => {
      const found = event === "choose" && find(asked);
      if (!found) return;
      props.value = { ...found, turn: asked.turn };
      queueMicrotask(heard); // as an answer comes: after the question is through
    };
    t2i.maps(element, props, trigger, (_, look) => (heard = look), []);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const dress = () => document.body.classList.toggle("dark", dark.matches);
    dark.addEventListener("change", dress);
    dress();
  };
})();
