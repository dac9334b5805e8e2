"""The arguments of a publish: each limit on both of its sides."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Message, Model
from kupool.bus.publishing import check_text, checked_headers, checked_keys, json_size, make_message
from kupool.bus.remote.messages import encode_data


class MessageTests(SynchronousTestCase):
    """A-22: what is wrong is named; what is just allowed passes."""

    def make(self, model: Model = Model.RELIABLE_RANDOM, **arguments: Any) -> Message:
        settings = arguments.pop("settings", BusSettings())
        topic = arguments.pop("topic", "t")
        return make_message(settings, "id", model, topic, **{"data": b"x", **arguments})

    def refused(self, why: str, **arguments: Any) -> None:
        with self.assertRaisesRegex(ValueError, why):
            self.make(**arguments)

    def test_a_message(self) -> None:
        message = self.make(timeout=2.0, key="k", headers={"a": "b"}, topic=7)
        self.assertEqual(
            message, Message("id", "7", b"x", Model.RELIABLE_RANDOM, {"a": "b"}, "k", 2.0, False)
        )

    def test_what_need_not_be_given(self) -> None:
        message = make_message(BusSettings(), "id", Model.UNRELIABLE_ALL, "t", data=b"x")
        self.assertEqual(message, Message("id", "t", b"x", Model.UNRELIABLE_ALL, {}))
        self.assertEqual((message.key, message.timeout, message.redelivered), ("", 0.0, False))

    def test_timeout(self) -> None:
        self.assertEqual(self.make().timeout, BusSettings().timeout)
        self.assertEqual(self.make(Model.UNRELIABLE_ALL, timeout=2.0).timeout, 0.0)
        for timeout in (0.01, 3600.0):
            self.assertEqual(self.make(timeout=timeout).timeout, timeout)
        for timeout in (0.0, 0.0099, 3600.1, float("nan")):
            self.refused("timeout: .* is not from 0.01 to 3600", timeout=timeout)

    def test_data(self) -> None:
        settings = BusSettings(max_data=10)
        self.assertEqual(self.make(settings=settings, data=b"x" * 10).data, b"x" * 10)
        self.refused("data: 11 bytes, at most 10", settings=settings, data=b"x" * 11)
        for wrong in ("text", bytearray(b"x"), None):
            self.refused(f"expected bytes, not {type(wrong).__name__}", data=wrong)

        class Other(bytes):
            pass

        self.assertIs(type(self.make(data=Other(b"x")).data), bytes)

    def test_key(self) -> None:
        self.assertEqual(self.make(key="k" * 255).key, "k" * 255)
        for wrong in ("k" * 256, "\n", 7):
            self.refused("key: .* is not printable text of at most 255", key=wrong)

    def test_headers(self) -> None:
        most = {"a": "x" * 1000, "né": "x" * (2048 - 1001 - 3)}
        self.assertEqual(checked_headers(most), most)
        self.assertEqual(checked_headers(None), {})
        with self.assertRaisesRegex(ValueError, "headers: 2049 bytes, at most 2048"):
            checked_headers({**most, "a": "x" * 1001})
        with self.assertRaisesRegex(ValueError, "2049 bytes"):
            checked_headers({"né": "x" * 2046})
        for wrong in ({"": "x"}, {"a": "\n"}, {"\n": "a"}):
            with self.assertRaisesRegex(ValueError, "cannot be printed"):
                checked_headers(wrong)
        for wrong_type in ({"a": 1}, {1: "a"}):
            with self.assertRaisesRegex(ValueError, "have to be text"):
                checked_headers(wrong_type)  # type: ignore[arg-type]
        self.assertEqual(checked_headers({"a": ""}), {"a": ""})

    def test_headers_are_the_messages_own(self) -> None:
        headers = {"a": "b"}
        message = self.make(headers=headers)
        headers["a"] = "c"
        self.assertEqual(message.headers, {"a": "b"})

    def test_all_together(self) -> None:
        """What is larger as JSON than a connection carries is refused before it is sent."""
        arguments: dict[str, Any] = {"data": b"\xff" * 45_000, "headers": {"h": '"' * 2000}}
        size = json_size(arguments["data"], "t" * 200, "", arguments["headers"])
        self.assertGreater(size, 64_000)
        self.assertLessEqual(size, BusSettings().max_message)
        self.make(topic="t" * 200, **arguments)
        arguments.update(key='"' * 255, topic="€" * 255)
        size = json_size(
            arguments["data"], arguments["topic"], arguments["key"], arguments["headers"]
        )
        self.assertGreater(size, BusSettings().max_message)
        self.refused(f"data, topic, key and headers: {size} bytes as JSON", **arguments)

    def test_all_together_to_the_last_byte(self) -> None:
        arguments: dict[str, Any] = {
            "data": b"\xff" * 45_000,
            "topic": "€" * 255,
            "headers": {"h": '"' * 2040},
        }
        left = 65_536 - json_size(**arguments, key="")
        self.make(key="k" * left, **arguments)
        text = "65537 bytes as JSON, at most 65536 are allowed"
        self.refused(text, key="k" * (left + 1), **arguments)

    def test_size_as_json(self) -> None:
        """No smaller than it is, and no larger by more than the envelope and a few bytes."""
        for data in (b"", b"x", b"plain", b'"' * 9, "né".encode() * 50, b"\xff" * 10, b"\x01" * 40):
            headers = {"a": '"b"'}
            size = json_size(data, "t", "k", headers)
            text, _ = encode_data(data)
            beside = [text, ["t", "k", headers]]
            real = len(json.dumps(beside, ensure_ascii=False, separators=(",", ":")).encode()) - 3
            self.assertLessEqual(real + 512, size, data)
            self.assertLessEqual(size, real + 512 + 2, data)


class KeysTests(SynchronousTestCase):
    def test_keys(self) -> None:
        """A-13: at most 10,000."""
        most = [str(n) for n in range(10_000)]
        self.assertEqual(checked_keys(iter(most)), tuple(most))
        with self.assertRaisesRegex(ValueError, "keys: 10001, at most 10000"):
            checked_keys([*most, "more"])

    def test_wrong_keys(self) -> None:
        with self.assertRaisesRegex(ValueError, "not one text"):
            checked_keys("ab")
        with self.assertRaisesRegex(ValueError, "keys: 7 is not printable"):
            checked_keys(["a", 7])  # type: ignore[list-item]

    def test_text(self) -> None:
        check_text("what", "x" * 255)
        for wrong in ("x" * 256, "\x00", b"x"):
            with self.assertRaisesRegex(ValueError, "^what: "):
                check_text("what", wrong)
