"""Whether the model hub is reachable: tested once, for a few seconds, since its own client would try for minutes."""

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
    """Return whether the hub answers within `PATIENCE` seconds, with any answer; False if it is switched off.

    The test runs in a separate thread, because looking up a name has no time limit.
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
