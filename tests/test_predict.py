"""Predictions: exact arithmetic beside torch's and peft's own counts, and a plan for every preset."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.ledger.machine import Machine
from tasks.ledger.predict import STAGES, plan
from tasks.ledger.predict.subject import bytes_per_token, config_for
from tasks.ledger.report import to_json
from tasks.params import Params, flatten, override
from tests.models import MACHINE

ROOT = Path(__file__).parents[1]


def params(**assignments: Any) -> Params:
    """Default parameters with a few changed (dots written as two underscores), reading a text that is there."""
    dotted = {name.replace("__", "."): value for name, value in assignments.items()}
    start = {"data.source": str(ROOT / "data" / "stdlib.yaml")}
    return validate(Params, override(Params().model_dump(mode="json"), start | dotted))


def value(predicted: dict[str, Any], stage: str, name: str) -> float:
    """One predicted figure, known."""
    found = predicted[stage][name].value
    assert found is not None
    return float(found)


def test_more_steps_cost_more_of_everything() -> None:
    """Twice the steps: twice the FLOPs and training time, more joules and dollars; memory stays."""
    one, two = plan(params(pretrain__steps=300), MACHINE), plan(params(pretrain__steps=600), MACHINE)
    assert value(two, "pretrain", "flops") == pytest.approx(2 * value(one, "pretrain", "flops"))
    assert value(two, "pretrain", "training_seconds") == pytest.approx(2 * value(one, "pretrain", "training_seconds"))
    for name in ("wall_seconds", "cpu_seconds", "energy_joules", "dollars", "carbon_kg_co2e"):
        assert value(two, "pretrain", name) > value(one, "pretrain", name)
    assert value(two, "pretrain", "peak_memory_bytes") == value(one, "pretrain", "peak_memory_bytes")
    assert two["data"] == one["data"]


def test_no_steps_cost_no_training() -> None:
    """Zero steps predict zero FLOPs and no trainable weights, and still an evaluation."""
    none = plan(params(pretrain__steps=0, finetune__steps=0), MACHINE)
    for stage in ("pretrain", "finetune"):
        assert value(none, stage, "flops") == 0
        assert "training_seconds" not in none[stage]
        assert value(none, stage, "wall_seconds") > 0
    assert "adapter_bytes" not in none["finetune"]


def test_an_adapter_is_cheaper_than_full_training() -> None:
    """LoRA: fewer FLOPs, less optimizer, less to deliver."""
    adapter, full = plan(params(), MACHINE), plan(params(finetune__method="full"), MACHINE)
    for name in ("flops", "optimizer_bytes", "delivery_bytes", "trainable_parameters"):
        assert value(adapter, "finetune", name) < value(full, "finetune", name)


def test_a_faster_machine_takes_less_time_for_the_same_work() -> None:
    """Rates change times and not counts."""
    fast = Machine(**{**vars(MACHINE), "gemm_flops_per_second": {"float32": 1e13, "bfloat16": 1e14}})
    slow, quick = plan(params(), MACHINE), plan(params(), fast)
    for stage in ("pretrain", "finetune", "compress", "deploy_profile"):
        assert value(quick, stage, "wall_seconds") < value(slow, stage, "wall_seconds")
        assert quick[stage]["flops"] == slow[stage]["flops"]


def test_a_graphics_card_s_energy_is_part_of_the_prediction() -> None:
    """Busy seconds of the card x its power limit, beside the processor's."""
    card = Machine(**{**vars(MACHINE), "device": "cuda", "device_watts": 300.0})
    predicted = plan(params(), card)["pretrain"]
    assert (predicted["energy_joules/gpu"].value or 0) > 0
    assert "power limit" in predicted["energy_joules"].note


@pytest.mark.parametrize("method", ["none", "int8", "nf4", "magnitude"])
def test_compression_predicts_the_smaller_file(method: str) -> None:
    """Quantized bytes are fewer, others stay; the ratio is before by after."""
    predicted = plan(params(compress__method=method), MACHINE)
    before, after = value(predicted, "finetune", "model_bytes"), value(predicted, "compress", "model_bytes")
    assert (after < before) == (method in ("int8", "nf4"))
    assert value(predicted, "compress", "compression_ratio") == pytest.approx(before / after)


def test_every_prediction_is_modelled_known_and_in_the_vocabulary() -> None:
    """Each figure says how it was got."""
    for stage, metrics in plan(params(), MACHINE).items():
        assert {"wall_seconds", "cpu_seconds", "peak_memory_bytes", "flops", "energy_joules", "dollars"} <= set(metrics)
        for name, found in metrics.items():
            assert found.method == "modelled", (stage, name)
            assert found.value is not None, (stage, name)
            assert found.note, (stage, name)
        to_json(metrics)


def test_what_cannot_be_known_yet_is_null_with_the_reason() -> None:
    """A text or a model that isn't there is named, in every stage."""
    for assignment, named in (
        ({"data__source": "no/such/folder"}, "no/such/folder"),
        ({"design__method": "existing", "pretrain__init": "no/such/model"}, "no/such/model"),
    ):
        predicted = plan(params(**assignment), MACHINE)
        assert set(predicted) == set(STAGES)
        for metrics in predicted.values():
            assert metrics["wall_seconds"].value is None
            assert named in metrics["wall_seconds"].note


