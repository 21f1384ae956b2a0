"""What every section of a config is: a model that refuses unknown keys and explains its fields."""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from keisei.redaction import Shown

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler

OWN_ERROR = "keisei_refused"  # the type of errors whose message is keisei's, and holds no value

_cheap: set[str] = set()  # the modules whose docstrings are read when they are asked for


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


def by_name(value: Any) -> Any:
    """Take a list of names, or names with nothing behind them, for what has no options."""
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(value)
    if isinstance(value, dict):
        value = {name: {} if options is None else options for name, options in value.items()}
    return value


OptionalPath = Annotated[Path | None, BeforeValidator(_absent_if_empty)]
OptionalText = Annotated[str | None, BeforeValidator(_absent_if_empty)]
SignalName = Annotated[str, Field(pattern=r"^SIG[A-Z0-9]+$")]
Timeout = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a config: unknown keys are errors, and a docstring under a field describes it.

    Its repr hides secrets.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        ser_json_inf_nan="strings",  # by default, those under `Any` become null
        validate_assignment=True,
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, Shown(name, value)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: "GetJsonSchemaHandler"
    ) -> dict[str, Any]:
        """Add the docstrings of keisei's own fields, and the defaults of its sections."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            described = properties.get(name) or properties.get(field.alias) or {}
            texts = [
                _docstrings(base.__module__).get(base.__name__, {}).get(name)
                for base in cls.__mro__
            ]
            for text in filter(None, texts):
                described.setdefault("description", text)
            section: Any = field.default_factory
            if getattr(section, "__module__", None) in _cheap:
                described.setdefault("default", section().model_dump(mode="json"))
        return schema


def read_derived_docstrings() -> None:
    """Make pydantic read the docstrings of the sections that are made from now on: a user's.

    Those of the sections that are there by now are read when somebody asks for the JSON schema.
    """
    own: list[type[Section]] = [Section, *Section.__subclasses__()]
    for section in own:
        _cheap.add(section.__module__)
        section.model_config["use_attribute_docstrings"] = True


@cache
def _docstrings(name: str) -> dict[str, dict[str, str]]:
    """Read the docstrings under the fields of a module's classes, by class and field."""
    found: dict[str, dict[str, str]] = {}
    if name not in _cheap:
        return found
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, TypeError):  # installed without its source
        return {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields = found.setdefault(node.name, {})
            for field, below in pairwise(node.body):
                match field, below:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name_)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        fields[name_] = inspect.cleandoc(text)
    return found
