"""A data file as people write one: right and wrong ways to give examples."""

import numpy as np

_rng = np.random.default_rng(0)
X = _rng.normal(0, 1, (90, 6))
Y = X[:, :3].argmax(1)


def arrays():
    return X.astype("float32"), Y


def aslist():
    return [X, Y]


def asdict():
    return {"x": X, "labels": Y}


def batches():
    for i in range(0, 90, 16):
        yield X[i : i + 16], Y[i : i + 16]


def dictbatches():
    for i in range(0, 90, 16):
        yield {"x": X[i : i + 16], "labels": Y[i : i + 16]}


def ordered():
    for label in range(3):
        for _ in range(4):
            yield np.tile(X[label == Y][:16], (16, 1)), np.full(16 * 16, label)


def typeerr():
    return len(5)


def raises():
    raise RuntimeError("sensor is not connected\nsecond line")


def late():
    yield X[:16], Y[:16]
    raise OSError("bus error")


def exits():
    raise SystemExit(3)


def withargs(path, rate=50):
    return X, Y
