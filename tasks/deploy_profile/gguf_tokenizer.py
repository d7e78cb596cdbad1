"""A byte-level BPE tokenizer, as llama.cpp wants it described in a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf

from tasks.core.errors import UserError
from tasks.models.load import load_tokenizer

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_ONE_DIGIT_EACH = {"type": "Digits", "individual_digits": True}

PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {"gpt-2": [_BYTE_LEVEL], "smollm": [_ONE_DIGIT_EACH, _BYTE_LEVEL]}
"""llama.cpp's name of a pre-tokenizer -> the same in tokenizer.json, as a sequence."""


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Write the tokenizer of a model folder; rows of the embedding beyond its tokens become unused ones.

    Raises:
        UserError: llama.cpp would tokenize differently.
    """
    path = folder / "tokenizer.json"
    tokenizer = load_tokenizer(folder)
    declared = json.loads(path.read_text(encoding="utf-8"))
    pre = pre_tokenizer(declared, path)
    tokens, types = _tokens(declared, vocab_size, path)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens))
    ids = special.special_token_ids
    if "eos" not in ids:
        raise UserError(f"{folder}: no eos_token, neither in config.json nor in tokenizer_config.json")
    # Left out, llama.cpp takes GPT-2's token 11 for the beginning of a text.
    ids.setdefault("bos", ids["eos"])
    probe = tokenizer("a")["input_ids"]
    special.add_special_token = {"bos": probe[0] == ids["bos"], "eos": probe[-1] == ids["eos"]}
    special.add_to_gguf(writer, quiet=True)


def pre_tokenizer(declared: dict[str, Any], path: Path) -> str:
    """llama.cpp's name of the pre-tokenizer in the contents of a tokenizer.json.

    Raises:
        UserError: no byte-level BPE, or one that splits text in a way not known here.
    """
    hint = f"supported: byte-level BPE that splits text as one of {', '.join(PRE_TOKENIZERS)}, without a normalizer"
    model = declared["model"]
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    strange = [option for option in options if model.get(option)]
    normalizer = declared.get("normalizer")
    if normalizer and normalizer.get("normalizers") != []:
        strange.append(f"normalizer {normalizer['type']}")
    kind = str(model.get("type"))
    if kind != "BPE" or strange:
        raise UserError(f"{path}: cannot be written as GGUF: found {', '.join([kind, *strange])}", hint)
    pre = declared.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    for name, known in PRE_TOKENIZERS.items():
        if len(steps) == len(known) and all(a.items() >= b.items() for a, b in zip(steps, known, strict=True)):
            return name
    raise UserError(f"{path}: cannot be written as GGUF: unknown pre-tokenizer {json.dumps(pre)[:200]}", hint)


def _tokens(declared: dict[str, Any], vocab_size: int, path: Path) -> tuple[list[str], list[gguf.TokenType]]:
    added = {token["id"]: token for token in declared.get("added_tokens", [])}
    texts = {index: text for text, index in declared["model"]["vocab"].items()}
    texts |= {index: token["content"] for index, token in added.items()}
    if max(texts) >= vocab_size:
        raise UserError(f"{path}: {max(texts) + 1} tokens, but config.json's vocab_size is {vocab_size}")
    kinds = []
    for index in range(vocab_size):
        if index in added:
            kinds.append(gguf.TokenType.CONTROL if added[index]["special"] else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL if index in texts else gguf.TokenType.UNUSED)
    return [texts.get(index, f"[PAD{index}]") for index in range(vocab_size)], kinds
