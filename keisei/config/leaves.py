"""The values of a config one by one: where each stands, its default, and what its field says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from keisei.config.layers import Given, Path, Tree
from keisei.errors import quoted

Verdict = Literal["free", "warn", "refuse"]

_DEEPEST = 64


@dataclass(frozen=True)
class OnChange:
    """Field metadata: what a resume does where the value is not the earlier attempt's.

    It stands in an annotation, `Annotated[int, OnChange("refuse")]`, and holds for all that is
    below the field, unless a field there has one of its own.

    Args:
        verdict: `free` says nothing, `warn` logs a warning, `refuse` refuses the resume.

    Raises:
        ValueError: the verdict is none of these.
    """

    verdict: Verdict

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ValueError(
                f"OnChange takes 'free', 'warn' or 'refuse', not {quoted(self.verdict)}"
            )


class _Absent:
    """Stands for a value that there is not."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Leaf:
    """One value of a config.

    Attributes:
        path: where it stands, by the names of fields and the keys of mappings.
        value: the value; a list is one value.
        default: the field's default, or `ABSENT`.
        is_set: whether it was set, by whatever.
        verdict: what a resume does where it has changed.
        is_secret: whether the field's type hides it.
        given: what the layers that the config was loaded from have given there.
    """

    path: Path
    value: Any
    default: Any
    is_set: bool
    verdict: Verdict
    is_secret: bool
    given: Tree | Given | None


def leaves(config: BaseModel, tree: Tree | None = None) -> Iterator[Leaf]:
    """Yield the values of a config.

    Args:
        config: the config.
        tree: what it was loaded from.
    """
    top = Leaf((), config, ABSENT, True, "warn", False, {} if tree is None else tree)
    left = [top]
    while left:
        leaf = left.pop()
        value = leaf.value
        below: list[Leaf] = []
        if len(leaf.path) < _DEEPEST:
            if isinstance(value, BaseModel):
                below = list(_of_model(leaf, value))
            elif isinstance(value, dict):
                below = list(_of_mapping(leaf, value))
        if below:
            left += reversed(below)
        elif leaf.path:
            yield leaf


def values(config: BaseModel) -> Iterator[tuple[Path, Any]]:
    """Yield where each value of a config stands, and the value: what `leaves` has, and no more.

    Args:
        config: the config.
    """
    left: list[tuple[Path, Any]] = [((), config)]
    while left:
        path, value = left.pop()
        inner: Iterable[tuple[Any, Any]] = ()
        if len(path) < _DEEPEST and not isinstance(value, (str, int, float)):
            if isinstance(value, dict):
                inner = value.items()
            elif isinstance(value, BaseModel):
                fields = ((name, getattr(value, name, None)) for name in type(value).model_fields)
                inner = (*fields, *(value.model_extra or {}).items())
        if inner:
            left += [((*path, str(key)), each) for key, each in inner]
        elif path:
            yield path, value


def verdict_at(model: type[BaseModel], path: Path) -> Verdict:
    """Return what a resume does where the value at a path has gone."""
    verdict: Verdict = "warn"
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            break
        verdict = _verdict(field) or verdict
        inner = [k for k in (field.annotation, *get_args(field.annotation)) if isinstance(k, type)]
        models = [kind for kind in inner if issubclass(kind, BaseModel)]
        if not models:
            break
        model = models[0]
    return verdict


@lru_cache(maxsize=256)
def _fields(
    kind: type[BaseModel],
) -> tuple[tuple[str, FieldInfo, Verdict | None, bool, list[str]], ...]:
    """Return of each field: its name, itself, verdict, whether it is secret, all its names."""
    return tuple(
        (name, field, _verdict(field), "Secret" in repr(field.annotation), _names(name, field))
        for name, field in kind.model_fields.items()
    )


def _of_model(leaf: Leaf, model: BaseModel) -> Iterator[Leaf]:
    for name, field, verdict, is_secret, names in _fields(type(model)):
        value = getattr(model, name, None)
        default = leaf.default
        if isinstance(default, type(model)):
            default = getattr(default, name, ABSENT)
        else:
            default = _default(field, value)
        yield Leaf(
            (*leaf.path, name),
            value,
            default,
            leaf.is_set and name in model.model_fields_set,
            verdict or leaf.verdict,
            leaf.is_secret or is_secret,
            _below(leaf.given, names),
        )
    for name, value in (model.model_extra or {}).items():
        given = _below(leaf.given, [name])
        yield Leaf((*leaf.path, name), value, ABSENT, True, leaf.verdict, leaf.is_secret, given)


def _of_mapping(leaf: Leaf, mapping: dict[Any, Any]) -> Iterator[Leaf]:
    default = leaf.default if isinstance(leaf.default, dict) else {}
    for key, value in mapping.items():
        yield Leaf(
            (*leaf.path, str(key)),
            value,
            default.get(key, ABSENT),
            leaf.is_set,
            leaf.verdict,
            leaf.is_secret,
            _below(leaf.given, [str(key)]),
        )


def _below(tree: Tree | Given | None, names: list[str]) -> Tree | Given | None:
    """Return what was given under one of the names; what a validator has made of, under any."""
    if tree is None or isinstance(tree, Given):
        return tree
    return next((tree[name] for name in names if name in tree), None)


def _names(name: str, field: FieldInfo) -> list[str]:
    """Return the names that a field goes by where a config is loaded."""
    alias = field.validation_alias or field.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [*(each for each in choices if isinstance(each, str)), name]


def _default(field: FieldInfo, value: Any) -> Any:
    """Return a field's default; of one that is made anew each time, only where it can matter."""
    if field.default_factory is None:
        return ABSENT if field.is_required() else field.default
    if isinstance(value, (BaseModel, dict, list, set)):
        try:
            return field.get_default(call_default_factory=True)
        except Exception:  # noqa: BLE001 - the user's own, and one may need what was validated
            return ABSENT
    return ABSENT


def _verdict(field: FieldInfo) -> Verdict | None:
    """Return what a field says of changes, where it says anything."""
    metadata = list(field.metadata)
    for part in (field.annotation, *get_args(field.annotation)):
        if get_origin(part) is Annotated:
            metadata += get_args(part)[1:]
    return next((each.verdict for each in metadata if isinstance(each, OnChange)), None)
