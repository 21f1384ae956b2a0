"""How a program logs what it spends, in a session and in a member of its run."""

from __future__ import annotations

from typing import Any

from keisei.errors import JournalError
from keisei.journal.writer import Journal
from keisei.monitoring.ledger import COST, TOKENS
from keisei.session.recorder import Recorder
from keisei.session.spending import cost_event, tokens_event


class SpendingMethods:
    """What a program spends, logged without waiting, from the loop or a thread."""

    _recorder: Recorder

    def log_cost(self, amount: object, what: str, currency: str | None = None) -> None:
        """Log an amount of money that the run has cost; never waits.

        Amounts are summed exactly, for each currency apart. With a budget they count at once: the
        call that spends it ends the run as `cancelled`.

        Args:
            amount: a whole number, a float (by its shortest digits), a `Decimal`, or a text.
            what: what it was for, in a few words; equal ones are one line of the ledger.
            currency: its currency by three letters; without it, `cost.currency`.

        Raises:
            TypeError: the amount is no number, or what it was for no text.
            ValueError: the amount is negative or not finite, or there is no such currency.
            RunCancelledError: the budget is spent, where the body can be told in no other way.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        spending = self._recorder.spending
        event = cost_event(amount, what, currency or spending.currency)
        self._log_spent("log_cost()", COST, event)

    def log_tokens(
        self,
        model: str,
        input: int,
        output: int,
        *,
        cached_input: int = 0,
        cache_write: int = 0,
        reasoning: int = 0,
        provider: str | None = None,
    ) -> None:
        """Log the tokens of a call to a language model, with their price; never waits.

        The price is that of the table of `genai-prices` (the extra `keisei[cost]`), which is kept
        with it. What has no price is listed as unpriced, and is not 0.

        Args:
            model: the model's name, as its provider has it.
            input: the input tokens, cached ones among them.
            output: the output tokens, those of reasoning among them.
            cached_input: how many of the input tokens were read from the provider's cache.
            cache_write: how many of them were written to it.
            reasoning: how many of the output tokens were of reasoning.
            provider: who has served it, where the model's name does not tell.

        Raises:
            TypeError: a count is no whole number, or a name no text.
            ValueError: a count is negative, or larger than that of which it is a part.
            RunCancelledError: the budget is spent, where the body can be told in no other way.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        counts = {
            "input": input,
            "output": output,
            "cached_input": cached_input,
            "cache_write": cache_write,
            "reasoning": reasoning,
        }
        event: dict[str, Any] = tokens_event(model, counts, provider)
        spending = self._recorder.spending
        self._first("log_tokens()")
        event = spending.priced(event)
        self._log_spent("log_tokens()", TOKENS, event)
        spending.price_later(event, self._recorder.first)

    def _log_spent(self, step: str, name: str, event: dict[str, Any]) -> None:
        journal = self._recorder.journal or self._first(step)
        self._recorder.stop.check()
        try:
            journal.log_event(name, event)
        except JournalError as exc:
            raise self._no_journal(step) from exc
        self._recorder.spending.on_spent(name, event)
        self._recorder.stop.check()

    def _first(self, step: str) -> Journal:
        raise NotImplementedError

    def _no_journal(self, step: str) -> Exception:
        raise NotImplementedError
