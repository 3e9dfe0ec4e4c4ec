from .publish import Published as Published
from .publish import export as export
from .publish import export_shards as export_shards
from .publish import refresh as refresh
