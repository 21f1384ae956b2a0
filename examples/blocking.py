"""The smallest script with a session: `python -m examples.blocking`."""

import random

from keisei import AppConfig, SessionManager, load_config


def main() -> None:
    """Walk at random for a while, in a session that records it."""
    config: AppConfig = load_config(overrides={"env.seed": 7, "training.total_timesteps": 1000})
    with SessionManager(config) as session:
        session.log_session_info(print, agent_info={"type": "RandomWalk", "name": "walker"})
        position = sum(random.choice((-1, 1)) for _ in range(config.training.total_timesteps))
        with open(f"{session.model_dir}/position.txt", "w") as file:
            file.write(f"{position}\n")
    print(f"{session.status}: ended at {position}, see {session.run_artifact_dir}")


if __name__ == "__main__":
    main()
