"""What data and design leave for pretraining, tiny, and no model to start from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.models import TEXTS, config, tokenizer


def make(folder: Path) -> dict[str, Path]:
    """Folders of the stage by argument."""
    data, design, init = folder / "data", folder / "design", folder / "init"
    for made in (data / "instructions", design, init):
        made.mkdir(parents=True)
    tokens = tokenizer()
    tokens.save_pretrained(data / "tokenizer")
    ids = tokens("".join(TEXTS * 20))["input_ids"]
    for name in ("train", "validation"):
        np.array(ids, dtype="<u2").tofile(data / f"{name}.bin")
    (data / "shards.json").write_text(json.dumps({"dtype": "<u2"}))
    (data / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    (data / "instructions" / "test.jsonl").write_text("")
    (design / "blueprint.json").write_text(json.dumps(config()))
    return {"data": data, "design": design, "init": init}
