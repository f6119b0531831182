// The page around the tabs: light and dark, and files that the server sent as text.
(() => {
  const t2i = window.t2i;
  const KEY = "t2i-credit-theme";

  const dress = (dark) => document.body.classList.toggle("dark", dark);

  t2i.theme = (element) => {
    const kept = localStorage.getItem(KEY);
    if (kept) dress(kept === "dark");
    const button = element.querySelector(".theme");
    button.hidden = false; // not before it does something
    const copy = element.querySelector(".copy");
    copy.hidden = false;
    copy.onclick = () => t2i.copyLink(copy);
    button.onclick = () => {
      const dark = !document.body.classList.contains("dark");
      dress(dark);
      localStorage.setItem(KEY, dark ? "dark" : "light");
    }; // a property: the page may set it up twice
  };

  // A list that can be searched is searched from the start: what is chosen is marked, and typing replaces it.
  let entered = null;
  document.addEventListener("focusin", ({ target }) => {
    entered = target.matches('.gradio-container input[role="combobox"]') ? target : null;
    entered?.select();
  });
  document.addEventListener("input", () => (entered = null));
  document.addEventListener("click", ({ target }) => {
    if (target === entered) target.select(); // the press has put the caret somewhere
    entered = null;
  });

  t2i.handOver = (blob, name) => {
    const address = URL.createObjectURL(blob);
    const link = t2i.el("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };

  // A hidden component whose value is {name, mime, data} becomes a download.
  t2i.files = (element, props, watch) => {
    const say = element.querySelector(".t2i-said");
    t2i.follow(props, watch, (value) => {
      say.textContent = value.error ?? "";
      if (!value.data) return;
      const bytes = Uint8Array.from(atob(value.data), (letter) => letter.charCodeAt(0));
      t2i.handOver(new Blob([bytes], { type: value.mime }), value.name);
    });
  };
})();
