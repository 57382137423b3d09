"""The way in to Cinder, as section [cinder] of the configuration says it, with keystoneauth.

The section takes the options of keystoneauth's plugin (`auth_type` and its own), session (`cafile`, `insecure`, ...)
and adapter (`region_name`, `valid_interfaces`, `endpoint_override`, ...). Retries are not taken: the gate has its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinderclient.api_versions import MAX_VERSION, APIVersion
from cinderclient.contrib.noauth import CinderNoAuthPlugin
from cinderclient.v3.client import Client
from keystoneauth1 import exceptions, loading
from keystoneauth1.adapter import Adapter
from keystoneauth1.discover import get_version_data
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.loading.adapter import process_conf_options
from keystoneauth1.service_token import ServiceTokenAuthWrapper
from keystoneauth1.session import Session
from oslo_config import cfg

from resizeflow.config import what_is_wrong
from resizeflow.drivers.cinder.errors import cleaned, entering
from resizeflow.drivers.cinder.transport import Transport
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.volume import ServiceFacts

GROUP = "cinder"
SERVICE_TYPE = "volumev3"
"""Unless the section says another. keystoneauth finds Cinder under its other names in the catalog, too."""
OLDEST, NEWEST = APIVersion("3.44"), APIVersion(MAX_VERSION)
"""Microversions that are spoken: from the first that completes attachments to the last that cinderclient knows."""
SERVICE = "service"
"""The role for whom Cinder deletes connected attachments (CVE-2023-2088). Without Keystone it takes our word for it."""

DISCREET = tuple(f"keystoneauth.session{part}" for part in ("", ".request", ".response", ".body", ".request-id"))
"""Loggers of requests and answers: they stay silent also if somebody who debugs something sets their levels later."""


@dataclass(frozen=True)
class Access:
    """A session, and what leads it to Cinder."""

    session: Session
    options: Mapping[str, Any]
    """Those of an adapter."""
    user: BaseIdentityPlugin | None
    """Who logs in to Keystone, None without one."""
    keystone: str
    section: str

    def log_in(self) -> None:
        """Gets a token; takes no time while the last one holds. Raises `Refused` or `Unreachable`, as `facts` does."""
        with entering(self.keystone, self.section):
            self.session.get_auth_headers()
            roles = [SERVICE] if self.user is None else self.user.get_access(self.session).role_names or []
        if SERVICE not in roles:
            raise Refused(
                f"{self.keystone} gives the user of {self.section} no role {SERVICE}, without which Cinder deletes no "
                f"connected attachment: grant it, beside admin."
            )

    def facts(self) -> ServiceFacts:
        """What Cinder says of itself to those whom it knows."""
        adapter = Adapter(self.session, **self.options)
        with entering(self.keystone, self.section):
            # keystoneauth asks a Cinder whose version the catalog does not say, and hides that it does not answer.
            endpoint = adapter.get_endpoint() or adapter.get_endpoint(skip_discovery=True) or ""
        place = f"Cinder at {cleaned(endpoint)}"
        base = re.match(r".+/v3(?=/|$)", endpoint)
        with entering(place, self.section):
            versions = get_version_data(self.session, f"{base[0] if base else endpoint}/", authenticated=True)
        for version in versions:
            if version.get("min_version") and str(version.get("id")).startswith("v3"):
                facts = ServiceFacts(newest=version["version"], oldest=version["min_version"])
                microversion(facts)
                return facts
        raise Refused(f"{place} is something else, not Cinder: correct {self.section}.")

    def client(self, facts: ServiceFacts) -> Any:
        """A python-cinderclient that speaks the microversion for these."""
        return Client(session=self.session, api_version=microversion(facts), **self.options)


def microversion(facts: ServiceFacts) -> APIVersion:
    """The one to speak. Raises `Refused` if there is none, which takes an upgrade."""
    spoken = max(OLDEST, APIVersion(facts.oldest))
    range_ = f"Cinder speaks microversions {facts.oldest} to {facts.newest}"
    if spoken > APIVersion(facts.newest):
        raise Refused(f"{range_}, resizeflow needs {OLDEST.get_string()}: upgrade Cinder.")
    if spoken > NEWEST:
        raise Refused(f"{range_}, cinderclient knows {NEWEST.get_string()}: upgrade python-cinderclient.")
    return spoken


def load(file: Path | None) -> Access:
    """Reads the section. Raises `Refused` with what is wrong in it."""
    # It would log bodies of answers, which have passwords of volumes in them, and addresses, which may.
    logging.getLogger("keystoneauth").setLevel(logging.CRITICAL)
    for name in DISCREET:
        logging.getLogger(name).addFilter(_is_critical)
    section = f"section [{GROUP}] of {file or 'the configuration'}"
    conf = cfg.ConfigOpts()
    loading.register_auth_conf_options(conf, GROUP)
    loading.register_session_conf_options(conf, GROUP)
    loading.register_adapter_conf_options(conf, GROUP, include_deprecated=False)
    try:
        conf(args=[], project="resizeflow", default_config_files=[str(file)] if file else [])
        return _loaded(conf, section)
    except exceptions.NoMatchingPlugin as error:
        known = ", ".join(sorted(loading.get_available_plugin_names()))
        raise Refused(f"{section} has auth_type {error.name}, which is not known: it can be {known}.") from None
    except exceptions.MissingRequiredOptions as error:
        raise Refused(f"{section} lacks {', '.join(option.dest for option in error.options)}.") from None
    except (cfg.Error, TypeError, ValueError) as error:
        raise Refused(f"{section} cannot be used: {cleaned(what_is_wrong(error))}.") from None


def _is_critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL


def _loaded(conf: cfg.ConfigOpts, section: str) -> Access:
    auth = loading.load_auth_from_conf_options(conf, GROUP)
    if auth is None:
        raise Refused(f"{section} lacks auth_type.")
    keystone = f"Keystone at {cleaned(getattr(auth, 'auth_url', None))}"
    user = auth if isinstance(auth, BaseIdentityPlugin) else None
    headers: dict[str, str] = {}
    if isinstance(auth, CinderNoAuthPlugin):
        headers = {"X-Service-Roles": SERVICE}
    else:
        auth = ServiceTokenAuthWrapper(user_auth=auth, service_auth=auth)
    session = loading.load_session_from_conf_options(conf, GROUP, auth=auth, additional_headers=headers)
    transport = Transport(tls_ciphers=session.tls_ciphers, tls_min_version=session.tls_min_version)
    for scheme in ("http://", "https://"):
        session.mount(scheme, transport)
    options: dict[str, Any] = {"connect_retries": 0, "status_code_retries": 0}
    process_conf_options(conf[GROUP], options)
    options["service_type"] = options["service_type"] or SERVICE_TYPE
    return Access(session, options, user, keystone, section)
