"""The server framework: long-lived, framed connections and the handlers of their messages.

It does not depend on the pool, which uses the public names of this package. This module
exports what a first service needs. Import everything else from its own module, as the table
in docs/framework.md shows.
"""

from __future__ import annotations

from kupool.moved import moved_names
from kupool.net.admission import ServerSettings
from kupool.net.command import run
from kupool.net.dialling.client import Client
from kupool.net.dialling.settings import ClientSettings
from kupool.net.heartbeat import Heartbeat
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.workers.pool import WorkerPool
from kupool.session.connection import Connection

#: Old names of this module, and where they are now.
MOVED = {
    "LATER": "kupool.net.routing.request.LATER",
    "Backoff": "kupool.net.dialling.backoff.Backoff",
    "BaseRouter": "kupool.net.routing.base.BaseRouter",
    "ClientFailure": "kupool.net.dialling.failures.ClientFailure",
    "ConfigError": "kupool.net.configuration.ConfigError",
    "ConnectionClosed": "kupool.session.failures.ConnectionClosed",
    "ConnectionEnded": "kupool.net.dialling.failures.ConnectionEnded",
    "ConnectionManager": "kupool.net.manager.ConnectionManager",
    "ConnectionNotFound": "kupool.net.failures.ConnectionNotFound",
    "Delivery": "kupool.net.delivery.Delivery",
    "HookedObserver": "kupool.net.hooks.HookedObserver",
    "IClosingObserver": "kupool.net.interfaces.IClosingObserver",
    "IConnectionObserver": "kupool.net.interfaces.IConnectionObserver",
    "IRouter": "kupool.net.routing.interfaces.IRouter",
    "Intercepted": "kupool.net.routing.interceptors.Intercepted",
    "Meter": "kupool.net.figures.Meter",
    "NotConnected": "kupool.net.dialling.failures.NotConnected",
    "Policy": "kupool.net.delivery.Policy",
    "Processes": "kupool.net.workers.processes.Processes",
    "PropertyNotFound": "kupool.session.failures.PropertyNotFound",
    "RateLimit": "kupool.net.routing.guards.RateLimit",
    "RequestTimeout": "kupool.net.dialling.failures.RequestTimeout",
    "ServerConfig": "kupool.net.configuration.ServerConfig",
    "StallWatch": "kupool.net.stalls.StallWatch",
    "Threads": "kupool.net.workers.threads.Threads",
    "Tlv": "kupool.wire.framing.Tlv",
    "Unknown": "kupool.net.routing.table.Unknown",
    "Unreachable": "kupool.net.dialling.failures.Unreachable",
    "WorkerSettings": "kupool.net.workers.settings.WorkerSettings",
    "allow": "kupool.net.routing.guards.allow",
    "correlated": "kupool.net.routing.correlation.correlated",
}

__getattr__ = moved_names(__name__, MOVED)

__all__ = [
    "Client",
    "ClientSettings",
    "Connection",
    "Heartbeat",
    "IdRouter",
    "Observer",
    "Request",
    "Router",
    "Server",
    "ServerSettings",
    "WorkerPool",
    "run",
]
