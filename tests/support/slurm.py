"""A SLURM cluster, started by the tests on one machine, in a directory of its own and on loopback.

It needs Debian's `slurm-wlm` and `munge`, and root, as a job is started as the user who asks.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.launchers import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
# A requeued job starts again once its old credentials have expired: SLURM's default is 120 s, and
# its lowest 5.
REQUEUE_WAIT_S = 5
# Of each node: more than the machine may have.
CPUS = 8
STARTED_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.1


def missing() -> str | None:
    """Return why no cluster can be started here, or None where one can."""
    path = _search_path()
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"SLURM is not installed here (Debian's slurm-wlm and munge): no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "SLURM's daemons start jobs as their users, for which they need root"
    return None


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs.

    Parameters:
        directory: Where its configuration, its state and its logs are.
        environment: What a command needs to reach it.
    """

    directory: Path
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 60.0, check: bool = True) -> str:
        """Run one of SLURM's commands, and return what it printed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}{self.logs()}")
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """Submit a batch script, and return the job's id. Its output is what `output` reads."""
        file = self.directory / f"job{time.monotonic_ns()}.sh"
        file.write_text(script)
        return self.run(
            "sbatch",
            "--parsable",
            f"--chdir={self.directory}",
            f"--output={self.directory}/%j.out",
            "--open-mode=append",
            *options,
            str(file),
        ).strip()

    def output(self, job: str) -> str:
        """Return what the job has printed, in all of its starts."""
        file = self.directory / f"{job}.out"
        return file.read_text() if file.exists() else ""

    def state(self, job: str) -> str:
        """Return the job's state in SLURM's words, as RUNNING or COMPLETED."""
        return self.field(job, "JobState")

    def field(self, job: str, name: str) -> str:
        """Return one field of what `scontrol show job` prints."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word).get(name, "")

    def wait_for(self, job: str, *states: str, timeout: float = 60.0) -> str:
        """Return the job's state once it is one of those named, or fail with what it printed."""
        deadline = time.monotonic() + timeout
        while (state := self.state(job)) not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {state}, not {states}: {self.output(job)}")
            time.sleep(LOOK_AGAIN_S)
        return state

    def logs(self) -> str:
        """Return the daemons' logs, for the message of a test that fails."""
        return "".join(f"\n== {f.name}\n{f.read_text()}" for f in self.directory.glob("*.log"))


@contextmanager
def cluster(directory: Path, nodes: int = 1) -> Iterator[Slurm]:
    """Start a cluster in an empty directory, and stop all that it runs at the end.

    Parameters:
        directory: Where its configuration, its state and its logs are to be.
        nodes: How many nodes it has, all of them on this machine.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    controller, *ports = free_ports(1 + nodes)
    names = [f"node-{n + 1}" for n in range(nodes)]
    munge = directory / "munge.socket"
    (directory / "state").mkdir()
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (directory / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (directory / "slurm.conf").write_text(
        f"""
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire={REQUEUE_WAIT_S}
CryptoType=crypto/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
CommunicationParameters=NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
MpiDefault=none
PartitionName=tests Nodes={",".join(names)} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
        + "".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS}\n"
            for name, port in zip(names, ports, strict=True)
        )
    )
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
        "PATH": _search_path(),
        "SLURM_CONF": str(directory / "slurm.conf"),
    }
    slurm = Slurm(directory, environment)
    with ExitStack() as stack:
        stack.enter_context(
            _daemon(
                [
                    "munged",
                    "--foreground",
                    "--force",
                    f"--socket={munge}",
                    f"--key-file={key}",
                    f"--pid-file={directory}/munged.pid",
                    f"--log-file={directory}/munged.log",
                    f"--seed-file={directory}/munged.seed",
                ],
                slurm,
            )
        )
        _until(munge.exists, slurm)
        stack.enter_context(_daemon(["slurmctld", "-D", "-i"], slurm))
        _until(lambda: "UP" in slurm.run("scontrol", "ping", check=False), slurm)
        for name in names:
            stack.enter_context(_daemon(["slurmd", "-D", "-N", name], slurm))
        ready = f"{nodes} idle"
        _until(lambda: slurm.run("sinfo", "-h", "-o", "%D %T", check=False).strip() == ready, slurm)
        try:
            yield slurm
        finally:
            slurm.run("scancel", "--state=PENDING", check=False)
            slurm.run("scancel", "--full", "--signal=KILL", "--user=root", check=False)
            slurm.run("scancel", "--user=root", check=False)
            with suppress(AssertionError):
                _until(lambda: not slurm.run("squeue", "-h", check=False).strip(), slurm)


def _search_path() -> str:
    # Debian keeps daemons in /usr/sbin, which is not in every user's PATH.
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _until(happened: Callable[[], bool], slurm: Slurm) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"the cluster did not start or stop in time{slurm.logs()}")
        time.sleep(LOOK_AGAIN_S)


@contextmanager
def _daemon(command: list[str], slurm: Slurm) -> Iterator[None]:
    with open(slurm.directory / f"{command[0]}.out.log", "ab") as out:
        process = subprocess.Popen(
            command,
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
