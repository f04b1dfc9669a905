"""Annotated data sets: formats in and out, checking, atomic writing, previews."""
