"""params.yaml: what is rendered is what is read, and what isn't a parameter is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import params
from tasks.core.errors import UserError
from tasks.params import Params

VALUES = Params().model_dump(mode="json")


@pytest.mark.parametrize("source", ["data/mine", 'a "quoted" #name', "/data/😀/äöü", "back\\slash", "null"])
def test_rendered_is_read_again(tmp_path: Path, source: str) -> None:
    """Whatever a value holds, the rendered file gives it back."""
    path = tmp_path / "params.yaml"
    wanted = Params.model_validate(params.override(VALUES, {"data.source": source}))
    path.write_text(params.render(wanted), encoding="utf-8")
    assert params.load(path) == wanted


def test_rendering_is_stable() -> None:
    """Defaults render as they do once they have been written and read: an edit elsewhere changes no other line."""
    assert params.render(Params()) == params.render(Params.model_validate(VALUES))


def test_overriding_leaves_the_rest() -> None:
    """One value changes, and the values handed in are not touched."""
    changed = params.override(VALUES, {"finetune.lora.r": 16})
    assert changed["finetune"]["lora"]["r"] == 16
    assert VALUES["finetune"]["lora"]["r"] == 8
    differing = dict(set_of(changed) ^ set_of(VALUES))
    assert set(differing) == {"finetune.lora.r"}


def set_of(values: dict[str, object]) -> set[tuple[str, str]]:
    """Names and values."""
    return {(name, repr(value)) for name, value in params.flatten(values)}


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ({"finetune.lora.rank": 4}, "finetune.lora.rank: unknown parameter"),
        ({"finetune.lora": 5, "finetune.lora.r": 3}, "lora is a section"),
    ],
)
def test_what_is_no_parameter_is_refused(assignments: dict[str, object], said: str) -> None:
    """The dotted name and what is wrong with it."""
    with pytest.raises(UserError, match=said):
        params.override(VALUES, assignments)


@pytest.mark.parametrize(
    ("text", "said"), [(b"seed: [", "not valid YAML"), (b"\xff\xfe", "not UTF-8"), (b"- 1\n", "expected a mapping")]
)
def test_damaged_files_are_named(tmp_path: Path, text: bytes, said: str) -> None:
    """A file that can't be read says which and why."""
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=said):
        params.load(path)
