"""The catalogues of translations: ``tox -e catalogues`` updates them after a change of a text.

The first arguments of ``Message(…)`` are a text of the package: its key, the English text and an optional plural.
The key is the context of the entry: it tells the translator the purpose of the text.
"""

import ast
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from asgi_auth.messages import DOMAIN, LOCALES

PACKAGE = LOCALES.parent
_DATE = datetime(2026, 1, 1, tzinfo=UTC)  # fixed: a file changes only if its texts change
Texts = tuple[str, ...]
"""The English text of a message, and its plural if there is one."""


def messages() -> dict[str, Texts]:
    """Every message of the package, by key.

    Raises:
        ValueError: an argument of a message is not a literal, so it cannot be translated; or one key has two texts.
    """
    found = dict[str, Texts]()
    for place, call in _calls():
        parts = [each.value if isinstance(each, ast.Constant) else None for each in call.args]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < max(len(parts), 2):
            raise ValueError(f"{place}: a Message must be written out: its key, its text and its plural")
        key, *rest = texts
        if found.setdefault(key, tuple(rest)) != tuple(rest):
            raise ValueError(f"{place}: {key} has another text elsewhere")
    return found


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Message":
                yield f"{path.name}:{node.lineno}", node


def path_of(language: str, suffix: str) -> Path:
    """The catalogue of *language*: a translator edits ``.po``, the library reads ``.mo``."""
    return LOCALES / language / "LC_MESSAGES" / f"{DOMAIN}.{suffix}"


def read(language: str) -> Catalog:
    """The translations of *language*."""
    with path_of(language, "po").open("rb") as file:
        return read_po(file, locale=language, domain=DOMAIN)


def compiled(language: str) -> bytes:
    """The ``.mo`` file that the library reads, compiled from the translator's ``.po`` file."""
    out = BytesIO()
    write_mo(out, read(language))
    return out.getvalue()


def updated(language: str, earlier: Mapping[str, object]) -> Catalog:
    """The catalogue of *language* with every message of the package; the translations of new messages are empty."""
    catalogue = Catalog(
        language,
        DOMAIN,
        header_comment="# The texts of asgi_auth in another language. Written with `tox -e catalogues`.",
        project=DOMAIN,
        version="0",
        msgid_bugs_address="the issues of the project",
        last_translator=DOMAIN,
        language_team=DOMAIN,
        creation_date=_DATE,
        revision_date=_DATE,
        fuzzy=False,
    )
    for key, texts in sorted(messages().items()):
        catalogue.add(texts if len(texts) > 1 else texts[0], earlier.get(key), context=key)  # type: ignore[arg-type]
    return catalogue


def write(language: str, catalogue: Catalog) -> None:
    """Write the ``.po`` and the ``.mo`` file of *language*."""
    path_of(language, "po").parent.mkdir(parents=True, exist_ok=True)
    with path_of(language, "po").open("wb") as file:
        write_po(file, catalogue, width=120, omit_header=False)
    path_of(language, "mo").write_bytes(compiled(language))


def main() -> None:
    """Update every catalogue. A translation is removed if its English text has changed."""
    for path in sorted(each for each in LOCALES.iterdir() if each.is_dir()):
        known = {entry.context: entry for entry in read(path.name) if entry.id}
        kept = {
            key: known[key].string
            for key, texts in messages().items()
            if key in known and known[key].id == (texts if len(texts) > 1 else texts[0])
        }
        write(path.name, updated(path.name, kept))


if __name__ == "__main__":  # pragma: no cover  # `tox -e catalogues`; its test calls main
    main()
