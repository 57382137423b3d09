"""What is done to a domain: define, start, stop."""

from __future__ import annotations

import libvirt

from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.interface import Exists, Refused
from resizeflow.drivers.libvirt.domains import find_domain, is_starting, migration_of, power_state
from resizeflow.drivers.libvirt.elements import parse, text
from resizeflow.drivers.libvirt.session import Session


def define(session: Session, xml: str) -> None:
    """Defines or redefines a domain, after libvirt has checked it against its schema.

    Without that check libvirt drops elements it does not know, silently. Some hosts print definitions that
    their own schema rejects: a domain that the host has already is therefore redefined without the check, so
    that a machine can always be given back what it had.
    """
    uuid, name = _identity(session, xml)
    with session.asking(f"define domain '{name}'"):
        session.fence()
        try:
            session.connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_XML_INVALID_SCHEMA or not _known(session, uuid):
                raise
            session.fence()
            session.connection.defineXMLFlags(xml, 0)


def undefine(session: Session, uuid: str) -> None:
    """Forgets a shut-off domain. Firmware variables and TPM state are data and stay, like its disks."""
    with session.asking(f"undefine domain {uuid}"):
        domain = find_domain(session, uuid)
        if domain.isActive():
            raise Refused(f"{session.host}: domain '{domain.name()}' is running and is not undefined.")
        session.fence()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM)


def set_autostart(session: Session, uuid: str, on: bool) -> None:
    """Whether the host starts the domain when it boots."""
    with session.asking(f"set autostart of domain {uuid}"):
        domain = find_domain(session, uuid)
        session.fence()
        domain.setAutostart(int(on))


def start_paused(session: Session, uuid: str) -> None:
    """Starts a defined domain with its CPUs stopped."""
    with session.asking(f"start domain {uuid}"):
        domain = find_domain(session, uuid)
        if domain.isActive():
            raise Exists(f"{session.host}: domain '{domain.name()}' is active already.")
        if domain.hasManagedSaveImage():
            # libvirt would not start it but wake it up, with the memory and devices it was saved with.
            raise Refused(f"{session.host}: domain '{domain.name()}' has a managed save image.")
        session.fence()
        _start(session, uuid, domain)


def start_carrier(session: Session, xml: str) -> None:
    """Starts a transient domain with its CPUs stopped.

    It outlives this connection: with libvirt's auto-destroy a killed worker would end it at once.
    """
    uuid, name = _identity(session, xml)
    with session.asking(f"start carrier '{name}'"):
        _refuse_active(session, uuid)
        session.fence()
        try:
            session.connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_VALIDATE)
        except libvirt.libvirtError:
            if session.alive:
                _refuse_active(session, uuid)
            raise


def resume(session: Session, uuid: str) -> None:
    """Lets a paused domain's CPUs run."""
    with session.asking(f"resume domain {uuid}"):
        domain = find_domain(session, uuid)
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_RUNNING:
            return
        if is_starting(state, reason) or migration_of(domain, state, reason).incoming:
            # libvirt would wait for half a minute
            raise Refused(f"{session.host}: domain '{domain.name()}' is still being started or migrated.")
        session.fence()
        domain.resume()


def suspend(session: Session, uuid: str) -> None:
    """Stops a running domain's CPUs."""
    with session.asking(f"suspend domain {uuid}"):
        domain = find_domain(session, uuid)
        if power_state(domain) is PowerState.PAUSED:
            return
        session.fence()
        domain.suspend()


def shutdown(session: Session, uuid: str) -> None:
    """Asks the guest to shut down, by ACPI."""
    with session.asking(f"shut down domain {uuid}"):
        domain = find_domain(session, uuid)
        if power_state(domain) is PowerState.SHUTOFF:
            return
        session.fence()
        try:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError as error:
            _raise_unless_off(error, domain)


def destroy(session: Session, uuid: str) -> None:
    """Ends a domain's QEMU."""
    with session.asking(f"destroy domain {uuid}"):
        domain = find_domain(session, uuid)
        if power_state(domain) is PowerState.SHUTOFF:
            return
        session.fence()
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            _raise_unless_off(error, domain)


def _start(session: Session, uuid: str, domain: libvirt.virDomain) -> None:
    try:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            _refuse_active(session, uuid)
        raise


def _refuse_active(session: Session, uuid: str) -> None:
    """Raises `Exists` if a domain of that UUID is active."""
    try:
        domain = find_domain(session, uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return
        raise
    if domain.isActive():
        raise Exists(f"{session.host}: domain '{domain.name()}' is active already.")


def _raise_unless_off(error: libvirt.libvirtError, domain: libvirt.virDomain) -> None:
    """A domain that went off by itself between the look and the call is what the caller wanted."""
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return
    if code != libvirt.VIR_ERR_OPERATION_INVALID or domain.isActive():
        raise error


def _known(session: Session, uuid: str) -> bool:
    try:
        find_domain(session, uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise
    return True


def _identity(session: Session, xml: str) -> tuple[str, str]:
    """UUID and name of a definition."""
    try:
        root = parse(xml)
    except ValueError as error:
        raise Refused(f"{session.host}: the definition is {error}.") from None
    uuid, name = text(root, "uuid"), text(root, "name")
    if uuid is None or name is None:
        raise Refused(f"{session.host}: the definition has no {'name' if uuid else 'uuid'}.")
    return uuid, name
