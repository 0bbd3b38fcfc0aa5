"""Networks are found by name, a name is taken once, and a typo gets a suggestion."""

from __future__ import annotations

import pytest
from torch import nn

from edge.errors import ExitCode, UsageError
from edge.models import Entry, create, entries, find, register, registry
from edge.models.fasternet import PREPROCESSING


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    entries()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def test_every_variant_is_listed_with_its_pyramid() -> None:
    variants = ("t0", "t1", "t2", "s", "m", "l")
    names = [f"fasternet_{variant}{kind}" for variant in variants for kind in ("", "_pyramid")]
    listed = [entry for entry in entries() if entry.name.startswith("fasternet_")]
    assert [entry.name for entry in listed] == names
    assert {entry.input_shape for entry in listed} == {(1, 3, 224, 224)}


def test_the_pyramid_names_its_four_outputs() -> None:
    assert find("fasternet_t0").outputs == ("logits",)
    assert find("fasternet_t0_pyramid").outputs == ("features_0", "features_1", "features_2", "features_3")


def test_a_decorated_builder_is_found_and_built_in_evaluation_mode() -> None:
    @register(preprocessing=PREPROCESSING, key_maps={}, source="this test")
    def dropped(rate: float = 0.5) -> nn.Module:
        return nn.Dropout(rate).train()

    assert find("dropped") == Entry("dropped", dropped, ("logits",), PREPROCESSING, {}, "this test")
    network = create("dropped", rate=0.25)
    assert isinstance(network, nn.Dropout) and network.p == 0.25 and not network.training


def test_a_name_is_registered_once() -> None:
    def fasternet_t0() -> nn.Module:
        return nn.Identity()

    before = find("fasternet_t0")
    with pytest.raises(ValueError, match=r"'fasternet_t0' is registered already, by edge\.models\.fasternet"):
        register(preprocessing=PREPROCESSING, key_maps={}, source="")(fasternet_t0)
    assert find("fasternet_t0") is before


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        ("fasternet_t7", "did you mean fasternet_t2 or fasternet_t1 or fasternet_t0?"),
        ("fastrnet_t0", "did you mean fasternet_t0"),
        ("vgg", "`edge models` lists them"),
    ],
)
def test_an_unknown_name_gets_the_nearest(typo: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(typo)
    assert hint in caught.value.next_step
    assert typo in str(caught.value) and caught.value.exit_code == ExitCode.USAGE
