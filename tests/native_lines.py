"""What lines of C++ logs look like, for tests of what a user sees."""

import re

# TensorFlow's and Abseil's formats, and the lines that come without a prefix.
NATIVE_LOG = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF] |[IWEF]\d{4} \d\d:\d\d:|WARNING: All log messages before|To enable the following).*",
    re.MULTILINE,
)
