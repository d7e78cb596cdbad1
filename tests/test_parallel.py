"""Several workers: the weights of one, the bytes of the formulas, and nothing lost on the way."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.schema import validate
from tasks.ledger.machine import Machine, room
from tasks.ledger.predict import plan
from tasks.ledger.predict.constants import BASE_MEMORY_BYTES
from tasks.ledger.predict.text import Text
from tasks.ledger.scores import NONE
from tasks.optimizers.adamw import AdamW
from tasks.params import Params, override
from tasks.training.parallel import Parallel
from tasks.training.parallel.formula import NUMBER_BYTES, step_bytes, total_bytes
from tasks.training.parallel.refused import refusals
from tests.models import MACHINE
from tests.parallel_cases import CASES, RESUMED, RUNS, STEPS
from tests.torchrun import torchrun

EXACT = ("ddp", "zero1", "zero2", "zero3", "ddp, in parts", "zero2, in parts", "zero3, in parts")
"""Ways that compute one process's step: what is left is the order of additions."""

TOLERANCE = 1e-4
"""Of a weight after six steps at a learning rate of 0.01: Adam divides gradients near zero by themselves."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two workers have gone through every case."""
    folder = tmp_path_factory.mktemp("cases")
    done = torchrun(2, "tests.parallel_cases", str(folder))
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def weights(folder: Path, name: str = "weights") -> dict[str, Any]:
    """What a case has trained."""
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / f"{name}.safetensors")
    return found


def metrics(folder: Path) -> dict[str, float]:
    """What a case has counted."""
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return found


def losses(folder: Path) -> list[float]:
    """The whole batch's loss at every step."""
    with (folder / "work" / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_the_weights_are_one_process_s(ran: Path, case: str) -> None:
    """Rows with unequal numbers of labels, clipped by the global norm: every strategy ends at one process's weights."""
    one, several = weights(ran / "one"), weights(ran / case)
    assert max(float((one[name] - several[name]).abs().max()) for name in one) < TOLERANCE
    assert losses(ran / case) == pytest.approx(losses(ran / "one"), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in RUNS if case != "one"])
def test_counted_bytes_are_the_formula_s(ran: Path, case: str) -> None:
    """Bytes of the collectives that ran, and of the formula: equal to the last one."""
    name, parts = RUNS[case]
    shapes = [tuple(tensor.shape) for tensor in weights(ran / "one").values()]
    parallel = Parallel(nproc_per_node=2, **CASES[name])
    assert metrics(ran / case)["communication_bytes/training"] == total_bytes(parallel, shapes, STEPS, parts)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "one"])
def test_every_way_learns(ran: Path, case: str) -> None:
    """Compressed gradients and rare meetings too: the loss falls."""
    found = losses(ran / case)
    assert found[-1] < found[0] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_interrupted_workers_go_on_bit_for_bit(ran: Path, case: str) -> None:
    """From a checkpoint of whole tensors, with PowerSGD's errors and DiLoCo's momentum, come the very same weights."""
    straight, resumed = weights(ran / case), weights(ran / case, "resumed")
    assert all(straight[name].equal(resumed[name]) for name in straight)


@pytest.mark.slow
def test_one_process_goes_on_where_shards_stopped(ran: Path) -> None:
    """Checkpoints hold whole tensors: another number of workers ends at the same weights."""
    one, alone = weights(ran / "one"), weights(ran / "zero3", "alone")
    assert max(float((one[name] - alone[name]).abs().max()) for name in one) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("case", ["zero1", "zero2", "zero3"])
def test_shards_hold_half_of_the_optimizer(ran: Path, case: str) -> None:
    """With two workers, each keeps about half of the optimizer's state."""
    assert metrics(ran / case)["optimizer_bytes"] == pytest.approx(
        metrics(ran / "one")["optimizer_bytes"] / 2, rel=0.05
    )


def test_formulas() -> None:
    """ZeRO's factors for four workers (arXiv:1910.02054, section 7), halved by fp16, divided by DiLoCo's steps."""
    size = NUMBER_BYTES * 64 * 64
    expected = {"ddp": 2, "zero1": 3, "zero2": 2, "zero3": 3, "fsdp": 3}
    for strategy, times in expected.items():
        assert step_bytes(Parallel(nproc_per_node=4, strategy=strategy), [(64, 64)]) == times * size * 3 / 4
    assert step_bytes(Parallel(nproc_per_node=4, comm_hook="fp16"), [(64, 64)]) == size * 3 / 4
    assert step_bytes(Parallel(nproc_per_node=4, sync_every=8), [(64, 64)]) == 2 * size * 3 / 4 / 8


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("one", "powersgd")])
def test_prediction_is_the_formula_of_the_real_tensors(case: str) -> None:
    """From `params.yaml` alone, what the workers of pretraining send is what the built model's shapes give."""
    from tasks.models.load import new_model

    changes = {f"pretrain.parallel.{name}": value for name, value in CASES[case].items()}
    chosen = {"pretrain.parallel.nproc_per_node": 2, "pretrain.eval_every": 10**6, "design.llama.hidden_size": 64}
    params = validate(Params, override(Params().model_dump(mode="json"), chosen | changes))
    predicted = plan(params, MACHINE, Text(bytes=8000, documents=40), NONE, stages=("pretrain",))["pretrain"]
    shapes = [
        tuple(p.shape)
        for p in new_model(params.design.technique.config(params.data.tokenizer.train.vocab_size), seed=0).parameters()
    ]
    found = predicted["communication_bytes_per_step"]
    assert found.value == pytest.approx(step_bytes(params.pretrain.parallel, shapes), rel=1e-3)
    assert found.method == "modelled"


