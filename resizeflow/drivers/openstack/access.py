"""The way in to a service, as its section of the configuration says it, with keystoneauth.

The section takes the options of keystoneauth's plugin (`auth_type` and its own), session (`cafile`, `insecure`, ...)
and adapter (`region_name`, `valid_interfaces`, `endpoint_override`, ...). Retries are not taken: the gate has its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystoneauth1 import exceptions, loading
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.loading.adapter import process_conf_options
from keystoneauth1.service_token import ServiceTokenAuthWrapper
from keystoneauth1.session import Session
from oslo_config import cfg

from resizeflow.config import what_is_wrong
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.openstack.errors import cleaned, entering
from resizeflow.drivers.openstack.product import Product
from resizeflow.drivers.openstack.transport import Transport

SERVICE = "service"
"""The role of those who act for others."""
DISCREET = tuple(f"keystoneauth.session{part}" for part in ("", ".request", ".response", ".body", ".request-id"))
"""Loggers of requests and answers: they stay silent also if somebody who debugs something sets their levels later."""


@dataclass(frozen=True)
class Access:
    """A session, and what leads it to the service."""

    product: Product
    session: Session
    options: Mapping[str, Any]
    """Those of an adapter."""
    user: BaseIdentityPlugin | None
    """Who logs in to Keystone, None without one."""
    keystone: str
    section: str

    def log_in(self) -> None:
        """Gets a token; takes no time while the last one holds. Raises `Refused` or `Unreachable`."""
        with entering(self.keystone, self.product, self.section):
            self.session.get_auth_headers()
            roles = [SERVICE] if self.user is None else self.user.get_access(self.session).role_names or []
        if SERVICE not in roles:
            raise Refused(
                f"{self.keystone} gives the user of {self.section} no role {SERVICE}, without which "
                f"{self.product.without_role}: grant it, beside admin."
            )

    def endpoint(self) -> str:
        """Where the service is. Raises as `log_in`."""
        adapter = Adapter(self.session, **self.options)
        with entering(self.keystone, self.product, self.section):
            # keystoneauth asks a service whose version the catalog does not say, and hides that it does not answer.
            return adapter.get_endpoint() or adapter.get_endpoint(skip_discovery=True) or ""


def load(product: Product, file: Path | None) -> Access:
    """Reads the section. Raises `Refused` with what is wrong in it."""
    # It would log bodies of answers, which have passwords of volumes in them, and addresses, which may.
    logging.getLogger("keystoneauth").setLevel(logging.CRITICAL)
    for name in DISCREET:
        logging.getLogger(name).addFilter(_is_critical)
    group = product.section
    section = f"section [{group}] of {file or 'the configuration'}"
    conf = cfg.ConfigOpts()
    loading.register_auth_conf_options(conf, group)
    loading.register_session_conf_options(conf, group)
    loading.register_adapter_conf_options(conf, group, include_deprecated=False)
    try:
        conf(args=[], project="resizeflow", default_config_files=[str(file)] if file else [])
        return _loaded(product, conf, section)
    except exceptions.NoMatchingPlugin as error:
        known = ", ".join(sorted(loading.get_available_plugin_names()))
        raise Refused(f"{section} has auth_type {error.name}, which is not known: it can be {known}.") from None
    except exceptions.MissingRequiredOptions as error:
        raise Refused(f"{section} lacks {', '.join(option.dest for option in error.options)}.") from None
    except (cfg.Error, TypeError, ValueError) as error:
        raise Refused(f"{section} cannot be used: {cleaned(what_is_wrong(error))}.") from None


def _is_critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL


def _loaded(product: Product, conf: cfg.ConfigOpts, section: str) -> Access:
    auth = product.login(conf)
    if auth is None:
        raise Refused(f"{section} lacks auth_type.")
    keystone = f"Keystone at {cleaned(getattr(auth, 'auth_url', None))}"
    user = auth if isinstance(auth, BaseIdentityPlugin) else None
    headers = product.headers(auth)
    if headers is None:
        auth = ServiceTokenAuthWrapper(user_auth=auth, service_auth=auth)
    session = loading.load_session_from_conf_options(
        conf, product.section, auth=auth, additional_headers=dict(headers or {})
    )
    transport = Transport(tls_ciphers=session.tls_ciphers, tls_min_version=session.tls_min_version)
    for scheme in ("http://", "https://"):
        session.mount(scheme, transport)
    options: dict[str, Any] = {"connect_retries": 0, "status_code_retries": 0}
    process_conf_options(conf[product.section], options)
    options["service_type"] = options["service_type"] or product.service_type
    return Access(product, session, options, user, keystone, section)
