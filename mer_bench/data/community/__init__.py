"""Feature releases of the field's repositories: recognised by their structure, read without running them.

`read_release` reads and recognises files, `Release.corpus` hands over what they hold, `corpus_of` does both for a
feature set of a dataset's card, and `import_release` brings the files to the data folder.
"""

from mer_bench.data.community.bringing import compare, corpus_of, import_release, is_release
from mer_bench.data.community.layouts import BY_ID, LAYOUTS, Layout
from mer_bench.data.community.reading import SUFFIXES, read_release, read_value, recognise, release_files
from mer_bench.data.community.release import Release, Summary

__all__ = [
    "BY_ID",
    "LAYOUTS",
    "SUFFIXES",
    "Layout",
    "Release",
    "Summary",
    "compare",
    "corpus_of",
    "import_release",
    "is_release",
    "read_release",
    "read_value",
    "recognise",
    "release_files",
]
