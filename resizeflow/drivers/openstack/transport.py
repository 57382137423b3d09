"""HTTP as the driver speaks it: each request asks its `Trip` before it is written, and waits no longer than that does.

The check is where bytes go into the socket, because what comes before takes time: a token, a name's address, a
connection, a handshake.
"""

from __future__ import annotations

import threading
from typing import Any

from keystoneauth1.session import TCPKeepAliveAdapter
from requests import PreparedRequest, Response
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from resizeflow.drivers.openstack.trip import Trip


class _Asking:
    """A connection that asks before it sends."""

    def send(self: Any, data: Any) -> None:
        if self.sock is None:
            self.connect()
        trip = threading.current_thread()
        if isinstance(trip, Trip):
            trip.sending()
        super().send(data)  # type: ignore[misc]


class _Plain(_Asking, HTTPConnection):
    pass


class _Secure(_Asking, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class Transport(TCPKeepAliveAdapter):
    """keystoneauth's, with such connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Those without a proxy."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Those through a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(  # noqa: PLR0917 - requests' own
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """One request. The configuration may give it less time for each wait on a socket than its trip has."""
        trip = threading.current_thread()
        if isinstance(trip, Trip):
            timeout = min(timeout, trip.remaining) if isinstance(timeout, float) else trip.remaining
        return super().send(request, stream, timeout, verify, cert, proxies)
