"""What a driver has of its own beside the methods: how its service is found, entered and understood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from resizeflow.drivers.interface import DriverError, Effect, Missing, Refused

if TYPE_CHECKING:
    from keystoneauth1.plugin import BaseAuthPlugin
    from oslo_config import cfg

    from resizeflow.drivers.openstack.access import Access


class Said(NamedTuple):
    """An answer that the client library raised: its HTTP code and its words."""

    code: int
    words: str


class Product(ABC):
    """One of OpenStack's services."""

    name: ClassVar[str]
    """As a person calls it: `Cinder`."""
    section: ClassVar[str]
    """Of the configuration."""
    service_type: ClassVar[str]
    """Unless the section says another. keystoneauth finds a service under its other names in the catalog, too."""
    effects: ClassVar[Mapping[str, Effect]]
    """Of its methods."""
    check: ClassVar[str]
    """The look that says what is wrong in the configuration."""
    without_role: ClassVar[str]
    """What it does for nobody without the role `service`."""

    @abstractmethod
    def login(self, conf: cfg.ConfigOpts) -> BaseAuthPlugin | None:
        """The plugin that the section names. Raises what keystoneauth and oslo.config raise."""

    @abstractmethod
    def headers(self, auth: BaseAuthPlugin) -> Mapping[str, str] | None:
        """What is sent along where there is no Keystone, because it takes our word for who we are; None for a plugin
        that logs in to one."""

    @abstractmethod
    def facts(self, access: Access) -> Any:
        """What it says of itself to those whom it knows. Raises `Refused` with what to correct, or `Unreachable`."""

    @abstractmethod
    def service(self, access: Access, facts: Any, timeout: float) -> Any:
        """An object with the methods, for one call."""

    @abstractmethod
    def said(self, error: Exception) -> Said | None:
        """The answer in an error of the client library's, None if it is another error."""

    def refusal(self, code: int, method: str) -> type[DriverError]:  # noqa: ARG002 - some have more to tell apart
        """The error for an answer of 4xx."""
        return Missing if code == 404 else Refused
