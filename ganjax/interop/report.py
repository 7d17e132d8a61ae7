"""What became of the entries of a foreign checkpoint."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Report:
    """Names of entries, as the foreign file has them.

    Attributes:
        matched: entries that our variables were filled from.
        missing: entries that we wanted and the file has not.
        unexpected: entries of the file that we have no place for.
        ignored: entries of the file that are known and carry nothing that we keep.
    """

    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing is missing, nothing is left over."""
        return not self.missing and not self.unexpected

    def renamed(self, name: Callable[[str], str]) -> "Report":
        """The report of other names; one that stands for several entries is in it once."""
        return Report(
            **{
                field.name: tuple(dict.fromkeys(map(name, getattr(self, field.name))))
                for field in dataclasses.fields(self)
            }
        )

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} entries matched"]
        for title in ("missing", "unexpected", "ignored"):
            names = getattr(self, title)
            if names:
                lines.append(f"{len(names)} {title}:")
                lines.extend(f"    {name}" for name in names)
        return "\n".join(lines)
