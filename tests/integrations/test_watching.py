"""`wandb.watch` on the global run: histograms of a model of PyTorch's."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei import AppConfig, SessionManager
from keisei.integrations.wandb import as_global_run
from keisei.integrations.watching import BINS, counted
from keisei.journal.reader import read_run

wandb = pytest.importorskip("wandb")
torch = pytest.importorskip("torch")


def trained(root: Path, steps: int, **options: object) -> set[tuple[str, str, int | None]]:
    """Train a model that is watched; return the media of the run: their names, kinds and steps."""
    config = AppConfig.model_validate({"logging": {"log_dir": str(root)}})
    model = torch.nn.Linear(4, 1)
    with SessionManager(config, run_name="watched") as session:
        with as_global_run(session):
            wandb.watch(model, **options)
            for step in range(1, steps + 1):
                loss = model(torch.ones(2, 4)).sum()
                loss.backward()
                wandb.log({"loss": loss.item()}, step=step)
        model(torch.ones(2, 4)).sum().backward()  # watched no longer
    media = read_run(session.run_artifact_dir).media()
    return {(each.name, each.kind, each.step) for each in media}


def test_gradients_are_histograms_at_their_rows(tmp_path: Path) -> None:
    """Of so many batches the last is looked at, and what it shows has the step of the next row."""
    assert trained(tmp_path, 6, log_freq=3) == {
        ("gradients/weight", "histogram", 3),
        ("gradients/bias", "histogram", 3),
        ("gradients/weight", "histogram", 6),
        ("gradients/bias", "histogram", 6),
    }


def test_parameters_are_watched_too(tmp_path: Path) -> None:
    """`log="all"` is both, and `log=None` neither."""
    names = {name for name, _, _ in trained(tmp_path / "all", 1, log="all", log_freq=1)}
    assert names == {
        f"{kind}/{name}" for kind in ("gradients", "parameters") for name in ("weight", "bias")
    }
    assert trained(tmp_path / "none", 1, log=None, log_freq=1) == set()


def test_several_models_are_told_apart(tmp_path: Path) -> None:
    """As W&B names them; what is unwatched is seen no more."""
    config = AppConfig.model_validate({"logging": {"log_dir": str(tmp_path)}})
    models = [torch.nn.Linear(2, 1, bias=False) for _ in range(3)]
    with SessionManager(config, run_name="several") as session, as_global_run(session):
        wandb.watch(models[:2], log_freq=1)
        wandb.watch(models[2], log_freq=1)
        wandb.unwatch(models[0])
        for model in models:
            model(torch.ones(2)).backward()
        wandb.log({"loss": 1.0}, step=1)
    names = {each.name for each in read_run(session.run_artifact_dir).media()}
    assert names == {"gradients/graph_1weight", "gradients/graph_2weight"}


def test_a_histogram_counts_what_is_finite() -> None:
    """All finite values are counted, whatever the type; one value alone has a bin around it."""
    values = torch.tensor([0.0, 1.0, 2.0, float("nan"), float("inf")], dtype=torch.bfloat16)
    found = counted(values)
    assert found is not None
    assert (sum(found.counts), len(found.counts), len(found.edges)) == (3, BINS, BINS + 1)
    assert (found.edges[0], found.edges[-1]) == (0.0, 2.0)
    alone = counted(torch.full((5,), 1e30))
    assert alone is not None
    assert alone.counts == [5.0]
    assert alone.edges[0] < 1e30 < alone.edges[1]
    assert counted(torch.tensor([float("nan")])) is None
    sparse = torch.sparse_coo_tensor([[0, 2]], [1.0, 3.0], (1000,), check_invariants=True)
    held = counted(sparse)
    assert held is not None
    assert sum(held.counts) == 2
