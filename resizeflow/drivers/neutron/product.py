"""What is Neutron's own in the way to it: its endpoint, the extension for bindings, and a Neutron without Keystone."""

from __future__ import annotations

from collections.abc import Mapping

from keystoneauth1 import loading
from keystoneauth1.exceptions import MissingRequiredOptions, NotFound
from keystoneauth1.noauth import NoAuth
from keystoneauth1.plugin import BaseAuthPlugin
from openstack.connection import Connection
from openstack.exceptions import HttpException
from oslo_config import cfg

from resizeflow.drivers.interface import DriverError, Exists, Refused
from resizeflow.drivers.network import EFFECTS
from resizeflow.drivers.neutron.service import NeutronService
from resizeflow.drivers.openstack.access import SERVICE, Access
from resizeflow.drivers.openstack.errors import cleaned, entering
from resizeflow.drivers.openstack.product import Product, Said

API = "/v2.0"
"""The only version. Catalogs have the endpoint with or without it."""
EXTENSION = "binding-extended"


class Neutron(Product):
    """The network service, by openstacksdk."""

    name = "Neutron"
    section = "neutron"
    service_type = "network"
    effects = EFFECTS
    check = "network_service"
    without_role = "Neutron binds no port to a second host"

    def login(self, conf: cfg.ConfigOpts) -> BaseAuthPlugin | None:
        """`noauth` is keystoneauth's plugin `none`: another client's has taken that name."""
        without_keystone = conf[self.section].auth_type == "noauth"
        if without_keystone:
            conf.set_override("auth_type", "none", self.section)
        auth = loading.load_auth_from_conf_options(conf, self.section)
        if isinstance(auth, NoAuth) and not auth.endpoint:
            raise MissingRequiredOptions([loading.Opt("endpoint")])
        return auth

    def headers(self, auth: BaseAuthPlugin) -> Mapping[str, str] | None:
        """Both roles. With a project beside them, Neutron would take us for no administrator."""
        return {"X-Roles": f"admin,{SERVICE}"} if isinstance(auth, NoAuth) else None

    def facts(self, access: Access) -> Connection:
        """A connection of openstacksdk to it: it has the extension, and a version that openstacksdk speaks."""
        endpoint = access.endpoint().rstrip("/").removesuffix(API)
        place = f"Neutron at {cleaned(endpoint)}"
        with entering(place, self, access.section):
            if not _has_extension(access, endpoint):
                raise Refused(f"{place} lacks the API extension {EXTENSION}: it binds a port to one host only.")
            connection = Connection(
                session=access.session,
                network_endpoint_override=endpoint,
                network_connect_retries=0,
                network_status_code_retries=0,
            )
            _ = connection.network  # it asks for the versions at its first use
        return connection

    def service(self, access: Access, facts: Connection, timeout: float) -> NeutronService:  # noqa: ARG002 - for others
        """On the connection that all calls share."""
        return NeutronService(facts.network)

    def said(self, error: Exception) -> Said | None:
        """openstacksdk's errors have the code, and Neutron's words as details."""
        if isinstance(error, HttpException) and error.status_code is not None:
            return Said(error.status_code, error.details or str(error.message))
        return None

    def refusal(self, code: int, method: str) -> type[DriverError]:
        """A binding that is to be made, or to be activated, and is already."""
        if code == 409 and method in ("create_binding", "activate_binding"):
            return Exists
        return super().refusal(code, method)


def _has_extension(access: Access, endpoint: str) -> bool:
    """Whether it is in force there. Raises `Refused` where something else answers."""
    try:
        found = access.session.get(f"{endpoint}{API}/extensions/{EXTENSION}").json()
        return bool(found["extension"]["alias"] == EXTENSION)
    except NotFound as error:
        if error.response is None or f"alias {EXTENSION}" not in error.response.text:
            raise
        return False
    except (KeyError, TypeError, ValueError):
        raise Refused(f"{cleaned(endpoint)} is something else, not Neutron: correct {access.section}.") from None
