"""The way to the service process of W&B's SDK: what its public methods send it, in fewer steps."""

from __future__ import annotations

from typing import Any

from keisei.trackers.wandb.private import MissingName, get


class Link:
    """The way to the SDK's service: what `run.log` and `run.write_logs` use one by one.

    A few hundred rows at once are six times cheaper than as many calls of `run.log`: what each
    of those costs is mostly the two switches to the SDK's thread and back.

    Args:
        native: the SDK's run.

    Raises:
        MissingName: the SDK has changed.
    """

    def __init__(self, native: Any) -> None:
        self._interface = get("interface", native)
        self._stream_id = get("stream_id", self._interface)
        self._request_type = get("ServerRequest")
        self._asyncer: Any = get("interface_asyncer", self._interface)
        self._publish = get("publish", get("interface_client", self._interface))
        self._step = get("deliver_history_step", self._interface)
        try:
            self.row({"_step": "0"})
            self.line("")
            if not (callable(self._asyncer.run) and callable(self._publish)):
                raise TypeError("they cannot be called")
        except (AttributeError, TypeError, ValueError) as exc:
            raise MissingName(f"wandb has other messages ({exc})") from exc

    def row(self, items: dict[str, str]) -> Any:
        """Return the message that has a history row.

        Args:
            items: its values as JSON, by their names.
        """
        request, message = self._request()
        history = message.request.partial_history
        for name, value in items.items():
            history.item.add(key=name, value_json=value)
        history.action.flush = True
        message.control.local = True
        return request

    def line(self, text: str) -> Any:
        """Return the message that has a line of the run's log."""
        request, message = self._request()
        message.output_logger.line = text
        return request

    def _request(self) -> tuple[Any, Any]:
        request = self._request_type()
        message = request.record_publish
        message._info.stream_id = self._stream_id
        return request, message

    def publish(self, requests: list[Any], passed: list[Any]) -> None:
        """Send messages, in one visit of the SDK's thread; each is added to those that passed."""

        async def publish_all() -> None:
            for request in requests:
                await self._publish(request)
                passed.append(request)

        self._asyncer.run(publish_all)

    def answers(self, timeout: float) -> bool:
        """Wait until the service has handled what it was sent; false where it has gone.

        Args:
            timeout: the longest wait, in seconds.

        Raises:
            TimeoutError: it has not.
        """
        try:
            self._step().wait_or(timeout=timeout)
        except TimeoutError:
            raise
        except Exception:  # noqa: BLE001 - the SDK's own, and each of them says so
            return False
        return True


def link_of(native: Any) -> Link | None:
    """Return the way from a run to the SDK's service, or ``None`` where the SDK has changed."""
    try:
        return Link(native)
    except MissingName:
        return None


def is_finished(native: Any) -> bool:
    """Return whether a run of the SDK's has ended; false where the SDK does not tell."""
    try:
        return bool(get("is_finished", native))
    except MissingName:
        return False
