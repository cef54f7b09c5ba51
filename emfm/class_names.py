"""Names of classes, as people see them: in labels.json, in a configuration, in Python."""

import unicodedata

from emfm.errors import EMError

LONGEST = 200  # letters of a name


def class_name(name: object, where: str) -> str:
    """Return a class name without what nobody sees in it.

    Letters are composed (NFC), marks of no width are taken out, blanks of any kind become single
    spaces, none at the ends. So names that look equal are equal.

    Args:
        name: as it was given.
        where: it stands, for errors: "class 1".

    Raises:
        EMError: it is no text, nothing is left of it, it is too long or cannot be printed.
    """
    text = unicodedata.normalize("NFC", name) if isinstance(name, str) else ""
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = " ".join(text.split())
    if not text.isprintable() or not 0 < len(text) <= LONGEST:
        raise EMError(f"{where} is called {name!r:.80}; expected a printable name of up to {LONGEST} letters")
    return text


def is_background(label: str) -> bool:
    """Return whether a class is what the others stand on: neither tinted nor measured."""
    return label.lower() == "background"
