"""The mark that says of a picture that a model made it: XMP with IPTC's digital source type, which Pillow writes into each format.

IPTC Photo Metadata Standard, property Digital Source Type; its terms are listed under SOURCE_TYPES. Metadata is not a
watermark: it is lost when a picture is saved anew without it.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from xml.sax.saxutils import quoteattr

from service import __version__

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


class Source(StrEnum):
    """Where the pixels of a picture come from."""

    MODEL = "trainedAlgorithmicMedia"
    MODEL_AND_CALLER = "compositeWithTrainedAlgorithmicMedia"


_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType={source} xmp:CreatorTool={tool}/>"
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


@lru_cache(maxsize=256)
def packet(source: Source, model: str) -> bytes:
    """The XMP packet, UTF-8.

    Args:
        model: `task/name@digest`, as `X-Model` says it.
    """
    return _PACKET.format(source=quoteattr(SOURCE_TYPES + source), tool=quoteattr(f"Atelier {__version__} {model}")).encode()
