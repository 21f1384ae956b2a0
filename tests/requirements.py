"""The contract, sentence by sentence: every id has a test, and every test's ids are here."""

REQUIREMENTS: dict[str, str] = {
    "FACE-1": (
        "`keisei.AsyncSessionManager(config, args=None, run_name=None)` is the async face; "
        "`keisei.SessionManager` the blocking one, with the same names, arguments and results. "
        "Both are importable from `keisei` and from `keisei.training.session_manager`."
    ),
    "FACE-2": (
        "Awaitable on the async face: `setup_directories`, `setup_wandb`, "
        "`save_effective_config`, `setup_seeding`, `log_session_info`, `log_session_start`, "
        "`finalize_session`. Plain on both: the properties `config`, `args`, `run_name`, "
        "`session_id`, `status`, `run_artifact_dir`, `model_dir`, `log_file_path`, "
        "`eval_log_file_path`, `is_wandb_active`, `wandb_run`, `state`, and "
        "`get_session_summary()`."
    ),
    "FACE-3": (
        "`async with AsyncSessionManager(...) as session:` (and `with SessionManager(...)`) "
        "runs the steps in the documented order (directories, W&B, config, seeding, session "
        "start) and finalises on the way out with the truth about how the body ended. A failed "
        "entry leaves nothing behind that it started."
    ),
    "FACE-4": (
        "Works on asyncio, uvloop and trio; the blocking face works in a script, in a thread "
        "and in a notebook whose loop is running."
    ),
    "FACE-5": ("Importing `keisei` imports neither wandb, numpy nor torch."),
    "FACE-6": (
        "Any pydantic model that derives from `AppConfig` is a config; the manager is generic "
        "over it, so `session.config.my_section` is typed."
    ),
    "ID-1": (
        "The run name is, in this order: the `run_name` argument, `args.run_name`, "
        '`config.logging.run_name`, a generated name. `None` and `""` count as absent. `args` '
        "may be an `argparse.Namespace`, any object, a mapping, or `None`."
    ),
    "ID-2": (
        "`generate_run_name(config)` gives a readable name that sorts by time and does not "
        "collide: 100,000 names made in one second by several processes are all different."
    ),
    "ID-3": (
        "An illegal name is refused by the constructor with `InvalidRunNameError` (also a "
        "`ValueError`) that quotes it escaped and says what is legal (promise P9)."
    ),
    "ID-4": (
        "`session_id` is an immutable, time-sortable id (a ULID), other than the name; a "
        "resumed run keeps it and gets `attempt` + 1."
    ),
    "DIR-1": (
        "`setup_directories()` makes the run's directory and its `models/` and returns exactly "
        "`run_artifact_dir`, `model_dir`, `log_file_path`, `eval_log_file_path`, as absolute "
        "strings."
    ),
    "DIR-2": (
        "The layout is `effective_config.json`, `training.log`, `evaluation.log`, `models/`, "
        "and keisei's own `session.json`."
    ),
    "DIR-3": (
        "The run's directory is `{root}/{run_name}`; the root is `KEISEI_LOG_DIR`, else "
        "`config.logging.log_dir`, else `runs`. With `KEISEI_MODEL_DIR` or "
        "`config.logging.model_dir` the models live in `{that}/{run_name}`."
    ),
    "DIR-4": (
        "A failure is a `DirectorySetupError` (also a `RuntimeError`) that names path and "
        "cause. With `config.logging.fallback_dir` set, a root that cannot be made or written "
        "is replaced by it, with one warning, and the summary says so."
    ),
    "DIR-5": (
        "Reading a path before it is set up raises `NotReadyError` (also a `RuntimeError`) that "
        "names the step to call."
    ),
    "DIR-6": ("A second call changes nothing and returns the same."),
    "DIR-7": (
        "`session.json` is the run's own record: id, name, attempt, owner (host, pid, process "
        "start time), status, when it started and ended, paths, the tracker's run id and URL; "
        "written atomically at every change of status. It is the truth from which anything else "
        "can be rebuilt."
    ),
    "DIR-8": (
        "One owner at a time (promise P8): a live owner's run is refused with "
        "`SessionInUseError`; otherwise `logging.if_exists` decides: `resume` (the default: the "
        "next attempt of the same run; logs are appended to, the earlier effective config is "
        "kept beside the new one), `refuse`, or `number` (the name gets `-2`, `-3`, claimed by "
        "mkdir itself)."
    ),
    "CFG-1": (
        "`load_config(path=None, overrides=None)` reads YAML, JSON or TOML, applies overrides "
        '(a mapping, or `"training.total_timesteps=1000"` strings), and validates. An unknown '
        "key, a wrong type or an unreadable file is a `ConfigError` (also a `ValueError`) that "
        "names file, line, key path and reason, and never prints a secret."
    ),
    "CFG-2": (
        "Sections and fields: `env` (seed, device), `training` (total_timesteps, "
        "steps_per_epoch), `logging` (run_name, wandb_enabled, log_level, log_dir, model_dir, "
        "fallback_dir, if_exists), `wandb` (project, entity, group, job_type, tags, notes, "
        "mode, init_timeout, finish_timeout, offline_fallback). `wandb_enabled` is false unless "
        "the user says so; `wandb.mode` is `online`, `offline` or `disabled`, and where unset "
        "`WANDB_MODE`, else online with a key or login and offline without. Every field has a "
        "default, a range where one applies, and a docstring that reaches the JSON schema. The "
        "YAML in the origin document loads as it stands."
    ),
    "CFG-3": (
        "`save_effective_config()` writes `effective_config.json`: UTF-8, nulls kept, secrets "
        "hidden, ending in a newline, whole or not at all; it makes the directory again if that "
        "has gone. `AppConfig.model_validate_json` of it equals the config where it holds no "
        "secret."
    ),
    "CFG-4": (
        "It needs directories (`NotReadyError`); any failure is a `ConfigSaveError` (also a "
        "`RuntimeError`)."
    ),
    "CFG-5": (
        "The file holds the config as it is when it is saved; the same text goes to the tracker, "
        "unless the config was changed in between."
    ),
    "CFG-6": (
        "A session takes an `AppConfig`, and any pydantic model, dataclass, attrs class, "
        "`DictConfig`, mapping or namespace: `session.config` is what was given, "
        "`session.app_config` the `AppConfig` that it is or that was made of it. With a key "
        "`keisei`, keisei's sections are what that holds; without it, each field that has a "
        "section's name and no key that is not the section's. All else is the user's own, and is "
        "recorded; what collides with a section's name, under `own`."
    ),
    "CFG-7": (
        "`KEISEI__SECTION__FIELD` sets a field: in `load_config` after the file and before the "
        "overrides, in a session after the defaults and before a config of another kind; an "
        "`AppConfig` that is given is as it is."
    ),
    "CFG-8": (
        "A config that Hydra has composed keeps its origins: which file, line or override gave "
        "each value, as written and resolved; each job of a multirun is a run."
    ),
    "WB-1": (
        "`setup_wandb()` needs directories. It returns `True` when W&B tracks this run, `False` "
        "when it is disabled or failed; W&B's own failures never raise, and one warning says "
        "what happened and what to do."
    ),
    "WB-2": ("`is_wandb_active` raises `NotReadyError` before `setup_wandb()`."),
    "WB-3": ("Disabled means untouched: the SDK is not imported, nothing is started."),
    "WB-4": (
        "init and finish are blocking calls that are offloaded to daemon threads under "
        "`anyio.fail_after(wandb.init_timeout)` (default 30 s) and `(wandb.finish_timeout)` "
        "(default 10 s), wherever the SDK itself runs (HOST-1, HOST-4). The SDK's own timeouts "
        "are a second line, set so that WB-8 can hold."
    ),
    "WB-5": (
        "Each session has a run object of its own; the global `wandb.run` is neither needed nor "
        "disturbed. With `wandb.in_process: true`, `session.wandb_run` gives it to users who "
        "need what only the SDK's object can do; where W&B is active in its own process, "
        "reading it is a `TrackerError` that names that switch and the `log_...` methods for "
        "media; where W&B is not active it is `None`."
    ),
    "WB-6": (
        "Its id is stable over attempts, its name is the run name, its directory the run's "
        "directory, its config the redacted effective config. The project is the config's, else "
        "`WANDB_PROJECT`, else `keisei`."
    ),
    "WB-7": (
        "The key comes from `WANDB_API_KEY` or the user's own login, and is never stored, "
        "printed or passed on. Without a key nothing prompts: the run is offline, and a warning "
        "says how to log in."
    ),
    "WB-8": (
        "An init that comes to life after its deadline is closed at once with the true status; "
        "nothing of it outlives the session."
    ),
    "WB-9": (
        "With `offline_fallback` (the default) an unreachable W&B gives an offline run of the "
        "same id, which `keisei sync` uploads later."
    ),
    "WB-10": (
        "Each release of W&B's SDK from 0.27 on is taken; an older one is refused by an error that "
        "names it and the range. Without a private name of the SDK, logging and the end stay "
        "true; one warning says which is missing."
    ),
    "SEED-1": (
        "`setup_seeding()` seeds `random`, and numpy, torch (with CUDA and MPS) only where the "
        "program has imported them. Without `env.seed` it does nothing. The summary says what "
        "was seeded."
    ),
    "LOG-1": (
        "`log_session_info(logger_func, agent_info=None, resumed_from_checkpoint=None, "
        "global_timestep=0, total_episodes_completed=0)` calls `logger_func` with one line each "
        "for: the run and its W&B URL if there is one; the run's directory and the config's "
        "path; the seed (if set) and the device; the agent's type and name (if given); total "
        "timesteps and steps per epoch; and either that this is a fresh start, or the "
        "checkpoint, timestep and episodes it resumes from. `logger_func` may be sync or async; "
        "one that raises is counted and does not stop the session."
    ),
    "LOG-2": (
        "`log_session_start()` appends a start line with an ISO-8601 time with offset, the run "
        "name and id to `training.log`; finalising appends an end line with the status and "
        "duration. It needs directories; an I/O failure is a warning, not an error."
    ),
    "LOG-3": ("A line is a line: control characters and newlines in values are escaped."),
    "LOG-4": (
        "keisei logs under the stdlib logger `keisei`, at `logging.log_level`; it touches no "
        "other logger and no root handler."
    ),
    "FIN-1": (
        "`finalize_session(status=None)` ends the session: `completed`, `failed`, `cancelled` "
        "or `preempted`. Local truth first (`session.json`, the log's end line; a disk that "
        "hangs is given up after a documented time), then all trackers at once, each within its "
        "own finish timeout (`tracking.finish_timeout`, default 10 s; W&B's own). It raises for "
        "nothing that a tracker does."
    ),
    "FIN-2": (
        "When W&B's finish does not end in time, the run is abandoned with exit code 1, one "
        "warning says where its local files are, and neither the loop nor the process waits for "
        "it (promise P14)."
    ),
    "FIN-3": (
        "It is idempotent, may be called before any set-up, concurrently, and under "
        "cancellation; all callers see one result."
    ),
    "FIN-4": (
        "No alarm is used, and no signal handler is installed unless asked for; all of it works "
        "off the main thread."
    ),
    "SUM-1": (
        "`get_session_summary()` gives at least `run_name`, `run_artifact_dir`, `model_dir`, "
        "`log_file_path`, `eval_log_file_path`, `is_wandb_active`, `seed`, `device`, and "
        "`session_id`, `attempt`, `status`, `started_at`, `duration_s`, `wandb_url`; what is "
        "not set up yet is `None`. It is plain data that `json.dumps` takes."
    ),
    "STATE-1": (
        "`state` is the documented `SessionState`: `directories_setup`, `wandb_initialized`, "
        "`config_saved`, `seeding_setup`, `session_active`, all booleans."
    ),
    "RANK-0": (
        "Whether an owner lives is never guessed: a process that cannot be seen (another pid "
        "namespace, no /proc, another host) counts as alive unless its lock or its lease is gone; "
        "a live owner holds a lock on the run's directory for its whole life, where the file "
        "system has locks."
    ),
    "RANK-3": (
        "Rank 0 owns the run, its session file and its trackers. Every rank has its own part: "
        "`metrics.{attempt}.rank{r}.journal`, `training.rank{r}.log`. Readers merge them "
        '(`run.rows(rank=...)`, `run.columns(key, reduce="mean"|"min"|"max"|"sum")`); trackers '
        "get rank 0's rows, and of the others what `distributed.track` says."
    ),
    "RANK-5": (
        "`session.handle()` is a small picklable value without secrets. `async with "
        'AsyncSessionMember(handle, role="rollout-3") as member:` (and `SessionMember`) logs '
        "metrics, events, evaluations and lines to the same run from another process, actor or "
        "host that sees its directory. After the run's end it is refused."
    ),
    "HOST-1": (
        "A tracker that is named (W&B too) lives in a process of its own, one for each kind of "
        "tracker and program, shared by all sessions of the program, started with the first "
        "that wants it and ended when nothing is left to do. The program imports no tracker's "
        "SDK."
    ),
    "HOST-2": (
        "No row crosses between the program and that process: it follows the run's journal from "
        "the tracker's cursor. At most one process delivers a run to a tracker at a time (a "
        "lock beside the cursor); a resumed run or `keisei sync` that finds it taken waits, or "
        "says by whom."
    ),
    "HOST-3": (
        "When the program dies, in whatever way, the process sends what the journal holds, "
        "tells the tracker the true end, and ends, within `tracking.linger` seconds (default "
        "30). A session whose trackers have not finished by their deadline ends all the same; "
        "the process goes on for the same time. The program's own exit waits for none of this."
    ),
    "HOST-4": ("`wandb.in_process: true` runs W&B's SDK in the program, under the same deadlines."),
    "HOST-5": (
        "A tracker that is given as an object runs in the program, on a thread of its own, by "
        "the same worker."
    ),
    "CKPT-1": (
        "`await session.save_checkpoint(state, step, metrics=None)` commits a checkpoint and "
        "returns a `Checkpoint` (`step`, `attempt`, `path`, `size`, `digest`, `metrics`, "
        "`created_at`). `state` is a mapping, nested at will, of arrays (numpy, torch, jax), "
        "numbers, strings, bytes, lists and `None`; or a function that writes files into the "
        "directory that it is given. Nothing is pickled."
    ),
    "CKPT-2": (
        "It lies in `models/checkpoint_{step}.ckpt/`; `models/latest` and `models/best` name the "
        "newest and the best. `save_final_model(state)` commits `models/final_model/` the same way."
    ),
    "CKPT-3": (
        "A commit is whole or absent: staged beside it, digested as it is written, a manifest last "
        "(names, sizes, digests, dtypes, shapes), fsync of files and directories, one rename. At "
        "no instant after the first commit is there no loadable checkpoint. What is older is "
        "removed only after that, and never the last one that verifies."
    ),
    "CKPT-4": (
        "The loop is held only for the copy of what the caller hands over, which `copy=False` "
        "leaves out; writing, digesting and retention happen elsewhere. One save at a time is "
        'under way; a second waits, or with `when_busy="skip"` returns `None`. A failed save '
        "raises `CheckpointError` with path and cause, and leaves the earlier ones as they were."
    ),
    "CKPT-5": (
        "`setup_auto_checkpointing(interval=1000, *, state, every_seconds=None, at_end=True, "
        "on_preemption=True, keep_last=3, keep_best=None, keep_every=None)` sets the policy (the "
        "config section `checkpoints` has the same fields); `await "
        "session.checkpoint_if_due(step)` at a safe point of the training saves where the policy "
        "says so and costs next to nothing where not. A preemption saves before the run ends, "
        "within the grace time."
    ),
    "CKPT-6": (
        '`await session.restore_checkpoint(which="latest")` (`"best"`, a step, a path) verifies '
        "and returns a `Restored` (`state` or `directory`, `step`, `metrics`), or `None` where the "
        "run has none. One that does not verify is reported, set aside, and the next older one "
        "taken. Random states of Python, numpy and torch, where imported, are saved and restored "
        "with it."
    ),
    "CKPT-7": (
        "A resumed run lines up: journal, evaluations and trackers show what an uninterrupted run "
        "would have. What is superseded is decided by position, not by guessing from steps: a "
        "checkpoint knows how far the journal was when it was taken, and what earlier attempts "
        "logged after that position is superseded when it is restored. A program with checkpoints "
        "of its own says it: `session.resume_at(step)`. Where nothing is said, a row hides no "
        "other metric and no other axis: only an earlier attempt's value of the same metric at "
        "the same step is superseded by the later one's."
    ),
    "CKPT-8": (
        "The space that the policy needs is forecast at the first save; too little is one warning, "
        "and an error before anything is written where it cannot fit."
    ),
    "CKPT-9": (
        "`keisei checkpoints RUN` lists, verifies, and says what the policy would keep; doctor "
        "verifies too."
    ),
    "RANK-7": (
        "Checkpoints are sharded: each rank saves its own part, rank 0 commits when all of the "
        "same attempt are there."
    ),
    "REG-1": (
        "`registry.url` (or `KEISEI_REGISTRY_URL`) names a database, `sqlite:///PATH` or "
        "`postgresql://...`; unset, there is none, and every command works from the directories. "
        "Each session is in it from its claim to its end, with owner, attempt, status, times, "
        "tags, note, config, last, best and mean of its metrics, trackers, checkpoints and cost."
    ),
    "REG-2": (
        "It is an index: training never waits for it, an outage loses nothing, what was missed "
        "follows; `keisei registry rebuild` makes it again from the directories."
    ),
    "REG-3": (
        "With one, ownership is a lease with an epoch that grows: renewed by a thread, not by the "
        "loop; taken over only after its time is over, by the database's clock. An owner whose "
        "lease was taken over can write neither the database nor the run's directory, and learns "
        'it: its body is cancelled, and it ends as `failed` ("taken over by ...").'
    ),
    "REG-4": (
        "A run whose owner has stopped renewing is `lost`, apart from `died` (known to be dead) "
        "and `failed`."
    ),
    "REG-5": (
        '`AsyncRegistry(url)` and `Registry(url)`: `runs(query="", order_by=..., limit=..., '
        "offset=...)`, `run(name_or_id)`, `tag`, `untag`, `note`, `watch()`, `rebuild(roots)`. "
        "Tags and notes live in the run's directory (`labels.json`), so that they outlive the "
        "registry."
    ),
    "REG-6": (
        "The query language is one, for CLI, page and Python: `status:failed and tag:ppo and "
        "env.seed>=3 and loss.last<0.2 since:7d`."
    ),
    "REG-7": (
        "Schema changes are numbered migrations; an older keisei reads a newer schema or says that "
        "it cannot."
    ),
    "RANK-1": (
        "Under torchrun, SLURM, Open MPI, MPICH, LSF, accelerate and Ray, rank, world size, local "
        "rank and node are found from the environment alone (which variable decided is said; "
        "contradictions are an error with both values), or given: "
        "`enable_distributed_session(rank, world_size)`, the section `distributed`."
    ),
    "RANK-6": (
        "Preemption has one source of truth: signals, SLURM's end time, Ray's drain notice, a file "
        "or a call become one `Preempting(deadline, source)`; every rank learns it, saves in time, "
        "and ends as `preempted`; `distributed.requeue` asks SLURM to requeue, and the requeued "
        "job resumes the same run."
    ),
    "LOOK-1": (
        "`keisei ls`, `show`, `compare`, `tag`, `note`, `rm` (to a trash), `restore`, `export` "
        "(csv, parquet, json), `checkpoints`, `cancel`, `report`, `ui`, beside `tail`, `plot`, "
        "`doctor`, `sync`: each with `--json`, an explicit `--root` before `KEISEI_LOG_DIR`, and "
        "exit statuses that are documented."
    ),
    "LOOK-2": (
        "`keisei report RUN...` writes one HTML file that opens from disk, asks nothing of the "
        "network, and holds the whole run: charts, config with origins, environment, log tail, "
        "media, cost, lag, checkpoints, verdict; secrets hidden."
    ),
    "LOOK-3": (
        "`keisei ui` serves the same live on loopback behind a token, from its own process: list, "
        "filter, compare, charts that follow, logs, media."
    ),
    "RANK-8": (
        "`keisei cancel RUN` ends a run from elsewhere, gracefully, as `cancelled`, on whichever "
        "host it runs."
    ),
    "MON-1": (
        "CPU, memory, disk, network, and each visible GPU's load, memory, power, temperature, of "
        "the process tree and of what it may use (cgroup), are rows `system/...` of the journal, "
        "sampled outside the program; peaks are kept. A sampler that hangs is shown as hung and "
        "felt by nobody."
    ),
    "MON-3": (
        'Phases (`with session.phase("evaluation"):`), throughput, time to go, and the share of '
        "set-up, training, evaluation, checkpoint, waiting and stall are in the summary."
    ),
    "CMP-1": (
        "`keisei compare A B...` shows what differs in config, code, packages, machine, metrics, "
        "cost; `keisei baseline set RUN`, `keisei check RUN` gives a verdict per metric (`better`, "
        "`worse`, `same`, `undecided`) with the noise band that its own history has; exit status "
        "0, 1, 2."
    ),
    "PROV-1": (
        "Git state with a bounded, scrubbed diff, packages, machine, command line are recorded "
        "beside the run, off the loop; `config_origins.json` says where each value came from and "
        "what it beat; on resume the difference to the earlier attempt is said, by field: free, "
        "worth a warning, refused."
    ),
    "RANK-2": (
        "All ranks get one run: name, id and attempt are agreed by the launch's identity without "
        "torch and without a barrier, over the shared directory or the registry, within "
        "`distributed.timeout`. A rank that never comes does not hang the others."
    ),
    "RANK-4": (
        "The end is the truth about all: the first rank that failed, with its error, decides; a "
        "rank that has vanished is known within a minute; others are told and end too."
    ),
    "MEDIA-1": (
        "`log_image`, `log_figure`, `log_video`, `log_audio`, `log_histogram`, `log_table`, "
        "`log_text`, `log_file` keep the thing once in the run's `media/`, by content, and name it "
        "in the journal; each tracker shows it natively where it can."
    ),
    "MON-2": (
        "The loop's lag is measured in every async session, at a cost under 0.1 %; a stall over "
        "`monitoring.lag_threshold` (0.1 s) is an event with the frame that held the loop and its "
        "class (own code, garbage collection, another thread with the GIL, no CPU, suspended), on "
        "all three loops; the summary has a table per function."
    ),
    "COST-1": (
        "A ledger of money and energy: prices per hour from the config (GPU, node, energy), "
        "`session.log_cost(amount, what)`, `session.log_tokens(model, input, output)`; carried "
        'over attempts and ranks; what has no price is "unpriced", never 0.'
    ),
    "COST-2": (
        "`budget` (money, hours, energy) warns at a share and ends the run gracefully, with a "
        "checkpoint, before it is exceeded by more than one sampling interval."
    ),
    "TEST-1": (
        '`pytest_plugins = ["keisei.pytest_plugin"]` gives `keisei_root`, `keisei_session`, '
        "`keisei_tracker`, `keisei_faults`, `keisei_wandb_server`; works under anyio's plug-in, "
        "pytest-asyncio, pytest-trio, xdist."
    ),
}
