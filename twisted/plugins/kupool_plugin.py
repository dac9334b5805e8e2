"""Makes ``twistd kupool`` known; imports nothing heavy."""

from twisted.application.service import ServiceMaker

kupool = ServiceMaker(
    "KuPool",
    "kupool.tap",
    "Hands out jobs, verifies what comes back, and counts every accepted one exactly once.",
    "kupool",
)
