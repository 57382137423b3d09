"""What keystoneauth and the client libraries raise turned into the driver's errors.

The libraries have classes for some codes only, keystoneauth calls every time-out a ConnectTimeout; so the code of an
answer decides, and without an answer whether anything was sent. No text of theirs is repeated that may show a secret.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from keystoneauth1 import exceptions as keystone

from resizeflow.drivers.interface import DriverError, Refused, Unknown, Unreachable
from resizeflow.drivers.openstack.product import Product

_USER = re.compile(r"(?<=://)[^/@\s]+@")


def cleaned(text: object) -> str:
    """Words on one line, without a full stop, and without the user and password of a URL."""
    return _USER.sub("", " ".join(str(text).split())).rstrip(".")


def outside(product: Product, error: Exception) -> bool:
    """Whether it is an error after which the way in has to be found anew."""
    said = product.said(error)
    return said.code == 401 if said else isinstance(error, keystone.ClientException)


def translated(product: Product, error: Exception, method: str, *, sent: bool) -> DriverError:
    """The driver's error for a call that failed.

    An answer of 4xx means that nothing was changed, one of 5xx that something may have been. 401 comes after a new
    token was tried: whoever is not let in has to wait, as if the service were away.
    """
    if isinstance(error, DriverError):
        return error
    name = product.name
    if said := product.said(error):
        kind = _kind(product, said.code, method)
        return kind(f"{name} answered {method} with {said.code}: {cleaned(said.words)}.")
    if isinstance(error, keystone.ClientException) and not isinstance(error, keystone.ConnectionError):
        return Unreachable(f"{name}: not logged in for {method}: {cleaned(error)}.")
    if not isinstance(error, keystone.ConnectionError):
        return Unknown(f"{name}: {method} failed in the driver: {type(error).__name__}.")
    if sent:
        return Unknown(f"{name}: no answer to {method}: {_cause(error)}.")
    return Unreachable(f"{name}: {method} could not be sent: {_cause(error)}.")


def _kind(product: Product, code: int, method: str) -> type[DriverError]:
    if code >= 500:
        return Unknown
    return Unreachable if code == 401 else product.refusal(code, method)


@contextmanager
def entering(place: str, product: Product, section: str) -> Iterator[None]:
    """Translates what is raised on the way in: `Unreachable` if the place does not answer or is out of order, else
    `Refused`, with what to correct in the section of the configuration."""
    try:
        yield
    except keystone.Unauthorized:
        raise Refused(f"{place} does not accept the login: correct the credentials in {section}.") from None
    except keystone.CatalogException:
        raise Refused(
            f"{place} has no such {product.name} in its catalog: correct region_name, valid_interfaces or "
            f"service_type in {section}, or give endpoint_override there."
        ) from None
    except (keystone.ClientException, OSError) as error:
        raise _not_let_in(error, place, section) from None
    except Exception as error:
        if type(error) is not Exception:
            raise
        # So keystoneauth says that an option is missing.
        raise Refused(f"{place} cannot be used: {cleaned(error)}; correct {section}.") from None


def _not_let_in(error: Exception, place: str, section: str) -> DriverError:
    causes = tuple(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Refused(f"{place} shows a certificate that is not trusted: give cafile in {section}.")
    if any(isinstance(cause, keystone.ConnectionError) for cause in causes):
        return Unreachable(f"{place}: {_cause(error)}.")
    if isinstance(error, keystone.HttpError) and error.http_status >= 500:
        return Unreachable(f"{place}: {cleaned(error.message)} ({error.http_status}).")
    return Refused(f"{place} cannot be used: {cleaned(error)}; correct {section}.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _cause(error: BaseException) -> str:
    """The words of the first of them, which has no URL in it."""
    *_, first = _causes(error)
    return cleaned(getattr(first, "strerror", None) or first)
