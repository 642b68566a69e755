"""What a user of the compiler can act on."""


class CompileError(Exception):
    """The model cannot become a bundle; one line that says which part, why and what to do."""


def first_line(error: Exception) -> str:
    """What the error of a library says first, at most 300 characters."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def require_onnx() -> None:
    """Whatever compiles needs it, and devices have none.

    Raises:
        CompileError: it is not there, or broken.
    """
    try:
        import onnx  # noqa: F401, PLC0415 (commands import this module on devices too)
    except ImportError:
        raise CompileError("compiling needs the onnx package: pip install '.[build]' in the clone") from None
