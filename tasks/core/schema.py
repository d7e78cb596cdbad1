"""The shape of parameters: a section, a technique, and a choice between techniques. pydantic only."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tasks.core.errors import UserError


class Section(BaseModel):
    """A block of params.yaml: frozen, typed, and closed to unknown keys. A field's docstring is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), validate_default=True
    )


class Technique(Section):
    """One technique of a stage. Its fields are what params.yaml may say about it, in upstream's words.

    The first line of a subclass's docstring ends with its source, e.g. `(arXiv:2106.09685)`.
    """


S = TypeVar("S", bound="Section")


class Choice(Section):
    """A block that chooses one technique by `method`; every field typed as a `Technique` is one to choose from."""

    method: str
    """Name of the technique to use."""

    @classmethod
    def techniques(cls) -> dict[str, type[Technique]]:
        """The registry: name -> class, in the order of the class body."""
        found = {}
        for name, field in cls.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Technique):
                found[name] = field.annotation
        return found

    @property
    def technique(self) -> Any:
        """The chosen technique, validated."""
        return getattr(self, self.method)

    @model_validator(mode="after")
    def _known_method(self) -> Self:
        if self.method not in self.techniques():
            raise ValueError(f"method '{self.method}' is not one of {', '.join(self.techniques())}")
        return self


def validate(section: type[S], values: Any, where: str = "") -> S:
    """Validate a block of parameters.

    Raises:
        UserError: one line per mistake: dotted path, what was found, what is allowed.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_sentence(section, where, e) for e in error.errors(include_url=False))) from None


def _sentence(section: type[Section], where: str, error: Any) -> str:
    path = ".".join(str(part) for part in (where, *error["loc"]) if str(part))
    found = error["input"]
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(section, error["loc"][:-1]))
        return f"{path}: unknown parameter; allowed here: {allowed}"
    if error["type"] == "missing":
        return f"{path}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(found, dict | list):
        return f"{path}: {message}"
    return f"{path}: found {found!r}; {message[0].lower()}{message[1:]}"


def _fields_at(section: type[Section], loc: tuple[str | int, ...]) -> list[str]:
    current: Any = section
    for part in loc:
        current = current.model_fields[str(part)].annotation
    return list(current.model_fields)
