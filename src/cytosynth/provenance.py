"""Marking what is synthetic: inside each PNG, and where each image came from."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from . import __version__
from .data.images import Pixels

NOTICE = "Synthetic cervical cytology made by CytoSynth. Not for diagnosis."
NOTICES = {
    "synthetic": NOTICE,
    "real-to-synthetic": "Real cervical cytology whose marked cells CytoSynth made synthetic. Not for diagnosis.",
}
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
<xmp:CreatorTool>CytoSynth {version}</xmp:CreatorTool>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{notice}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def png(pixels: Pixels, record: dict[str, Any]) -> bytes:
    """Return `pixels` as a PNG that says it is synthetic and carries `record`, the same bytes every time.

    Text chunks `Description`, `Software` and `cytosynth` (JSON), and an XMP packet whose IPTC
    `DigitalSourceType` is trainedAlgorithmicMedia.
    """
    chunks = PngImagePlugin.PngInfo()
    notice = NOTICES[record["origin"]]
    chunks.add_text("Description", notice)
    chunks.add_text("Software", f"CytoSynth {__version__}")
    chunks.add_itxt("cytosynth", json.dumps(record, sort_keys=True, ensure_ascii=False))
    packet = XMP.format(source=SOURCE_TYPE, version=__version__, notice=notice)
    chunks.add_itxt("XML:com.adobe.xmp", packet)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", pnginfo=chunks, compress_level=6)
    return buffer.getvalue()
