"""Sessions for tests: made in one call, below the test's own root, and seen to their end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, overload

from keisei import AppConfig, AsyncSessionManager, SessionManager, load_config
from keisei.run.status import FINAL

ConfigT = TypeVar("ConfigT")

# What a busy machine holds up is no event in the journals that tests compare.
_DEFAULTS: dict[str, dict[str, Any]] = {"monitoring": {"lag": False, "phases": False}}
_LAST_WORDS_S = 5.0


class Sessions:
    """Makes sessions for a test, of both faces: ``async with sessions() as session:``.

    It does not start them, and does not end them: the test does, on the loop that it runs on. So
    it is the same for every plug-in that runs async tests.
    """

    def __init__(self) -> None:
        self._made: list[AsyncSessionManager[Any] | SessionManager[Any]] = []

    @overload
    def __call__(
        self, *, run_name: str | None = None, **sections: Mapping[str, Any]
    ) -> AsyncSessionManager[AppConfig]: ...

    @overload
    def __call__(
        self, config: ConfigT, *, run_name: str | None = None
    ) -> AsyncSessionManager[ConfigT]: ...

    def __call__(
        self, config: Any = None, *, run_name: str | None = None, **sections: Mapping[str, Any]
    ) -> AsyncSessionManager[Any]:
        """Return a session for programs on an event loop.

        Args:
            config: the run's config, of any kind that a session takes; without it, see `config`.
            run_name: the run's name; without it, the config or a generated one decides.
            sections: the sections of a config that is made for the test, as
                ``training={"total_timesteps": 10}``.

        Raises:
            ConfigError: the config, or a section, is not valid.
            InvalidRunNameError: the name is not a safe one.
            TypeError: there is a config, and there are sections.
        """
        made = AsyncSessionManager(self._chosen(config, sections), run_name=run_name)
        self._made.append(made)
        return made

    @overload
    def blocking(
        self, *, run_name: str | None = None, **sections: Mapping[str, Any]
    ) -> SessionManager[AppConfig]: ...

    @overload
    def blocking(
        self, config: ConfigT, *, run_name: str | None = None
    ) -> SessionManager[ConfigT]: ...

    def blocking(
        self, config: Any = None, *, run_name: str | None = None, **sections: Mapping[str, Any]
    ) -> SessionManager[Any]:
        """Return a session for scripts and threads; see `__call__`."""
        made = SessionManager(self._chosen(config, sections), run_name=run_name)
        self._made.append(made)
        return made

    def config(self, **sections: Mapping[str, Any]) -> AppConfig:
        """Return a config that is made for the test, whose session watches neither loop nor phases.

        Args:
            sections: its sections, where they are not the default.

        Raises:
            ConfigError: a section is not valid.
        """
        return load_config(overrides={**_DEFAULTS, **sections})

    def let_go(self) -> Iterator[str]:
        """End the sessions that were started and not ended, and yield a sentence on each of them.

        They are recorded as cancelled; their trackers are not waited for.
        """
        for made in self._made:
            session = made._session if isinstance(made, SessionManager) else made
            if session.state["directories_setup"] and session.status not in FINAL:
                way_out = "use it in a `with` block, or call finalize_session()"
                yield f"the session of run {made.run_name!r} has not ended: {way_out}"
                session._ending.record_end("cancelled", _LAST_WORDS_S)
        self._made.clear()

    def _chosen(self, config: object, sections: Mapping[str, Mapping[str, Any]]) -> Any:
        if config is None:
            return self.config(**sections)
        if sections:
            raise TypeError(f"a session takes a config, or sections ({', '.join(sections)})")
        return config
