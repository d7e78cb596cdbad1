"""A data set or a model of the Hugging Face hub, as raw input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tasks.core.errors import UserError
from tasks.params import load

T = TypeVar("T")


def _reach(what: str, fetch: Callable[[], T]) -> T:
    """Call `fetch`; whatever the hub's clients raise becomes one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return fetch()
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what}: cannot be fetched from the hub: {type(error).__name__}: {reason}",
            "check the name, the revision and the network, or name a local folder instead",
        ) from None


def make_dataset(out: Path) -> None:
    """Write the data set of `acquire.dataset` into `out` as `dataset.parquet`.

    Raises:
        UserError: unknown data set, no network.
    """
    from datasets import load_dataset

    params = load().acquire.dataset
    dataset = _reach(
        f"acquire.dataset.path '{params.path}'",
        lambda: load_dataset(params.path, params.name, split=params.split, revision=params.revision),
    )
    dataset.to_parquet(out / "dataset.parquet")


def make_model(out: Path) -> None:
    """Write the model of `acquire.model` into `out`: config, safetensors, tokenizer.

    Raises:
        UserError: unknown model, no network, or no safetensors among its files.
    """
    from huggingface_hub import snapshot_download

    params = load().acquire.model
    folder = _reach(
        f"acquire.model.repo_id '{params.repo_id}'",
        lambda: snapshot_download(
            params.repo_id,
            revision=params.revision,
            allow_patterns=["*.json", "*.safetensors", "tokenizer*", "merges.txt", "*.jinja"],
        ),
    )
    shutil.copytree(folder, out, dirs_exist_ok=True)
    if not any(out.glob("*.safetensors")):
        raise UserError(f"acquire.model.repo_id '{params.repo_id}': the repository holds no safetensors")
