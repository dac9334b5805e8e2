"""A handler as a class: three steps, of which a subclass overrides what it needs."""

from __future__ import annotations

from collections.abc import Callable

from kupool.net.routing.request import Request
from kupool.net.routing.steps import compose


class BaseRouter:
    """Answers the messages of one method or one id; every step here does nothing.

    ``before`` runs first: what it returns, unless None, is the answer, and the rest is
    left out. ``handle`` returns the answer. ``after`` gets the answer too, once it is
    there. Each may be a plain method, a coroutine, or return a Deferred. An exception in
    one leaves out those that follow.
    """

    def before(self, request: Request) -> object:
        """Prepare, or return an answer in place of ``handle``."""
        return None

    def handle(self, request: Request) -> object:
        """Return the answer, as any handler does."""
        return None

    def after(self, request: Request, outcome: object) -> object:
        """Tidy up; what is returned is ignored."""
        return None


class Plain(BaseRouter):
    """A function of a :class:`Request`, as what routers register."""

    def __init__(self, function: Callable[[Request], object]) -> None:
        self.function = function

    def handle(self, request: Request) -> object:
        """Call the function."""
        return self.function(request)


def as_function(router: BaseRouter) -> Callable[[Request], object]:
    """Return one function of a request that takes all the steps that are overridden."""
    if type(router) is Plain:
        return router.function
    kind = type(router)
    before = () if kind.before is BaseRouter.before else (router.before,)
    after = () if kind.after is BaseRouter.after else (router.after,)
    return compose(router.handle, before, after)


__all__ = ["BaseRouter", "Plain", "as_function"]
