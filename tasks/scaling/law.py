"""Loss as a function of model size and training text (arXiv:2203.15556), with the uncertainty of its fit. No torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.files import write_whole

PATH = Path("reports/scaling.json")

REPEATED_EPOCHS = 15.39
"""R* of arXiv:2305.16264, table 1: repeating text this often makes it worth e times less."""

COVERED = 0.9
"""Share of outcomes an interval is meant to hold."""


Coefficients = tuple[float, float, float, float, float]
"""(E, A, alpha, B, beta)."""


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds between which nine of ten outcomes are expected."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """bits per byte = E + A / N^alpha + B / D^beta.

    Attributes:
        E, A, alpha, B, beta: of the best fit; N counts active parameters without embeddings, D bytes of training text.
        replicas: (E, A, alpha, B, beta) of every bootstrap resample.
        residual: spread of log(measured / fitted) over the runs it was fitted to, per degree of freedom, widened so that
            1.645 of it hold nine of ten outcomes however few the runs (Student).
        source: what it was fitted to, for the note of a prediction.
        data: identity of the training text (`data_key`), "" unknown.
        family: the design family of the runs, e.g. "llama"; another one has another law. "" unknown.
        bytes_per_token: of the training text, which is what turns FLOPs into bytes.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    replicas: tuple[Coefficients, ...]
    residual: float
    source: str
    data: str = ""
    family: str = ""
    bytes_per_token: float = 1.0

    def bits_per_byte(self, parameters: float, train_bytes: float, distinct_bytes: float | None = None) -> Interval:
        """What a model of `parameters` trained over `train_bytes` is expected to reach.

        The bounds hold nine of ten outcomes: every replica's answer, blurred by the residual.

        Args:
            parameters: active ones, without embeddings.
            train_bytes: of training text the model sees, repeats included.
            distinct_bytes: of the text they are drawn from; None: nothing is seen twice.

        Raises:
            ValueError: a size that is not positive.
        """
        size, text = float(parameters), effective_bytes(train_bytes, distinct_bytes)
        if not (size > 0 and text > 0):
            raise ValueError(f"found {parameters} parameters and {train_bytes} bytes; both must be positive")
        value = loss((self.E, self.A, self.alpha, self.B, self.beta), size, text)
        spread = [math.log(loss(replica, size, text)) for replica in self.replicas] or [math.log(value)]
        tail = (1 - COVERED) / 2
        low, high = (math.exp(_quantile(spread, self.residual, share)) for share in (tail, 1 - tail))
        return Interval(value, min(low, value), max(high, value))

    def compute_optimal(self, flops: float) -> tuple[float, float]:
        """N and D that make the best of `flops`: the closed form of the fit (arXiv:2203.15556, equation 4).

        Counts 6 FLOPs per parameter and token: attention and output layer are left out, and every byte is seen once.

        Returns:
            Active parameters without embeddings, and bytes of training text.
        """
        pairs = flops * self.bytes_per_token / 6
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        size = ratio * pairs ** (self.beta / (self.alpha + self.beta))
        return size, pairs / size

    def bounds(self, name: str) -> Interval:
        """One of `E`, `alpha`, `beta`, ... with the bounds of its replicas."""
        place, value = ("E", "A", "alpha", "B", "beta").index(name), float(getattr(self, name))
        found = sorted(replica[place] for replica in self.replicas) or [value]
        last, tail = len(found) - 1, (1 - COVERED) / 2
        return Interval(value, found[round(tail * last)], found[round((1 - tail) * last)])

    def speaks_of(self, data: Path, family: str = "") -> bool:
        """Whether it was fitted to what the data stage wrote in `data`, and to `family` if one is named.

        A law that doesn't say what it was fitted to speaks of everything.
        """
        return (not family or self.family in ("", family)) and self.data in ("", data_key(data))

    @property
    def unsure(self) -> list[str]:
        """The exponents the runs hardly determine: the law interpolates then, and says little of far larger plans."""
        bounds = {name: self.bounds(name) for name in ("alpha", "beta")}
        return [name for name, found in bounds.items() if found.high - found.low > UNSURE]


UNSURE = 1.0
"""An exponent whose bounds lie further apart than this is not determined by the runs."""


