"""Passwords of a domain's graphics: the secrets that libvirt shows with VIR_DOMAIN_XML_SECURE only."""

from __future__ import annotations

from lxml import etree

_SECRET = ("passwd", "passwdValidTo", "connected")


def with_passwords(xml: str, secure_xml: str) -> str:
    """`xml` with the passwords that `secure_xml`, a definition of the same machine, has on the same graphics.

    For `define` only; neither text nor result may be stored.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    root, secure = etree.fromstring(xml, parser), etree.fromstring(secure_xml, parser)
    known = {_key(graphics, number): graphics for number, graphics in enumerate(secure.iter("graphics"))}
    for number, graphics in enumerate(root.iter("graphics")):
        source = known.get(_key(graphics, number))
        if source is not None:
            graphics.attrib.update({name: source.attrib[name] for name in _SECRET if name in source.attrib})
    return etree.tostring(root, encoding="unicode")


def _key(graphics: etree._Element, number: int) -> tuple[str | None, int]:
    return graphics.get("type"), number
