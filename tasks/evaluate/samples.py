"""What the model writes: greedy continuations of the same prompts at every stage."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.evaluate import SAMPLES, Evaluate
from tasks.evaluate.questions import ending
from tasks.evaluate.text import read_texts
from tasks.models.chat import chat_text
from tasks.models.soft_prompt import free_positions

TEXT_PROMPTS = 2
CHAT_PROMPTS = 2
PROMPT_TOKENS = 48


@dataclass(frozen=True)
class Prompt:
    """What a model is to go on with: as shown, as token ids, and what a person answered; None where nobody asked."""

    shown: str
    ids: list[int]
    reference: str | None = None


def prompts(tokenizer: Any, data: Path) -> list[Prompt]:
    """Openings of held-out texts, and held-out questions."""
    found = []
    for text in read_texts(data)[:TEXT_PROMPTS]:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:PROMPT_TOKENS]
        found.append(Prompt(tokenizer.decode(ids), ids))
    if tokenizer.chat_template:
        found += _questions(tokenizer, data / "instructions" / "test.jsonl")
    return [prompt for prompt in found if prompt.ids]


def _questions(tokenizer: Any, path: Path) -> list[Prompt]:
    """What was asked before the first answer, as the model is asked; a chat the template refuses is passed over."""
    found: list[Prompt] = []
    with path.open(encoding="utf-8") as file:
        chats = [json.loads(line)["messages"] for line in file]
    for chat in chats:
        question = list(takewhile(lambda message: message["role"] != "assistant", chat))
        if len(found) == CHAT_PROMPTS:
            break
        with suppress(TemplateError):
            if question:
                text = chat_text(tokenizer, question, add_generation_prompt=True)
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                answer = chat[len(question)]["content"] if len(question) < len(chat) else None
                found.append(Prompt(question[-1]["content"], ids, answer))
    return found


def write_samples(model: Any, tokenizer: Any, data: Path, out: Path, params: Evaluate) -> None:
    """Write `samples.json` into `out`: [{"prompt", "text"}], of questions "reference" as well: the answer that was given."""
    import torch

    limit = free_positions(model)
    ends = ending(tokenizer) if tokenizer.chat_template else [tokenizer.eos_token_id]
    rows = []
    for prompt in prompts(tokenizer, data):
        kept = prompt.ids[-(limit - params.sample_tokens) :] if limit > params.sample_tokens else prompt.ids[-1:]
        inputs = torch.tensor([kept], device=model.device)
        with torch.inference_mode():
            made = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(params.sample_tokens, limit - len(kept)),
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=tokenizer.eos_token_id,
            )
        row = {"prompt": prompt.shown, "text": tokenizer.decode(made[0, len(kept) :], skip_special_tokens=True)}
        rows.append(row if prompt.reference is None else row | {"reference": prompt.reference})
    (out / SAMPLES).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
