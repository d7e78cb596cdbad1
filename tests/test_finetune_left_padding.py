"""A text is read the same whatever is beside it in its batch, also behind virtual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.schema import validate
from tasks.evaluate import Evaluate, harness
from tasks.finetune import Finetune
from tasks.finetune.objective.grpo import Grpo
from tasks.models.adapter import mark_unmerged
from tasks.models.load import load_model, new_model, save_model
from tests.models import begun, config, job, tokenizer
from tests.preferring import SHORT, given, prepare

APART = [name for name in Finetune.techniques() if not getattr(Finetune(), name).merges]
"""Methods whose adapter stays beside the base."""


def stirred(model: Any) -> Any:
    """`model` with random numbers in everything that is trained."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    return model


def padded() -> tuple[Any, Any, Any]:
    """A short text (1, 10); a batch (2, 30) of it and a longer one, padded on the left, and the batch's mask."""
    import torch

    short, long = torch.arange(5, 15)[None], torch.arange(40, 70)[None]
    batch = torch.cat([torch.nn.functional.pad(short, (20, 0)), long])
    mask = torch.ones_like(batch)
    mask[0, :20] = 0
    return short, batch, mask


def read(model: Any, ids: Any, mask: Any) -> Any:
    """Logits of the last token, and of three that the model itself puts behind it: (4, V), of the first text."""
    import torch

    with torch.no_grad():
        last = model(input_ids=ids, attention_mask=mask).logits[:1, -1]
        more = {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0, "do_sample": False}
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, **more)
    return torch.cat([last, *(logits[:1] for logits in made.logits)])


@pytest.mark.parametrize("method", APART)
def test_padding_on_the_left_moves_nothing(tmp_path: Path, method: str) -> None:
    """Read and written alone and beside a longer text: the same logits, as trained and as loaded."""
    import torch

    save_model(new_model(config(), seed=0), tokenizer(), tmp_path)
    tuning = begun(getattr(Finetune(), method), load_model(tmp_path), base=tmp_path)
    model = stirred(tuning.model).eval()
    short, batch, mask = padded()
    alone = read(model, short, torch.ones_like(short))
    assert torch.allclose(read(model, batch, mask), alone, atol=1e-5)
    tuning.write(tmp_path / "adapter")
    mark_unmerged(tmp_path)
    loaded = load_model(tmp_path)
    assert torch.allclose(read(loaded, short, torch.ones_like(short)), alone, atol=1e-5)
    assert torch.allclose(read(loaded, batch, mask), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "changes", "size"),
    [
        ("p_tuning", {}, 4),
        ("p_tuning", {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}, 1),
        ("bottleneck", {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}, 4),
    ],
)
def test_windows_are_asked_text_by_text(tmp_path: Path, method: str, changes: dict[str, Any], size: int) -> None:
    """Padding would push virtual tokens out of an attention that sees the last so many places, and nothing else."""
    model = begun(getattr(Finetune(), method), new_model(config(**changes), seed=0)).model
    assert harness._harness(model, tokenizer(), Evaluate(batch_size=4), job(tmp_path)).batch_size == size


@pytest.mark.parametrize("method", APART)
def test_grpo_learns_from_the_model_that_answered(tmp_path: Path, method: str) -> None:
    """The log-probabilities its loss is made of are those of every row by itself, without padding."""
    import torch

    base = prepare(tmp_path)
    model = begun(validate(Finetune, {"method": method}).technique, load_model(base / "pretrain")).model
    lesson: Any = Grpo(**SHORT).lesson(given(base, tmp_path / "run", batch_size=2))
    lesson.meet(model)
    lesson.begin(stirred(model).eval())
    batch = lesson.batch(0)
    real, asked = batch.extras["real"], int(batch.extras["asked"][0])
    assert (real[:, 0] == 0).any()
    with torch.no_grad():
        found, *_ = lesson.trainer._get_per_token_logps_and_entropies(
            model, batch.inputs, real, batch.inputs.shape[1] - asked
        )
        for row, mask, said in zip(batch.inputs, real, found, strict=True):
            ids, answered = row[mask == 1], int(mask[asked:].sum())
            logits = model(input_ids=ids[None]).logits[0, -answered - 1 : -1]
            alone = logits.log_softmax(-1).gather(1, ids[-answered:, None]).squeeze(1)
            assert torch.allclose(said[:answered], alone, atol=1e-4)
