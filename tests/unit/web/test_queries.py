"""What the parameters of a query mean, and how wrong ones are named."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.web.answers import ApiError
from kupool.web.control import KnownHosts, host_of
from kupool.web.queries import MINUTE, parse_query, parse_time, show_time

#: 2026-11-21T10:05:30Z
NOW = 1795255530.5
THIS_MINUTE = 1795255500


class TimeTests(SynchronousTestCase):
    """K-69, K-73: times of any offset become UTC minutes."""

    def test_utc(self) -> None:
        self.assertEqual(parse_time("minute", "2026-11-21T10:05:00Z"), (THIS_MINUTE, True))

    def test_any_offset(self) -> None:
        for text in (
            "2026-11-21T12:05:00+02:00",
            "2026-11-21T03:35:00-06:30",
            "2026-11-21T10:05:00-00:00",
            "2026-11-22T00:04:00+13:59",
            "2026-11-21t10:05:00z",
            "2026-11-21 10:05:00Z",
        ):
            self.assertEqual(parse_time("minute", text), (THIS_MINUTE, True), text)

    def test_a_plus_sign_that_became_a_space(self) -> None:
        query = parse_query({b"minute": [b"2026-11-21T12:05:00 02:00"]}, NOW)
        self.assertEqual(query.minute, THIS_MINUTE)

    def test_seconds_are_cut_off(self) -> None:
        for text in ("2026-11-21T10:05:59.999Z", "2026-11-21T10:05:60Z", "2026-11-21T10:05:01Z"):
            self.assertEqual(parse_time("minute", text), (THIS_MINUTE, False), text)

    def test_not_rfc3339(self) -> None:
        for text in (
            "",
            "now",
            "1795255500",
            "2026-11-21",
            "20261121T100500Z",
            "2026-11-21T10:05Z",
            "2026-11-21T10:05:00",
            "2026-11-21T10:05:00+2",
            "2026-13-21T10:05:00Z",
            "2026-02-30T10:05:00Z",
            "2026-11-21T25:05:00Z",
            "2026-11-21T10:05:61Z",
            "2026-11-21T10:05:00+25:00",
            "1969-12-31T23:59:00Z",
            "9999-12-31T23:59:59-01:00",
            "0001-01-01T00:00:00+01:00",
            "٢٠٢٦-11-21T10:05:00Z",
        ):
            with self.assertRaises(ApiError) as caught:
                parse_time("minute", text)
            self.assertEqual(caught.exception.code, 400)
            self.assertTrue(caught.exception.text.startswith("minute: "), text)

    @given(
        st.datetimes(
            min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.none()
        ),
        st.integers(-23 * 60 - 59, 23 * 60 + 59),
    )
    def test_every_time_is_in_its_minute(self, at: datetime, offset: int) -> None:
        sign = "-" if offset < 0 else "+"
        text = f"{at:%H:%M:%S}{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
        # Without the fraction, which a float this far from 1970 would round up.
        utc = at.replace(tzinfo=UTC, microsecond=0).timestamp() - offset * 60
        minute, _ = parse_time("minute", f"{at.year:04}-{at:%m-%dT}{text}")
        self.assertEqual(minute % MINUTE, 0)
        self.assertTrue(minute <= utc < minute + MINUTE)

    @given(st.text())
    def test_no_text_raises_anything_else(self, text: str) -> None:
        try:
            minute, _ = parse_time("from", text)
        except ApiError as error:
            self.assertTrue(error.text.startswith("from: "))
        else:
            self.assertEqual(minute % MINUTE, 0)

    def test_shown(self) -> None:
        self.assertEqual(show_time(THIS_MINUTE), "2026-11-21T10:05:00Z")
        self.assertEqual(show_time(NOW), "2026-11-21T10:05:30Z")


class QueryTests(SynchronousTestCase):
    """K-73: a minute, a range, the top N."""

    def refused(self, **args: str) -> str:
        raw = {name.encode(): [value.encode()] for name, value in args.items()}
        with self.assertRaises(ApiError) as caught:
            parse_query(raw, NOW)
        self.assertEqual(caught.exception.code, 400)
        return caught.exception.text

    def test_nothing_asked_for_is_the_last_quarter_of_an_hour(self) -> None:
        query = parse_query({}, NOW)
        self.assertEqual(query.end, THIS_MINUTE + 60)
        self.assertEqual(query.start, THIS_MINUTE + 60 - 15 * 60)
        self.assertEqual((query.username, query.minute, query.top), ("", None, 10))

    def test_the_minute_that_a_range_ends_in_belongs_to_it(self) -> None:
        begin = b"2026-11-21T09:00:00Z"
        for end, last in ((b"10:05:00Z", THIS_MINUTE), (b"10:04:30Z", THIS_MINUTE)):
            query = parse_query({b"from": [begin], b"to": [b"2026-11-21T" + end]}, NOW)
            self.assertEqual((query.start, query.end), (1795251600, last))

    def test_an_open_range_ends_now_or_begins_a_quarter_of_an_hour_before(self) -> None:
        query = parse_query({b"from": [b"2026-11-21T09:00:00Z"]}, NOW)
        self.assertEqual((query.start, query.end), (1795251600, THIS_MINUTE + 60))
        query = parse_query({b"to": [b"2026-11-21T09:00:00Z"]}, NOW)
        self.assertEqual((query.start, query.end), (1795251600 - 900, 1795251600))
        query = parse_query({b"to": [b"1970-01-01T00:01:00Z"]}, NOW)
        self.assertEqual((query.start, query.end), (0, 60))

    def test_wrong_values_are_named(self) -> None:
        self.assertIn("to", self.refused(**{"from": "2026-11-21T10:00:00Z", "to": "yesterday"}))
        late, early = "2026-11-21T10:00:00Z", "2026-11-21T09:00:00Z"
        self.assertTrue(self.refused(**{"from": late, "to": early}).startswith("from: "))
        self.assertTrue(self.refused(**{"from": late, "to": late}).startswith("from: "))
        self.assertTrue(self.refused(username="").startswith("username: "))
        self.assertTrue(self.refused(username="a" * 256).startswith("username: "))
        self.assertTrue(self.refused(username="a\nb").startswith("username: "))
        for top in ("0", "-1", "1001", "ten", "1.5", "", "9" * 30, "١"):
            self.assertTrue(self.refused(top=top).startswith("top: "), top)
        self.assertTrue(self.refused(minute=late, top="3").startswith("top: "))
        self.assertTrue(self.refused(user="alice").startswith("user: unknown parameter"))

    def test_given_twice_or_not_utf8(self) -> None:
        with self.assertRaises(ApiError) as caught:
            parse_query({b"username": [b"a", b"b"]}, NOW)
        self.assertEqual(caught.exception.text, "username: given more than once")
        with self.assertRaises(ApiError) as caught:
            parse_query({b"username": [b"\xff"]}, NOW)
        self.assertEqual(caught.exception.text, "username: is not UTF-8")

    @given(st.dictionaries(st.binary(), st.lists(st.binary()), max_size=4))
    def test_no_query_raises_anything_else(self, args: dict[bytes, list[bytes]]) -> None:
        try:
            parse_query(args, NOW)
        except ApiError as error:
            self.assertEqual(error.code, 400)


class HostTests(SynchronousTestCase):
    """Which names a request may give this server."""

    def test_the_host_of_a_header(self) -> None:
        for header, host in (
            ("localhost", "localhost"),
            ("LOCALHOST:8081", "localhost"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::1]:8081", "::1"),
            ("", ""),
            ("localhost:port", ""),
            ("localhost:99999", ""),
            ("evil@localhost", ""),
            ("localhost/x", ""),
            ("localhost?x", ""),
            ("localhost#x", ""),
            ("[::1", ""),
        ):
            self.assertEqual(host_of(header), host, header)

    def test_known_names(self) -> None:
        hosts = KnownHosts(["Pool.Example.com", "fe80::2"])
        for header in ("localhost:1", "127.0.0.1", "[::1]:8081", "POOL.example.com:8081"):
            self.assertTrue(hosts.knows(header), header)
        self.assertTrue(hosts.knows("[fe80::2]:8081"))
        for header in ("", "example.com", "localhost.evil.com", "127.0.0.1.evil.com", "10.0.0.1"):
            self.assertFalse(hosts.knows(header), header)

    def test_a_name_that_is_none(self) -> None:
        for name in ("pool.example.com:8081", "http://pool", "", "a/b", "a@b"):
            self.assertRaises(ValueError, KnownHosts, [name])
