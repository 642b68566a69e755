"""When a task has learnt what there is to learn: it rests until new data comes, if it was asked to."""


def rest(*, newest: int, evaluated: int | None, best: int | None, since: int, max_versions: int, patience: int) -> str:
    """Why no further version is made for now; "" when one is.

    Args:
        newest: number of the newest version.
        evaluated: of the newest evaluated one; None: none is.
        best: of the best; likewise.
        since: the version from which is counted: the first, or the one at which new data came.
        max_versions: so many versions and no more; 0: no limit.
        patience: so many evaluated versions without a better one; 0: no limit.

    Example:
        >>> rest(newest=50, evaluated=49, best=20, since=0, max_versions=0, patience=25)
        'none of 29 versions is better than version 20 (patience = 25)'
        >>> rest(newest=50, evaluated=49, best=20, since=30, max_versions=20, patience=25)
        '20 versions are made (max_versions = 20)'
        >>> rest(newest=50, evaluated=49, best=20, since=31, max_versions=20, patience=25)
        ''
    """
    if max_versions and newest - since >= max_versions:
        return f"{newest - since} versions are made (max_versions = {max_versions})"
    if patience and evaluated is not None and best is not None and evaluated - max(best, since) >= patience:
        return f"none of {evaluated - max(best, since)} versions is better than version {best} (patience = {patience})"
    return ""
