"""What the model writes: greedy continuations of the same prompts at every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.evaluate import Evaluate
from tasks.evaluate.text import read_texts

TEXT_PROMPTS = 2
CHAT_PROMPTS = 2
PROMPT_TOKENS = 48


def prompts(tokenizer: Any, data: Path) -> list[tuple[str, list[int]]]:
    """The prompts as shown and as token ids: openings of held-out texts, and held-out questions."""
    found = []
    for text in read_texts(data)[:TEXT_PROMPTS]:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:PROMPT_TOKENS]
        found.append((tokenizer.decode(ids), ids))
    path = data / "instructions" / "test.jsonl"
    chats = path.read_text(encoding="utf-8").splitlines()[:CHAT_PROMPTS]
    for line in chats:
        question = [m for m in json.loads(line)["messages"] if m["role"] != "assistant"]
        text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        found.append((question[-1]["content"], tokenizer(text, add_special_tokens=False)["input_ids"]))
    return [(shown, ids) for shown, ids in found if ids]


def write_samples(model: Any, tokenizer: Any, data: Path, out: Path, params: Evaluate) -> None:
    """Write `samples.json` into `out`: [{"prompt", "text"}]."""
    import torch

    limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20)
    rows = []
    for shown, ids in prompts(tokenizer, data):
        kept = ids[-(limit - params.sample_tokens) :] if limit > params.sample_tokens else ids[-1:]
        inputs = torch.tensor([kept], device=model.device)
        with torch.inference_mode():
            made = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(params.sample_tokens, limit - len(kept)),
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
        rows.append({"prompt": shown, "text": tokenizer.decode(made[0, len(kept) :], skip_special_tokens=True)})
    (out / "samples.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