def peak_of(machine: Machine = MACHINE, **parallel: Any) -> tuple[float, str]:
    """Predicted memory of pretraining under these parameters, in MiB, and its note."""
    changes = {f"pretrain.parallel.{name}": value for name, value in parallel.items()}
    params = validate(Params, override(Params().model_dump(mode="json"), changes))
    text = Text(bytes=800_000, documents=40)
    found = plan(params, machine, text, NONE, stages=("pretrain",))["pretrain"]["peak_memory_bytes"]
    assert found.value is not None
    return found.value / (1 << 20), found.note


def test_memory_of_one_machine_is_that_of_all_its_workers() -> None:
    """Libraries and weights are there once a worker, activations once in all; what is sharded weighs less."""
    base = BASE_MEMORY_BYTES["pretrain"] / (1 << 20)
    one, two, four = (peak_of(nproc_per_node=count)[0] for count in (1, 2, 4))
    assert base < two - one < four - two < 2 * (two - one) + 2 * base
    assert four > one + 3 * base
    stages = [peak_of(nproc_per_node=4, strategy=f"zero{stage}")[0] for stage in (1, 2, 3)]
    assert four > stages[0] > stages[1] > stages[2] > 4 * base
    note = peak_of(nproc_per_node=4, strategy="zero3")[1]
    assert note.startswith("4 workers of one machine together")
    assert "zero3 shares" in note
    here = peak_of(nproc_per_node=2, nnodes=2, rdzv_endpoint="first:29400")[0]
    assert here < two


def test_workers_with_graphics_cards_have_a_memory_each() -> None:
    """The card's memory is what a worker must fit into, however many there are; stages that train on none need the host's."""
    card = replace(MACHINE, device="cuda", memory_bytes=24 << 30)
    assert peak_of(card, nproc_per_node=4)[0] < peak_of(card, nproc_per_node=1)[0] + 200
    assert peak_of(card, nproc_per_node=4)[1].startswith("one worker")
    assert room("pretrain", card) == (24 << 30, "a graphics card of this machine")
    assert room("data", card)[1] == room("pretrain", MACHINE)[1] == "this machine"


class Whole(AdamW):
    """An optimizer that needs whole tensors."""

    elementwise = False


class InBackward(AdamW):
    """An optimizer that updates in the backward pass."""

    in_backward = True


@pytest.mark.parametrize(
    ("changes", "batch_size", "optimizer", "named"),
    [
        ({"nproc_per_node": 3}, 16, AdamW(), "pretrain.batch_size"),
        ({"nproc_per_node": 2, "strategy": "zero3"}, 16, Whole(), "pretrain.parallel.strategy"),
        ({"nproc_per_node": 2, "strategy": "zero3", "comm_hook": "fp16"}, 16, AdamW(), "pretrain.parallel.comm_hook"),
        ({"nproc_per_node": 2, "sync_every": 4, "comm_hook": "fp16"}, 16, AdamW(), "pretrain.parallel.sync_every"),
        ({"nproc_per_node": 2, "sync_every": 4, "strategy": "zero1"}, 16, AdamW(), "pretrain.parallel.sync_every"),
        ({"nproc_per_node": 2}, 16, InBackward(), "pretrain.optimizer.method"),
        ({"node_rank": 1}, 16, AdamW(), "pretrain.parallel.node_rank"),
        ({"strategy": "zero1"}, 16, AdamW(), "pretrain.parallel.strategy"),
        ({"comm_hook": "bf16"}, 16, AdamW(), "pretrain.parallel.comm_hook"),
        ({"sync_every": 8}, 16, AdamW(), "pretrain.parallel.sync_every"),
    ],
)
def test_what_can_t_work_is_refused_by_name(
    changes: dict[str, Any], batch_size: int, optimizer: AdamW, named: str
) -> None:
    """One sentence, which begins with the parameter."""
    (sentence,) = refusals(Parallel(**changes), batch_size, optimizer)
    assert sentence.startswith(named)
    assert "found" in sentence or "updates before" in sentence


def test_the_default_is_not_refused() -> None:
    """One worker, and two of every strategy."""
    assert not list(refusals(Parallel(), 1, AdamW()))
    for name in CASES:
        assert not list(refusals(Parallel(nproc_per_node=2, **CASES[name]), 16, AdamW()))
