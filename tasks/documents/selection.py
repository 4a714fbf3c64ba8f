"""Which of a source's paths are indexed, the same for every kind of source."""

import re
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from tasks.config.index import SourceConfig

EVERYTHING = ("**/*",)


@dataclass(frozen=True, slots=True)
class Selection:
    """The include and exclude globs of one source, as in .gitignore.

    Names that begin with a dot are left out unless an include glob itself names one (``.github/**``), so that
    ``**/*`` does not index an editor's or a version control system's own files.
    """

    include: GitIgnoreSpec | None
    """None where everything is included."""
    exclude: GitIgnoreSpec | None
    """None where nothing is excluded."""
    never: re.Pattern[str]
    """Found in paths that no glob can select."""

    @classmethod
    def of(cls, source: SourceConfig) -> "Selection":
        names_hidden = any(re.search(r"(^|/)\.\w", glob) for glob in source.include)
        return cls(
            GitIgnoreSpec.from_lines(source.include) if source.include != EVERYTHING else None,
            GitIgnoreSpec.from_lines(source.exclude) if source.exclude else None,
            re.compile(r"(^|/)\.git(/|$)" if names_hidden else r"(^|/)\."),
        )

    def takes(self, path: str) -> bool:
        """Whether the file at this path, relative to the source and with forward slashes, is indexed."""
        if not self.enters(path) or (self.exclude and self.exclude.match_file(path)):
            return False
        return self.include is None or self.include.match_file(path)

    def enters(self, path: str) -> bool:
        """Whether anything below this folder can be indexed; saves walking the rest."""
        return not self.never.search(path) and not (self.exclude and self.exclude.match_file(f"{path}/"))


def printable(path: str) -> str:
    """The path with bytes that are no UTF-8 written out as ``\\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
