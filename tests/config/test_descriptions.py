"""The docstrings under a config's fields are read for its JSON schema, and not before."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from pydantic import Field

from keisei import AppConfig, Section, WandbConfig


class Rollouts(Section):
    """How the rollouts are made."""

    workers: int = 4
    """How many make them."""


class MyConfig(AppConfig):
    """A config with a section of the user's own."""

    rollouts: Rollouts = Field(default_factory=Rollouts)
    """Where the rollouts come from."""
    wandb: WandbConfig = WandbConfig(project="mine")


def properties(schema: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = schema["$defs"][section]["properties"]
    return found


def test_a_derived_config_describes_its_own_fields_and_keiseis() -> None:
    """The JSON schema of a user's model has the docstrings of both, and keisei's defaults."""
    schema = MyConfig.model_json_schema()
    assert schema["properties"]["rollouts"]["description"] == "Where the rollouts come from."
    assert properties(schema, "Rollouts")["workers"]["description"] == "How many make them."
    assert schema["properties"]["env"]["description"] == "The environment that the run trains in."
    assert schema["properties"]["env"]["default"] == {"seed": None, "device": "cpu"}
    assert schema["properties"]["wandb"]["default"]["project"] == "mine"
    texts = [field["description"] for field in properties(schema, "WandbConfig").values()]
    assert len(texts) == len(WandbConfig.model_fields)
    assert "\n" in "".join(texts)
    assert "    " not in "".join(texts), "indentation is no part of a description"


def test_aliases_keep_their_descriptions() -> None:
    """A field is described under the name that the JSON schema has for it."""

    class Spelled(AppConfig, alias_generator=str.upper):
        """A config whose keys are in capitals."""

    schema = Spelled.model_json_schema()
    assert schema["properties"]["ENV"]["description"] == "The environment that the run trains in."
    assert "description" in Spelled.model_json_schema(by_alias=False)["properties"]["env"]


def test_without_its_source_keisei_has_a_schema_all_the_same() -> None:
    """Where only bytecode is installed, the descriptions are missing and nothing else is."""
    code = (
        "import inspect, keisei.config.schema as schema\n"
        "def gone(module): raise OSError('source code not available')\n"
        "inspect.getsource = gone\n"
        "print('description' in schema.EnvConfig.model_json_schema()['properties']['seed'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_keisei_reads_no_source() -> None:
    """Parsing source for descriptions that nobody asked for was half of the import's cost."""
    code = (
        "import linecache, os, keisei\n"
        "keisei.AppConfig()\n"
        "home = os.path.dirname(keisei.__file__)\n"
        "print([path for path in linecache.cache if path.startswith(home)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
