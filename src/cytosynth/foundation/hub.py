"""Whether the model hub answers: asked once, for a few seconds, where its own client would try for minutes."""

import http.client
import ssl
import threading
import urllib.error
import urllib.request
from functools import cache

from huggingface_hub import constants

PATIENCE = 2.0
"""Seconds."""


@cache
def reachable() -> bool:
    """Return whether the hub answers within `PATIENCE` seconds, whatever it answers; False where it is switched off.

    It is asked in a thread of its own, as looking up a name cannot be given a time limit.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except (urllib.error.HTTPError, http.client.HTTPException):
            pass  # an answer, too
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):
                return
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()
