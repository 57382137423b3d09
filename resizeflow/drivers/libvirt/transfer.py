"""Moving a carrier with its storage from one host to another, by libvirt, host to host."""

from __future__ import annotations

import libvirt

from resizeflow.drivers.libvirt.domains import find_domain
from resizeflow.drivers.libvirt.session import Session

_MIB = 1024**2


def transfer(session: Session, uuid: str, *, peer_uri: str, data_uri: str, xml: str, bandwidth: int) -> None:
    """Migrates a paused carrier and returns when it is through. `bandwidth` is bytes/s per disk, 0 no limit.

    Peer to peer, so that it goes on when this process dies. Holes stay holes, and the data is on the
    destination's disk at the end. libvirt counts whole MiB/s and charges holes like data.
    """
    parameters: dict[str, str | int] = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml}
    if data_uri:  # else libvirt takes the destination's own host name
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = data_uri
    if bandwidth:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, bandwidth // _MIB)
    flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_PAUSED
    with session.asking(f"transfer carrier {uuid} to {peer_uri}", begun=True):
        domain = find_domain(session, uuid)
        session.fence()
        domain.migrateToURI3(peer_uri, parameters, flags)
