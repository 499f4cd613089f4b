"""What export, service and command line raise when a bundle cannot be used."""

from __future__ import annotations

from quickstudy_errors import QuickstudyError


class BundleError(QuickstudyError, ValueError):
    """A bundle that cannot be used, with what is wrong and what to do."""
