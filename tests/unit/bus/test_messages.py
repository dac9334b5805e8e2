"""The words by which models and outcomes are called on every connection."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.messages import Answer, Kind, Message, Model, Outcome


class WordsTests(SynchronousTestCase):
    """Servers and clients of all releases have to mean the same by them."""

    def test_models(self) -> None:
        words = ["reliable-random", "reliable-specific", "unreliable-all", "unreliable-random"]
        self.assertEqual([model.value for model in Model], words)
        self.assertEqual([model.text for model in Model], words)
        self.assertEqual([model.reliable for model in Model], [True, True, False, False])

    def test_kinds_of_outcomes(self) -> None:
        words = ["answered", "refused", "timeout", "no subscriber", "sent"]
        self.assertEqual([kind.value for kind in Kind], words)
        self.assertEqual([kind.text for kind in Kind], words)

    def test_what_need_not_be_given(self) -> None:
        self.assertEqual(Answer(), (b"", 0))
        self.assertEqual(Outcome(Kind.SENT), (Kind.SENT, b"", 0, "", "", 0))
        message = Message("id", "t", b"", Model.UNRELIABLE_ALL, {})
        self.assertEqual(message[5:], ("", 0.0, False))
