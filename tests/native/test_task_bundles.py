import pytest

from tools import bundles
from tools.compare.tasks import models


@pytest.mark.parametrize("name", models.MODELS)
def test_the_bundle_of_a_task_is_made_again_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bundles", name, "--check"])
    with pytest.raises(SystemExit) as done:
        bundles.main()
    assert done.value.code == 0