def loss(law: Coefficients, parameters: float, text: float) -> float:
    """Bits per byte of one set of coefficients (E, A, alpha, B, beta)."""
    floor, a, alpha, b, beta = law
    return floor + a * math.exp(-alpha * math.log(parameters)) + b * math.exp(-beta * math.log(text))


def effective_bytes(train_bytes: float, distinct_bytes: float | None = None) -> float:
    """Bytes seen once that are worth as much as `train_bytes` drawn from `distinct_bytes` (arXiv:2305.16264, eq. 5)."""
    if not distinct_bytes or train_bytes <= distinct_bytes:
        return float(train_bytes)
    repeats = train_bytes / distinct_bytes - 1
    return distinct_bytes * (1 + REPEATED_EPOCHS * -math.expm1(-repeats / REPEATED_EPOCHS))


def _quantile(centres: list[float], width: float, share: float) -> float:
    """Quantile of a mixture of normal distributions of one width, by bisection."""
    if width <= 0:
        return sorted(centres)[round(share * (len(centres) - 1))]
    low, high = min(centres) - 6 * width, max(centres) + 6 * width
    scale = width * math.sqrt(2)
    for _ in range(40):
        middle = (low + high) / 2
        below = sum(0.5 * math.erfc((centre - middle) / scale) for centre in centres) / len(centres)
        low, high = (middle, high) if below < share else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Point:
    """One finished run.

    Attributes:
        config: sizes of the model, by the family's field names.
        parameters: N, active ones without embeddings.
        train_bytes: D, bytes of text seen.
        distinct_bytes: of the text it was drawn from.
        bits_per_byte: measured on the held-out text.
        seconds: of the optimizer steps, all attempts.
        flops: of the optimizer steps, counted.
    """

    config: dict[str, Any]
    parameters: int
    train_bytes: float
    distinct_bytes: float
    steps: int
    learning_rate: float
    bits_per_byte: float
    seconds: float
    flops: float


@dataclass(frozen=True)
class Record:
    """`reports/scaling.json`: the law, what it was fitted to, and how, when and where that ran."""

    law: Law
    points: list[Point]
    recipe: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def save(record: Record, path: Path = PATH) -> None:
    """Write a record atomically; replicas are rounded to 6 digits."""
    law = asdict(record.law)
    law["replicas"] = [[float(f"{number:.6g}") for number in replica] for replica in record.law.replicas]
    document = {**asdict(record), "law": law}
    path.parent.mkdir(parents=True, exist_ok=True)
    # lists of numbers (replicas) on one line each
    text = re.sub(r"\[[\s\d.,e+-]+\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(document, indent=1))
    write_whole(path, text + "\n")


def read(path: Path = PATH) -> Record | None:
    """The record kept last; None if there is none.

    Raises:
        UserError: the file isn't one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        law = dict(document["law"])
        law["replicas"] = tuple(_five(replica) for replica in law["replicas"])
        found = Law(**law)
        _five([found.E, found.A, found.alpha, found.B, found.beta])
        points = [Point(**point) for point in document["points"]]
        return Record(found, points, document["recipe"], document["date"], document["machine"], document["versions"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        hint = "`leanlm scale` fits it again; runs that are kept in work/scale are not trained again"
        raise UserError(f"{path}: damaged ({error!r})", hint) from None


def load(path: Path = PATH) -> Law | None:
    """The law fitted last in this project; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    found = read(path)
    return None if found is None else found.law


def _five(numbers: list[Any]) -> Coefficients:
    """Checked coefficients of one fit."""
    floor, a, alpha, b, beta = (float(number) for number in numbers)
    if not all(math.isfinite(number) for number in (floor, a, alpha, b, beta)):
        raise ValueError("a coefficient is not a number")
    return floor, a, alpha, b, beta


def data_key(data_folder: Path) -> str:
    """Identity of the text, tokenizer and held-out bytes that the data stage wrote; "" where there are none yet.

    Reads the manifest, which holds every document's hash, instead of the shards.
    """
    if not (data_folder / "shards.json").is_file():
        return ""
    digest = hashlib.sha256()
    for name in ("shards.json", "manifest.json", "heldout.jsonl", "tokenizer/tokenizer.json"):
        path = data_folder / name
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()[:16]
