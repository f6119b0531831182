// The words of the page, each with a plain sentence, and its formula on request.
(() => {
  const t2i = window.t2i;

  // name: [sentence, formula]
  const TERMS = {
    group: ["Several samples of one prompt. They are compared with each other, so a prompt that is easy gains nothing by it.", "G samples x₁ … x_G of one prompt, rewards R₁ … R_G"],
    advantage: ["How much better a sample is than the others of its group. Above 0 it is to become likelier, below 0 less likely.", "A_i = (R_i − mean R) / (std R + ε)"],
    credit: ["How much each token counts when its sample is pushed. 1 is the average token; plain GRPO gives every token 1.", "w_t ≥ 0, mean over t = 1"],
    "token advantage": ["What the update pushes at one place: the sample's advantage times the token's credit.", "A_{i,t} = A_i · w_{i,t}"],
    token: ["One piece of what the model makes: each square of a map is one token of a picture, each coloured word or part of one a token of an answer. The model draws them one after another.", "x = x₁ … x_T, T = rows × columns"],
    code: ["Which of the model's pieces a token is: its number in the codebook, the list of pieces that pictures are made of.", "x_t in 0 … V − 1"],
    "log p": ["The logarithm of the probability that the model gave a token when it was drawn: 0 is certain, −1 about 37%, −7 one in a thousand.", "log p(x_t | x_1 … x_{t−1}, prompt)"],
    nats: ["The unit of logarithms with base e: a difference of 1 nat is 2.7 times as likely, of 0.7 twice.", "ln p"],
    evidence: ["How strongly the two prompts disagree on a token, whichever of them it fits: from this the credit is made. In the table it is the column contrast.", "k3: e^d − d − 1 at most 10, with d = log p(x_t | negative) − log p(x_t | prompt); credit.kind may say another"],
    probe: ["A prompt that comes back at every recorded step with the same random numbers, so that its pictures show how the model changed.", "log.probes"],
    "null prompt": ["The model's own empty prompt, with which it draws without being asked for anything. An empty text is another prompt.", ""],
    contrast: ["How much likelier a token is under the prompt than under the negative prompt. Where both agree it is 0.", "c_t = log p(x_t | prompt) − log p(x_t | negative)"],
    "value change": ["What a token did to the reward that the critic expects of the picture: below 0 it went wrong here. The critic is a small network that learns from rewards of unfinished pictures.", "V(x₁ … x_t) − V(x₁ … x_{t−1}), in units of reward"],
    "reward map": ["Where the judge looked: above 0 a token raised the reward, below 0 it lowered it. How that is found out, the run's reward says under map.", "gradient: (z_t − mean z) · ∂R/∂z_t; occlusion and redraw: R − R without the tokens; objects: right minus wrong ones"],
    "negative prompt": ["The text that the prompt is held against: an opposite, or the model's own null prompt. Sampling is guided away from it.", "guided logits = negative + scale · (prompt − negative)"],
    entropy: ["How undecided the model was about a token before it drew it. 0 means that only one token was possible.", "H_t = −Σ_v p(v) log p(v), in nats"],
    "clip fraction": ["The share of tokens whose probability has moved so far that the update leaves them alone.", "share of t with |p_new / p_old − 1| beyond the clip range"],
    auroc: ["How well a map tells prompted objects from the rest: 0.5 is guessing, 1 is perfect.", "P(credit on an object's token > credit elsewhere)"],
    mass: ["How much of all credit lies on the prompted objects, from 0 to 1. Even credit has as much there as the objects take of the picture: see area.", "Σ_{t on objects} w_t / Σ_t w_t"],
    area: ["Which share of all tokens lies on the prompted objects: the mass that even credit would have.", "tokens on objects / T"],
    "pass@k": ["The share of prompts of which at least one of the k images is correct.", "k = images of a prompt"],
    partial: ["As correct, but of each image counts the share of the checks that it passed.", "mean of passed checks / checks"],
    pointing: ["How often the token with the most credit lies on a prompted object.", "share of images whose argmax_t w_t is on an object"],
  };

  // A "?" that tells what a word means; null for a word that needs none.
  t2i.term = (name) => {
    if (!Object.hasOwn(TERMS, name)) return null;
    const button = t2i.el("button", { type: "button", class: "term", "aria-label": `what is ${name}?` });
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      event.preventDefault();
      tell(button, name);
    });
    return button;
  };

  // What the server wrote has such buttons too: <button class="term" data-term="...">.
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.(".term[data-term]");
    if (button && Object.hasOwn(TERMS, button.dataset.term)) tell(button, button.dataset.term);
  });

  const tell = (button, name) => {
    if (button.told?.isConnected) return button.told.hidePopover();
    const [says, formula] = TERMS[name];
    const more = formula ? t2i.el("details", {}, t2i.el("summary", {}, "formula"), t2i.el("code", {}, formula)) : null;
    const box = t2i.el("div", { popover: "auto", class: "term-box", role: "note" }, t2i.el("b", {}, name), t2i.el("p", {}, says), more);
    button.told = box;
    box.addEventListener("toggle", (event) => event.newState === "closed" && box.remove());
    (document.querySelector(".gradio-container") ?? document.body).append(box);
    box.showPopover();
    const at = button.getBoundingClientRect();
    const width = Math.min(320, window.innerWidth - 24);
    Object.assign(box.style, {
      width: `${width}px`,
      left: `${Math.max(12, Math.min(at.left, window.innerWidth - width - 12))}px`,
      top: `${Math.min(at.bottom + 8, window.innerHeight - 160)}px`,
    });
  };

  // Which words need one, by what the page calls them.
  const LABELS = {
    "Group's mean reward": ["group"],
    Advantage: ["advantage"],
    Credit: ["credit"],
    "Token advantage": ["token advantage"],
    Contrast: ["contrast"],
    Evidence: ["evidence"],
    "log p, prompt": ["log p", "nats"],
    "log p, negative": ["negative prompt"],
    Entropy: ["entropy", "nats"],
    "Clipped tokens": ["clip fraction"],
    "Signed contrast": ["contrast"],
    "Value change": ["value change"],
    "Reward map": ["reward map"],
    "Groups without a lesson": ["group"],
    "Where the credit goes": ["credit"],
    "Credit against the truth": ["auroc", "mass", "area", "pointing"],
  };

  // A label, and a "?" for every word of it that needs one.
  t2i.explained = (label) => [label, ...(Object.hasOwn(LABELS, label) ? LABELS[label].map(t2i.term) : [])];
})();
