"""A driver and its actors as one run, one of which is killed: `python -m examples.ray_actors`.

Needs `pip install "keisei[ray]"`. The driver owns the run; each actor is a member of it, from
whatever process or host. The killed one's role is taken up again by its successor.
"""

import asyncio
import random

import ray

from keisei import AsyncSessionManager, AsyncSessionMember, RunHandle, load_config
from keisei.journal.reader import read_run

ROLES = [f"rollout-{number}" for number in range(4)]
UNLUCKY = "rollout-2"
ROUNDS = 40


class Player:
    """What an actor does: it plays, and logs to the run."""

    def __init__(self) -> None:
        self.is_half_way = asyncio.Event()

    async def play(self, handle: RunHandle, role: str, begin: int) -> float:
        """Play the rounds from one on, and return the last return."""
        score = 0.0
        async with AsyncSessionMember(handle, role=role) as member:
            for number in range(begin, ROUNDS):
                await asyncio.sleep(random.uniform(0.01, 0.05))  # the environment
                score = number + random.gauss(0, 1)
                member.log_metrics({"return": score}, step=number)
                if number == ROUNDS // 2:
                    self.is_half_way.set()
        return score

    async def half_way(self) -> None:
        """Wait until half of the rounds are played."""
        await self.is_half_way.wait()


Rollout = ray.remote(num_cpus=0)(Player)


async def main() -> None:
    """Start the actors, kill one of them, start it again, and show what the run holds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    config = load_config(overrides={"logging.if_exists": "number"})
    async with AsyncSessionManager(config, run_name="ray-actors") as session:
        handle = session.handle()
        actors = {role: Rollout.remote() for role in ROLES}
        playing = {role: actor.play.remote(handle, role, 0) for role, actor in actors.items()}

        await actors[UNLUCKY].half_way.remote()
        ray.kill(actors[UNLUCKY])  # as a node that is gone: nothing of it says goodbye
        try:
            await playing[UNLUCKY]
        except ray.exceptions.RayActorError:
            steps, _ = read_run(session.run_artifact_dir).columns("return", part=UNLUCKY)
            session.log_event("actor/killed", {"role": UNLUCKY, "rounds": len(steps)})
            print(f"{UNLUCKY} was killed after {len(steps)} rounds, and goes on")
            actors[UNLUCKY] = Rollout.remote()
            playing[UNLUCKY] = actors[UNLUCKY].play.remote(handle, UNLUCKY, len(steps))

        last = await asyncio.gather(*playing.values())
        session.log_metrics({"last_return": sum(last) / len(last)}, step=ROUNDS)
    ray.shutdown()

    run = read_run(session.run_artifact_dir)
    for role in ROLES:
        print(f"{role}: {len(run.columns('return', part=role)[0])} rounds")
    steps, means = run.columns("return", reduce="mean")
    print(f"the mean over all actors has {len(steps)} steps, and ends at {means[-1]:.1f}")
    print(f"{session.run_name}: {session.status}")


if __name__ == "__main__":
    asyncio.run(main())
