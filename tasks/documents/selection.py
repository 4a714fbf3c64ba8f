"""Which of a source's paths are indexed, the same for every kind of source."""

import re
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from tasks.config.index import SourceConfig


@dataclass(frozen=True, slots=True)
class Selection:
    """The include and exclude globs of one source, as in .gitignore.

    Names that begin with a dot are left out unless an include glob itself names one (``.github/**``), so that
    ``**/*`` does not index an editor's or a version control system's own files.
    """

    include: GitIgnoreSpec
    exclude: GitIgnoreSpec
    hidden: bool

    @classmethod
    def of(cls, source: SourceConfig) -> "Selection":
        return cls(
            GitIgnoreSpec.from_lines(source.include),
            GitIgnoreSpec.from_lines(source.exclude),
            any(re.search(r"(^|/)\.\w", glob) for glob in source.include),
        )

    def takes(self, path: str) -> bool:
        """Whether the file at this path, relative to the source and with forward slashes, is indexed."""
        if not self.enters(path):
            return False
        return self.include.match_file(path) and not self._leaves_out(path)

    def enters(self, path: str) -> bool:
        """Whether anything below this folder can be indexed; saves walking the rest."""
        names = path.split("/")
        if ".git" in names or (not self.hidden and any(name.startswith(".") for name in names)):
            return False
        return not self._leaves_out(f"{path}/")

    def _leaves_out(self, path: str) -> bool:
        # asked for every path, and a spec without a pattern takes as long to say no as one with some
        return len(self.exclude) > 0 and self.exclude.match_file(path)


def printable(path: str) -> str:
    """The path with bytes that are no UTF-8 written out as ``\\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(location: str) -> str:
    """The location for a message: without the user and password that a URL may carry."""
    return re.sub(r"//[^/@\s]+@", "//", location)
