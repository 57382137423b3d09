"""What is Cinder's own in the way to it: microversions, the client, and a Cinder without Keystone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cinderclient.api_versions import MAX_VERSION, APIVersion
from cinderclient.contrib.noauth import CinderNoAuthPlugin
from cinderclient.exceptions import ClientException
from cinderclient.v3.client import Client
from keystoneauth1 import loading
from keystoneauth1.discover import get_version_data
from keystoneauth1.plugin import BaseAuthPlugin
from oslo_config import cfg

from resizeflow.drivers.cinder.service import CinderService
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.openstack.access import SERVICE, Access
from resizeflow.drivers.openstack.errors import cleaned, entering
from resizeflow.drivers.openstack.product import Product, Said
from resizeflow.drivers.volume import EFFECTS, ServiceFacts

OLDEST, NEWEST = APIVersion("3.44"), APIVersion(MAX_VERSION)
"""Microversions that are spoken: from the first that completes attachments to the last that cinderclient knows."""


class Cinder(Product):
    """The volume service, by python-cinderclient."""

    name = "Cinder"
    section = "cinder"
    service_type = "volumev3"
    effects = EFFECTS
    check = "service"
    without_role = "Cinder deletes no connected attachment"
    """CVE-2023-2088."""

    def login(self, conf: cfg.ConfigOpts) -> BaseAuthPlugin | None:
        """`noauth` is cinderclient's own plugin."""
        return loading.load_auth_from_conf_options(conf, self.section)

    def headers(self, auth: BaseAuthPlugin) -> Mapping[str, str] | None:
        """The role of a service: the plugin itself says who we are."""
        return {"X-Service-Roles": SERVICE} if isinstance(auth, CinderNoAuthPlugin) else None

    def facts(self, access: Access) -> ServiceFacts:
        """Its microversions, of which one is spoken."""
        endpoint = access.endpoint()
        place = f"Cinder at {cleaned(endpoint)}"
        base = re.match(r".+/v3(?=/|$)", endpoint)
        with entering(place, self, access.section):
            versions = get_version_data(access.session, f"{base[0] if base else endpoint}/", authenticated=True)
        for version in versions:
            if version.get("min_version") and str(version.get("id")).startswith("v3"):
                facts = ServiceFacts(newest=version["version"], oldest=version["min_version"])
                microversion(facts)
                return facts
        raise Refused(f"{place} is something else, not Cinder: correct {access.section}.")

    def service(self, access: Access, facts: ServiceFacts, timeout: float) -> CinderService:
        """With a client of its own: one names the request that it made first in all that follow."""
        client = Client(session=access.session, api_version=microversion(facts), **access.options)
        return CinderService(client, facts, timeout)

    def said(self, error: Exception) -> Said | None:
        """cinderclient's errors have the code."""
        return Said(error.code, error.message) if isinstance(error, ClientException) else None


def microversion(facts: ServiceFacts) -> APIVersion:
    """The one to speak. Raises `Refused` if there is none, which takes an upgrade."""
    spoken = max(OLDEST, APIVersion(facts.oldest))
    range_ = f"Cinder speaks microversions {facts.oldest} to {facts.newest}"
    if spoken > APIVersion(facts.newest):
        raise Refused(f"{range_}, resizeflow needs {OLDEST.get_string()}: upgrade Cinder.")
    if spoken > NEWEST:
        raise Refused(f"{range_}, cinderclient knows {NEWEST.get_string()}: upgrade python-cinderclient.")
    return spoken
