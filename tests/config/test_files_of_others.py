"""Files in the style of ten public projects: each loads, or is refused with line and way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keisei import ConfigError, OpenConfig, load_config

LOADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nanoGPT": ("c.yaml", "learning_rate: 6e-4\ncompile: on\n", {"learning_rate": 6e-4}),
    "trl": ("c.yaml", "learning_rate: 2.0e-5\nlogging_steps: 25\nreport_to: [wandb]\n",
            {"learning_rate": 2e-5}),
    "axolotl": ("c.yml", "lr_scheduler: cosine\nwandb_project:\ntf32: false\n", {"tf32": False}),
    "llama-factory": ("c.yaml", "### model\nlearning_rate: 1.0e-4\nfp16: true\n", {"fp16": True}),
    "rl zoo": ("c.yml", "CartPole-v1:\n  n_timesteps: !!float 1e5\n  gamma: 0.98\n",
               {"CartPole-v1": {"n_timesteps": 1e5, "gamma": 0.98}}),
    "torchtitan": ("c.toml", "[training]\nsteps = 1000\nlocal_batch_size = 8\n",
                   {"own": {"training": {"steps": 1000, "local_batch_size": 8}}}),
    "megatron-bridge": ("c.yaml", "train: {train_iters: 100}\noptimizer: {lr: 3e-4}\n",
                        {"train": {"train_iters": 100}}),
    "cleanrl": ("c.json", '{"env_id": "CartPole-v1", "seed": 1, "cuda": true}', {"seed": 1}),
}  # fmt: skip
REFUSED = {
    "lightning-hydra": "paths:\n  log_dir: ${paths.root_dir}/logs\n",
    "verl": "actor:\n  path: ${oc.select:model.path}\n",
    "torchtune": "home: /data\nlog_dir: ${home}/logs\n",  # a key of the file, and no variable
}
BROKEN = {
    "a chart": ("c.yaml", "a: 1\nsize: {{ .Values.b }}\n", "line 2.*template's .* is filled in"),
    "mmengine": ("c.yaml", "a: 1\nroot: {{ fileDirname }}\n", "line 2.*template's .* is filled in"),
    "commented": ("c.json", '{\n  // the rate\n  "lr": 1}', "line 2.*JSON has no comments"),
    "detectron2": ("c.yaml", "a: 1\nsizes: !!python/object/apply:eval ['[2]']\n",
                   "line 2.*write the value itself"),
}  # fmt: skip


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize("name", LOADS)
def test_a_file_of_another_project_loads(name: str, tmp_path: Path) -> None:
    """Its fields are the user's own; keisei's have their defaults."""
    file, text, wanted = LOADS[name]
    (tmp_path / file).write_text(text)
    config = load_config(tmp_path / file, model=OpenConfig)
    assert config.training.total_timesteps == 1_000_000
    for key, value in wanted.items():
        assert (config.model_extra or {})[key] == value
    with pytest.raises(ConfigError, match=r"model=OpenConfig|known here") as caught:
        load_config(tmp_path / file)
    assert f"{file}'" in str(caught.value)


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_omegaconfs_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    """File, line, and that OmegaConf loads it."""
    (tmp_path / "c.yaml").write_text(REFUSED[name])
    with pytest.raises(ConfigError, match=r"c.yaml'(.|\n)*loaded by OmegaConf.*; line 2"):
        load_config(tmp_path / "c.yaml", model=OpenConfig)


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_holds_more_than_data_is_refused_with_the_way_out(
    name: str, tmp_path: Path
) -> None:
    """File, line, and what to write."""
    file, text, wanted = BROKEN[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=rf"{file}' is not a config: .*{wanted}"):
        load_config(tmp_path / file, model=OpenConfig)
