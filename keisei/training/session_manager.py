"""Both faces of a session under their documented names; each is defined in a file of its own."""

from keisei.session.async_session import AsyncSessionManager
from keisei.session.blocking_session import SessionManager
from keisei.training import utils

__all__ = ["AsyncSessionManager", "SessionManager", "utils"]
