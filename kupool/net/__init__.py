"""The server framework: long-lived, framed connections and what answers on them.

It knows nothing of the pool, which is built on the public names of this package.
"""

from __future__ import annotations

from kupool.net.admission import ServerSettings
from kupool.net.command import run
from kupool.net.configuration import ConfigError, ServerConfig
from kupool.net.delivery import Delivery, Policy
from kupool.net.dialling.client import Client
from kupool.net.dialling.failures import (
    ClientFailure,
    ConnectionEnded,
    NotConnected,
    NotWanted,
    RequestTimeout,
    Unreachable,
)
from kupool.net.dialling.settings import ClientSettings
from kupool.net.failures import ConnectionNotFound
from kupool.net.figures import Meter
from kupool.net.heartbeat import Heartbeat
from kupool.net.hooks import HookedObserver
from kupool.net.interfaces import IClosingObserver, IConnectionObserver
from kupool.net.manager import ConnectionManager
from kupool.net.observer import Observer
from kupool.net.routing.base import BaseRouter
from kupool.net.routing.correlation import correlated
from kupool.net.routing.guards import RateLimit, allow
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.interceptors import Intercepted
from kupool.net.routing.interfaces import IRouter
from kupool.net.routing.request import LATER, Request
from kupool.net.routing.router import Router
from kupool.net.routing.table import Unknown
from kupool.net.server import Server
from kupool.net.stalls import StallWatch
from kupool.net.workers.pool import WorkerPool
from kupool.net.workers.processes import Processes
from kupool.net.workers.settings import WorkerSettings
from kupool.net.workers.threads import Threads
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed, PropertyNotFound
from kupool.wire.framing import Tlv

__all__ = [
    "LATER",
    "BaseRouter",
    "Client",
    "ClientFailure",
    "ClientSettings",
    "ConfigError",
    "Connection",
    "ConnectionClosed",
    "ConnectionEnded",
    "ConnectionManager",
    "ConnectionNotFound",
    "Delivery",
    "Heartbeat",
    "HookedObserver",
    "IClosingObserver",
    "IConnectionObserver",
    "IRouter",
    "IdRouter",
    "Intercepted",
    "Meter",
    "NotConnected",
    "NotWanted",
    "Observer",
    "Policy",
    "Processes",
    "PropertyNotFound",
    "RateLimit",
    "Request",
    "RequestTimeout",
    "Router",
    "Server",
    "ServerConfig",
    "ServerSettings",
    "StallWatch",
    "Threads",
    "Tlv",
    "Unknown",
    "Unreachable",
    "WorkerPool",
    "WorkerSettings",
    "allow",
    "correlated",
    "run",
]
