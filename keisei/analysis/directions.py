"""Which way a metric is better, by its name: where nobody has said it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from keisei.analysis.verdicts import Better

_LOWER = frozenset(
    "cer cost error errors fid lag latency loss losses mae mse nll perplexity ppl regret rmse "
    "wer".split()
)
_HIGHER = frozenset(
    "acc accuracy auc auroc bleu dice f1 fps iou map mrr ndcg precision psnr recall return returns "
    "reward rewards rouge score scores sps ssim success throughput".split()
)
_WORD = re.compile(r"[a-z]+\d*|\d+")
_RATE = re.compile(r"(per_s(ec(ond)?)?|/s|win_?rate)$")


def by_name(metric: str) -> Better | None:
    """Return which way a metric is better, as its name says: `train/loss`, `eval_return_mean`.

    Args:
        metric: its name.

    Returns:
        ``None`` where its name does not say it, or says both.
    """
    lower = metric.lower()
    if _RATE.search(lower):
        return "higher"
    words = set(_WORD.findall(lower.rpartition("/")[2]))
    falls, rises = bool(words & _LOWER), bool(words & _HIGHER)
    if falls == rises:
        return None
    return "lower" if falls else "higher"


def directions(
    metrics: Iterable[str],
    higher: Iterable[str] = (),
    lower: Iterable[str] = (),
    best: Mapping[str, str] | None = None,
) -> dict[str, Better]:
    """Return which way each metric is better, where that is known.

    Args:
        metrics: their names.
        higher: names, or patterns, of those of which more is better.
        lower: names, or patterns, of those of which less is better.
        best: of which `min` or `max` is best, as `checkpoints.keep_best` says.
    """
    found: dict[str, Better] = {}
    rises, falls = tuple(higher), tuple(lower)
    for metric in metrics:
        mode = (best or {}).get(metric)
        if any(fnmatchcase(metric, pattern) for pattern in rises):
            found[metric] = "higher"
        elif any(fnmatchcase(metric, pattern) for pattern in falls):
            found[metric] = "lower"
        elif mode in ("min", "max"):
            found[metric] = "lower" if mode == "min" else "higher"
        elif (named := by_name(metric)) is not None:
            found[metric] = named
    return found
