"""The reference manual, written from the code: ``python -m stress.reference docs`` (``make docs``)."""
