"""The routes of limits and rooms, without a daemon."""

from __future__ import annotations

from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.limits import MAX_ROOMS, LimitPages, LimitUse, RoomUse
from tests.fakes.web_site import RouteTestCase


class LimitPagesTests(RouteTestCase):
    """W-86: limits are shown with their use, and rooms with their members."""

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        self.used = [LimitUse("connections", "max-connections", 7, 100)]
        self.found = [RoomUse("den", 2, 1), RoomUse("hall", 9, 9), RoomUse("attic", 2, 0)]

        async def uses() -> list[LimitUse]:
            return self.used

        return LimitPages(uses, lambda: self.found).routes(access)

    def test_limits(self) -> None:
        self.assertEqual(
            self.ask("/api/limits").json,
            {
                "limits": [
                    {
                        "name": "connections",
                        "setting": "max-connections",
                        "used": 7,
                        "limit": 100,
                        "unit": "",
                    }
                ]
            },
        )

    def test_the_largest_rooms_first(self) -> None:
        answer = self.ask("/api/rooms").json
        self.assertEqual(answer["total"], 3)
        self.assertEqual([room["room"] for room in answer["rooms"]], ["hall", "attic", "den"])

    def test_many_rooms(self) -> None:
        """W-86: an answer is bounded, and says how many there are."""
        self.found = [RoomUse(f"r{n}", n, 0) for n in range(MAX_ROOMS + 5)]
        answer = self.ask("/api/rooms").json
        self.assertEqual((answer["total"], len(answer["rooms"])), (MAX_ROOMS + 5, MAX_ROOMS))

    def test_for_operators(self) -> None:
        for path in ("/api/limits", "/api/rooms"):
            self.assertEqual(self.ask(path, X_Forwarded_For="192.0.2.1").code, 401)


class WithoutRoomsTests(RouteTestCase):
    """W-86: where rooms are off, the index lists no route for them."""

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        async def uses() -> list[LimitUse]:
            return []

        return LimitPages(uses, None).routes(access)

    def test_no_route(self) -> None:
        self.assertEqual(self.ask("/api/rooms").code, 404)
        paths = [route["path"] for route in self.ask("/").json["routes"]]
        self.assertIn("/api/limits", paths)
        self.assertNotIn("/api/rooms", paths)
