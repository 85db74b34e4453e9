"""Feature pipelines: from a folder of tables to features that are correct at every point in time."""

from features.catalogue import Catalogue, read_catalogue
from features.contracts import CONTRACT
from features.errors import RenewcastError
from features.feature import Feature, Window
from features.workspace import Workspace, load_workspace

__all__ = ["CONTRACT", "Catalogue", "Feature", "RenewcastError", "Window", "Workspace", "load_workspace", "read_catalogue"]
