"""Small language models over characters: their tokenizer, their architecture, and how a name becomes one.

Both are plain transformers objects in the Hugging Face format. Trains nothing: see t2i_credit/worlds/pretrain/text.py.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ..errors import ModelError
from . import EMBEDDED, TEXT_MODELS
from .bounds import (
    named_errors,
    require_described,
    require_floats,
    require_tokenizer,
)
from .files import read_config, require_finite, require_whole
from .templates import PROMPT, written

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
CHARACTERS = " #*+,-:=" + string.digits + string.ascii_lowercase
CONTEXT = 192  # characters of a prompt and its answer together

# A conversation is the plain text of its turns: "17+25*3:" and " 25*3=75, 17+75=92 #92", each answer ended.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ message['content'] }}{% if message['content'][-1:] != ':' %}:{% endif %}"
    "{% elif message['role'] == 'assistant' %}"
    "{% if message['content'][:1] != ' ' %} {% endif %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('roles: user and assistant') }}{% endif %}"
    "{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; a text begins with BOS, and other characters than CHARACTERS are unknown."""
    names = [PAD, BOS, EOS, UNKNOWN, *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, names.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_text_model(
    tokenizer: PreTrainedTokenizerFast, *, hidden_size: int = 128, layers: int = 4, heads: int = 4
) -> LlamaForCausalLM:
    """A Llama with random weights; the caller seeds torch."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def text_model_folder(name_or_path: str | Path) -> Path:
    """The folder of an embedded text model ("arithmetic"), or of a path.

    Raises:
        ModelError: there is no such folder, or it holds no model.
    """
    name = str(name_or_path)
    folder = EMBEDDED / name if name in TEXT_MODELS else Path(name)
    if not (folder / "config.json").is_file():
        known = ", ".join(TEXT_MODELS)
        raise ModelError(f"text model {name!r}: no folder with a config.json; embedded: {known}")
    return folder


def load_text_model(name_or_path: str | Path) -> tuple[Any, Any]:
    """A causal language model in float32, and its tokenizer; never looks beyond this machine.

    Raises:
        ModelError: there is no such folder, or it cannot be loaded.
    """
    folder = text_model_folder(name_or_path)
    config = read_config(AutoConfig, folder)
    if (folder / "tokenizer.json").is_file():
        require_tokenizer(folder / "tokenizer.json")
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    with named_errors(folder, "text model"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if files:
            require_described(
                folder / "config.json",
                lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=False),
                files,
            )
        for file in folder.glob("*.safetensors"):
            require_whole(file)
            if getattr(config, "quantization_config", None) is None:
                require_floats(file)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    require_finite(model.named_parameters(), str(folder))
    if isinstance(tokenizer.chat_template, str):
        where = folder / "chat_template.jinja"
        written(where, tokenizer.chat_template, PROMPT, tokenizer.special_tokens_map)
    return model.eval(), tokenizer
