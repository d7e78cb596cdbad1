"""A data set or a model of the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tasks.acquire.maker import Maker
from tasks.core.errors import UserError

T = TypeVar("T")


class Dataset(Maker):
    """A data set of the hub (Hugging Face datasets)."""

    path: str
    """The data set's id."""
    name: str | None = None
    """Its configuration, if it has several."""
    split: str = "train"
    """The split to take; the data stage splits it anew."""
    revision: str = "main"
    """Commit, tag or branch; a commit pins it."""

    def make(self, out: Path) -> None:
        """Write `dataset.parquet`.

        Raises:
            UserError: unknown data set, no network.
        """
        from datasets import load_dataset

        dataset = _reach(
            f"data set '{self.path}'",
            lambda: load_dataset(self.path, self.name, split=self.split, revision=self.revision),
        )
        dataset.to_parquet(out / "dataset.parquet")


class Model(Maker):
    """A model of the hub, safetensors only (Hugging Face hub)."""

    repo_id: str
    """The model's id."""
    revision: str = "main"
    """Commit, tag or branch; a commit pins it."""

    def make(self, out: Path) -> None:
        """Write config, safetensors and tokenizer.

        Raises:
            UserError: unknown model, no network, or no safetensors among its files.
        """
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "tokenizer*", "merges.txt", "*.jinja"]
        folder = _reach(
            f"model '{self.repo_id}'",
            lambda: snapshot_download(self.repo_id, revision=self.revision, allow_patterns=wanted),
        )
        shutil.copytree(folder, out, dirs_exist_ok=True)
        if not any(out.glob("*.safetensors")):
            raise UserError(
                f"model '{self.repo_id}': the repository holds no safetensors at revision {self.revision}",
                "name a repo_id or revision that does; pickled weights are not read",
            )


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