def test_a_model_whose_config_says_too_little_is_refused_in_words(tmp_path: Path) -> None:
    """A vocabulary that is nested, a config that is a list, a model not fetched yet: what is wrong, and what to do."""
    config = tmp_path / "config.json"
    given = {"design__method": "existing", "data__tokenizer__method": "pretrained", "pretrain__init": str(tmp_path)}
    config.write_text('{"model_type": "llama", "text_config": {"vocab_size": 5}}')
    with pytest.raises(UserError, match="its config has no 'vocab_size'"):
        config_for(params(**given))
    config.write_text("[1, 2]")
    with pytest.raises(UserError, match="expected an object, found list") as listed:
        config_for(params(**given))
    assert "save it again" in listed.value.hint
    descriptor = tmp_path / "model.yaml"
    descriptor.write_text("model: {repo_id: some/model}")
    with pytest.raises(UserError, match="not fetched yet") as missing:
        config_for(params(**given | {"pretrain__init": str(descriptor)}))
    assert "`leanlm run` fetches it" in missing.value.hint


def test_the_text_is_counted_before_it_is_read(tmp_path: Path) -> None:
    """Bytes of the files there are; fewer documents, less text."""
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("x" * 1000)
    (tmp_path / "picture.png").write_bytes(b"\0" * 10_000)
    source = {"data__source": str(tmp_path), "data__validation_fraction": 0.1, "data__test_fraction": 0.1}
    assert value(plan(params(**source), MACHINE), "data", "train_bytes") == pytest.approx(8000, rel=0.01)
    some = plan(params(**source, data__max_documents=5), MACHINE)
    assert value(some, "data", "train_bytes") == pytest.approx(4000, rel=0.01)


def test_a_larger_vocabulary_packs_more_text_into_a_token() -> None:
    """The interpolation is monotone and passes through its measurements."""
    rates = [bytes_per_token(size) for size in (256, 300, 400, 512, 4096, 10_000, 49_152, 200_000)]
    assert rates == sorted(rates)
    assert bytes_per_token(4096) == pytest.approx(3.39)


EVERY_PRESET = """
import sys
from pathlib import Path
from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.ledger.machine import Machine
from tasks.ledger.predict import plan
from tasks.core.schema import validate
from tasks.params import Params, flatten, override

machine = Machine({"float32": 2e11, "bfloat16": 1e12}, 3e10, 3e10, 1e9, True, 2)
for path in sorted(Path("presets").glob("*.yaml")):
    chosen = dict(flatten(read_yaml(path)))
    predicted = plan(validate(Params, override(Params().model_dump(mode="json"), chosen)), machine)
    unknown = [(s, n, v.note) for s, metrics in predicted.items() for n, v in metrics.items() if v.value is None]
    assert not unknown, (path, unknown)
    print(path.stem)
assert not {"torch", "transformers", "peft", "prefect", "mlflow"} & set(sys.modules)
"""


def test_every_preset_has_a_plan_without_torch() -> None:
    """Every figure of every preset is known from a fresh clone; nothing heavy is imported for it."""
    done = subprocess.run([sys.executable, "-c", EVERY_PRESET], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {path.stem for path in (ROOT / "presets").glob("*.yaml")}


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_gguf_file_has_the_predicted_size(kind: str) -> None:
    """Bytes of a matrix are those of the gguf library, rows that don't divide into blocks included."""
    import gguf
    from gguf.quants import quant_shape_to_byte_shape

    from tasks.ledger.predict.deploy import matrix_bytes

    rows, quantization = 10, gguf.GGMLQuantizationType[kind]
    assert matrix_bytes(rows, 70, kind) == rows * 70 * 2
    if kind == "F16":
        return
    one, columns = quant_shape_to_byte_shape((rows, 128), quantization)
    assert matrix_bytes(rows, 128, kind) == one * columns


EXACT = ("flops", "model_bytes", "adapter_bytes", "trainable_parameters", "parameters", "tokens", "checkpoint_bytes")


@pytest.mark.slow
def test_counts_are_predicted_exactly(finished: Any) -> None:
    """FLOPs, bytes and parameters of training, said before each stage of a real run, are what was counted, within 1 %."""
    for stage in ("design", "pretrain", "finetune"):
        report = json.loads((finished.root / "reports" / f"{stage}.json").read_text(encoding="utf-8"))
        for name, counted in report["metrics"].items():
            said = report["predicted"].get(name, {}).get("value")
            if name.partition("/")[0] in EXACT and said is not None:
                assert counted["value"] == pytest.approx(said, rel=0.01), f"{stage}: {name}"
    assert "the chats themselves" in report["predicted"]["flops"]["note"]


def test_what_no_hardware_multiplies_is_not_predicted_with() -> None:
    """Half-precision weights are evaluated in float32 there: the rate of bfloat16 products says nothing."""
    chosen = dict(flatten(read_yaml(ROOT / "presets" / "smollm2.yaml")))
    params = validate(Params, override(Params().model_dump(mode="json"), chosen))

    def seconds(native: bool, rate: float) -> list[float | None]:
        rates = {**MACHINE.gemm_flops_per_second, "bfloat16": rate}
        there = replace(MACHINE, native_bf16=native, gemm_flops_per_second=rates)
        return [metrics["wall_seconds"].value for metrics in plan(params, there).values()]

    assert seconds(False, 1e9) == seconds(False, 1e12)
    assert seconds(True, 1e11) != seconds(True, 1e12)
