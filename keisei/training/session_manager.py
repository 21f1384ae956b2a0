"""Both faces of a session under their documented names; each is defined in a file of its own."""

from keisei.training import utils
from keisei.training.async_session import AsyncSessionManager
from keisei.training.blocking_session import SessionManager

__all__ = ["AsyncSessionManager", "SessionManager", "utils"]
