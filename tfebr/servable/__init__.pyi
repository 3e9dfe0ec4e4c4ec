from .inspect import inspect as inspect
from .module import RetrievalServable as RetrievalServable
from .version_folders import Version as Version
from .version_folders import prune as prune
from .version_folders import restore as restore
from .version_folders import roll_back as roll_back
from .write import write as write
