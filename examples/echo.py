"""Answers every request ``echo`` with its own params, in every framing."""

from kupool.net import Observer, Router, Server, run

router = Router()
router.add("echo", lambda connection, request: request.params, object)


def make(reactor: object, arguments: object) -> Server:
    return Server(reactor, Observer(router))


if __name__ == "__main__":
    run(make, __doc__)
