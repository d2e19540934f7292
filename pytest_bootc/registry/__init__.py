"""Images in registries: the only place that imports oras and the HTTP library that it stands on.

Of oras its registry class is used, with requests of our own: its retries (131 s), its missing timeouts and its
unverified downloads are not.
"""

from pytest_bootc.registry.repository import RegistrySource

__all__ = ["RegistrySource"]
