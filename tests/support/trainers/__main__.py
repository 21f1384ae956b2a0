"""Check one adapter with its real framework: `python -m tests.support.trainers NAME`.

In a process of its own, for frameworks warn, and patch what they find.
"""

from __future__ import annotations

import importlib
import sys

from keisei.testing import check_adapter
from tests.support.trainers.adapters import ADAPTERS

if __name__ == "__main__":
    options = dict(ADAPTERS[sys.argv[1]])
    options.pop("needs", None)
    train = importlib.import_module(f"tests.support.trainers.{options.pop('train', sys.argv[1])}")
    for sentence in check_adapter(train.train, **options):
        print(sentence)
