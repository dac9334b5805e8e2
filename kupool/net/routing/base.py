"""Class-based handlers with three steps: before, handle and after."""

from __future__ import annotations

from collections.abc import Callable

from kupool.net.routing.request import Request
from kupool.net.routing.steps import compose


class BaseRouter:
    """Handles the messages of one method or id; subclasses override the steps they need.

    - ``before`` runs first. If it returns something other than None, that is the answer, and
      the other steps do not run.
    - ``handle`` returns the answer.
    - ``after`` gets the answer once it is available.

    Each step may be a plain method or a coroutine, or return a Deferred. After an exception
    in one step, the following steps do not run.
    """

    def before(self, request: Request) -> object:
        """Prepare, or return an answer instead of calling ``handle``."""
        return None

    def handle(self, request: Request) -> object:
        """Return the answer, like any handler."""
        return None

    def after(self, request: Request, outcome: object) -> object:
        """Clean up; the return value is ignored."""
        return None


class Plain(BaseRouter):
    """Wraps a function of a :class:`Request` as a handler."""

    def __init__(self, function: Callable[[Request], object]) -> None:
        self.function = function

    def handle(self, request: Request) -> object:
        """Call the function."""
        return self.function(request)


def as_function(router: BaseRouter) -> Callable[[Request], object]:
    """Return one function of a request that runs all overridden steps."""
    if type(router) is Plain:
        return router.function
    kind = type(router)
    before = () if kind.before is BaseRouter.before else (router.before,)
    after = () if kind.after is BaseRouter.after else (router.after,)
    return compose(router.handle, before, after)


__all__ = ["BaseRouter", "Plain", "as_function"]
