"""Language models of a few thousand random weights in the layout of the real ones, and questions for them. Holds no test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2TokenizerFast,
)
from trl import GRPOConfig

# Special tokens and templates as Qwen 2.5 and Llama 3 have them, without their system prompts.
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QUESTIONS = ("2+3", "what is 10-4", "7*6 please", "1+1")
ANSWERS = ("5", "6", "42", "2")


def _bytes_and(specials: Sequence[str]) -> dict[str, int]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: place for place, token in enumerate([*alphabet, *specials])}


def qwen_tokenizer() -> Any:
    words = Qwen2TokenizerFast(
        vocab=_bytes_and(QWEN_TOKENS),
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
    )
    words.chat_template = QWEN_CHAT
    return words


def llama_tokenizer() -> Any:
    inner = Tokenizer(models.BPE(_bytes_and(LLAMA_TOKENS), []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(LLAMA_TOKENS))
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    words.chat_template = LLAMA_CHAT
    return words


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def write_checkpoint(folder: Path, kind: str = "qwen2", *, seed: int = 0) -> Path:
    """A model folder: config.json, generation_config.json, model.safetensors, tokenizer files, chat template.

    Args:
        kind: qwen2 (tied head, biases) or llama (a head of its own).
        seed: of the weights.
    """
    words = qwen_tokenizer() if kind == "qwen2" else llama_tokenizer()
    tied = {"tie_word_embeddings": kind == "qwen2"}
    family: Any = (Qwen2Config, Qwen2ForCausalLM)
    if kind == "llama":
        family = (LlamaConfig, LlamaForCausalLM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family[1](family[0](vocab_size=len(words), **SIZES, **tied))
        with torch.no_grad():  # larger weights, so that the prompt matters to a random model
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.mul_(30 if parameter.shape[0] == len(words) else 8)
    model.generation_config = GenerationConfig(eos_token_id=words.eos_token_id)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def questions(*, spoken: bool = True, **columns: Sequence[Any]) -> Dataset:
    """Four prompts with their answers, as messages or as texts."""
    rows: list[dict[str, Any]] = []
    for place, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        prompt: Any = [{"role": "user", "content": question}] if spoken else question
        more = {name: values[place] for name, values in columns.items()}
        rows.append({"prompt": prompt, "answer": answer, **more})
    return Dataset.from_list(rows)


def text_of(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])


def shade(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that differs between nearly all random texts: the mean code point of the first eight characters."""
    texts = [text_of(c)[:8] for c in completions]
    return [sum(map(ord, text)) / 1000 / max(1, len(text)) for text in texts]


def right(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
    """1 for the answer, 0 for anything else."""
    return [float(text_of(c) == a) for c, a in zip(completions, answer, strict=True)]


class Scripted:
    """Mixed into a trainer before it: completions are given, everything else is the trainer's own.

    Attributes:
        script: what stands at each place of the batch over all processes, over and over; tokens as text, `.` at the
            end stands for the end token, without it the completion was cut off.
    """

    script: Sequence[str] = ()

    def _generate_single_turn(self: Any, prompt_ids: list[Any], *_: Any, **__: Any) -> Any:
        first = self.accelerator.process_index * len(prompt_ids)
        texts = [self.script[(first + i) % len(self.script)] for i in range(len(prompt_ids))]
        return [completion(self._tokenizer, text) for text in texts], None


def completion(words: Any, text: str) -> list[int]:
    tokens: list[int] = words(text.removesuffix("."), add_special_tokens=False)["input_ids"]
    return [*tokens, words.eos_token_id] if text.endswith(".") else tokens


def settings(folder: Path, **changed: Any) -> GRPOConfig:
    """GRPOConfig for two steps on the CPU: 2 prompts x 4 completions of at most 10 tokens."""
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 10,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 7,
    }
    return GRPOConfig(**given | changed)
