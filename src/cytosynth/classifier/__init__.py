"""The cell classifier: network, configuration, loader and training, in one place.

`train features` makes one; the gate, the independent classifier of `evaluate cells` and two feature networks read it.
"""
