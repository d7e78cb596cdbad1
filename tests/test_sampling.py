"""Which sequences a step sees: epochs, mixtures, curricula, growing sequences, document numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import params
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.data.shards import INDEX
from tasks.pretrain.batches import Batches, Shard
from tasks.pretrain.sampling import Sampling

LENGTH, DOCUMENT, COUNT = 64, 160, 120


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """120 documents of 160 tokens in groups a, b, c; a token is its own position; later documents are harder."""
    ids = np.arange(DOCUMENT * COUNT, dtype="<u2")
    ids.tofile(tmp_path / "train.bin")
    rows = [(n * DOCUMENT, n % 3, n / COUNT) for n in range(COUNT)]
    np.save(tmp_path / "train.index.npy", np.array(rows, dtype=INDEX))
    (tmp_path / "shards.json").write_text(json.dumps({"dtype": "<u2", "groups": ["a", "b", "c"]}))
    return Shard(tmp_path, "train", LENGTH, "cpu")


def batches(shard: Shard, steps: int = 100, **sampling: Any) -> Batches:
    """Batches of 8 sequences."""
    return Batches(shard, Sampling(**sampling), 8, steps, 7)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"mixture": {"a": 3, "c": 1}},
        {"curriculum": "difficulty"},
        {"warmup_length": 32, "document_mask": True, "mixture": {"b": 1, "a": 1}, "curriculum": "length"},
    ],
)
def test_a_batch_depends_on_seed_and_step_alone(shard: Shard, sampling: dict[str, Any]) -> None:
    """A run that begins anew at step 40 sees what the first one saw; labels are the tokens that follow."""
    first, second = batches(shard, **sampling), batches(shard, **sampling)
    for step in range(40):
        first.batch(step)
    for step in (40, 41, 99):
        one, two = first.batch(step), second.batch(step)
        assert one.inputs.equal(two.inputs)
        assert one.labels.equal(one.inputs + 1)
        assert one.inputs.numel() == 8 * LENGTH


def test_every_sequence_once_per_epoch(shard: Shard) -> None:
    """Without a mixture an epoch is a permutation, and the next is another."""
    made, count = batches(shard), shard.sequences
    seen = [index for step in range(-(-2 * count // 8)) for index in made.indices(step)]
    assert sorted(seen[:count]) == sorted(seen[count : 2 * count]) == list(range(count))
    assert seen[:count] != seen[count : 2 * count]


def test_mixture_draws_by_weight(shard: Shard) -> None:
    """Groups come as often as their weights say, within a deck's rounding; each goes through its own epochs."""
    made = batches(shard, mixture={"a": 3, "c": 1})
    seen = [index for step in range(128) for index in made.indices(step)]
    groups = Counter(int(shard.index["group"][shard.documents[index]]) for index in seen)
    assert set(groups) == {0, 2}
    assert groups[0] == pytest.approx(768, abs=2)
    times = Counter(index for index in seen if shard.index["group"][shard.documents[index]] == 0)
    assert max(times.values()) - min(times.values()) <= 1


def test_mixture_refuses_what_is_not_there(shard: Shard) -> None:
    """An unknown group is refused with those there are; a weight of nothing too."""
    with pytest.raises(UserError, match="group 'z'") as refused:
        batches(shard, mixture={"z": 1})
    assert "a, b, c" in str(refused.value.hint)
    with pytest.raises(UserError, match="above 0"):
        batches(shard, mixture={"a": 0})


def test_curriculum_begins_easy_and_ends_with_everything(shard: Shard) -> None:
    """The first step holds the easiest tenth only; after its share of the steps every sequence may come."""
    made = batches(shard, curriculum="difficulty", curriculum_fraction=0.5)
    assert max(made.indices(0)) <= 0.1 * shard.sequences + 3
    hardest = [max(shard.documents[made.indices(step)]) for step in range(100)]
    assert max(hardest[:10]) < max(hardest[50:]) == COUNT - 1


def test_sequences_grow_at_constant_tokens(shard: Shard) -> None:
    """Lengths divide the full one and never shrink; the tokens of a step are those it has without growing."""
    growing, plain = batches(shard, warmup_length=32, warmup_fraction=0.3), batches(shard)
    lengths = [growing.batch(step).inputs.shape[1] for step in range(100)]
    assert lengths == sorted(lengths)
    assert set(lengths) == {32, 64}
    assert lengths[29:31] == [32, 64]
    for step in (0, 60):
        assert growing.batch(step).inputs.flatten().equal(plain.batch(step).inputs.flatten())
    with pytest.raises(UserError, match="32, 64"):
        batches(shard, warmup_length=48)


def test_document_numbers_change_where_documents_do(shard: Shard) -> None:
    """The number changes exactly at the first token of a document."""
    batch = batches(shard, document_mask=True).batch(3)
    numbers = batch.extras["documents"]
    assert numbers.shape == batch.inputs.shape
    steps = numbers[:, 1:] - numbers[:, :-1]
    assert steps.equal((batch.inputs[:, 1:] % DOCUMENT == 0).long())
    assert "documents" not in batches(shard).batch(3).extras


def test_shards_without_index_are_refused(shard: Shard) -> None:
    """Shards of an older version do for plain epochs; a mixture names the file it misses."""
    (shard.data / "train.index.npy").unlink()
    batches(shard).batch(0)
    with pytest.raises(UserError, match=r"train\.index\.npy"):
        batches(shard, mixture={"a": 1})


def test_a_mixture_survives_params() -> None:
    """A mapping may be set whole or key by key, dots in a key included; flattened and set again it is the same."""
    values = params.Params().model_dump(mode="json")
    name = "pretrain.sampling.mixture"
    whole = params.override(values, {name: {"json": 2.0, "a.jsonl": 1.0}})
    assert params.override(values, {f"{name}.json": 2.0, f"{name}.a.jsonl": 1.0}) == whole
    assert params.override(values, dict(params.flatten(whole))) == whole
    made = validate(params.Params, whole)
    assert made.pretrain.sampling.mixture == {"json": 2.0, "a.jsonl": 1.0}
    assert '{"json": 2.0, "a.jsonl": 1.0}' in params.render(made)
