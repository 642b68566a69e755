"""What a user of the compiler can act on."""


class CompileError(Exception):
    """The model cannot become a bundle; one line that says which part, why and what to do."""
