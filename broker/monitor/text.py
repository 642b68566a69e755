"""How figures and the words of devices read to people."""

from collections.abc import Mapping


def size(count: float) -> str:
    """Bytes.

    Example:
        >>> size(512), size(20_480), size(3_500_000)
        ('512 B', '20.5 kB', '3.5 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def counted(count: int, what: str) -> str:
    """So many of something.

    Example:
        >>> counted(1, "update"), counted(0, "update")
        ('1 update', '0 updates')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def worth(metrics: Mapping[str, float]) -> str:
    """How good a version is; "" when that is not known.

    Example:
        >>> worth({"loss": 0.25, "accuracy": 0.912, "num_examples": 50})
        'accuracy 0.912, loss 0.25'
    """
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in ("accuracy", "loss") if name in metrics)


def age(seconds: float) -> str:
    """A span of time.

    Example:
        >>> age(42), age(150), age(7200), age(3e5), age(-5)
        ('42 s', '2 min', '2 h', '3 days', '0 s')
    """
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}" if unit != 60 else f"{int(seconds // unit)} {name}"
    return f"{max(0.0, seconds):.0f} s"


def printable(text: str) -> str:
    """What a device says must not steer the terminal of who reads it.

    Example:
        >>> printable("fine\\x1b[2J")
        'fine?[2J'
    """
    return "".join(each if each.isprintable() else "?" for each in text)
