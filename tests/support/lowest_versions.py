"""The lowest versions of all direct dependencies that pyproject.toml allows, as pip's constraints.

python -m tests.support.lowest_versions > lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"
# Not what keisei needs, but what checks it: at its newest in every environment.
TOOLS = ("benchmarks", "docs", "lint", "packaging", "test")


def lowest_versions(pyproject: str) -> dict[str, str]:
    """Return each direct dependency's lower bound, by its name.

    Args:
        pyproject: the text of a pyproject.toml. What its extras `benchmarks`, `docs`, `lint`,
            `packaging` and `test` add for themselves is left out.

    Raises:
        ValueError: a dependency has no lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"].items()
    declared = [*project["dependencies"]]
    declared += [line for name, lines in extras if name not in TOOLS for line in lines]
    found = {}
    for line in declared:
        if line.startswith(f"{project['name']}["):
            continue  # extras that are made of others
        bound = re.match(r"([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)", line)
        if bound is None:
            raise ValueError(f"{line!r} in pyproject.toml has no lower bound: write name>=version")
        found[bound[1]] = bound[2]
    return found


if __name__ == "__main__":
    for name, version in lowest_versions(PYPROJECT.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
