from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from benchsuite.core.config import Case, Preset, build_config, config_dict
from benchsuite.core.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1
    steps: int = 10
    mode: Literal["append", "replace"] = "append"
    limit: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    fast: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


@dataclass(frozen=True)
class Dormant:
    level: int = 0
    kind: str = "a"

    @property
    def dormant(self) -> tuple[str, ...]:
        return ("kind", "level") if self.level == 0 else ()


def test_fields_that_change_nothing_do_not_identify() -> None:
    assert config_dict(Dormant()) == {}
    assert config_dict(Dormant(level=1)) == {"level": 1, "kind": "a"}
    assert config_dict(Dormant(), whole=True) == {"level": 0, "kind": "a"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lr", "1e-3", 0.001),
        ("lr", 2, 2.0),
        ("steps", "7", 7),
        ("mode", "replace", "replace"),
        ("limit", "none", None),
        ("limit", "3", 3),
        ("sizes", "4,5,6", (4, 5, 6)),
        ("sizes", [4], (4,)),
        ("pair", "(3, 0.5)", (3, 0.5)),
        ("fast", "yes", True),
        ("fast", "0", False),
        ("name", "x=y", "x=y"),
    ],
)
def test_values_take_the_type_of_their_field(key: str, text: object, value: object) -> None:
    assert getattr(build_config(Settings, {key: text}, "method 'm'"), key) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steeps": "1"}, "method 'm' has no setting 'steeps' - did you mean 'steps'?"),
        ({"lr": "fast"}, "method 'm': lr needs a finite number, not 'fast'"),
        ({"lr": "nan"}, "method 'm': lr needs a finite number, not 'nan'"),
        ({"lr": "1e999"}, "method 'm': lr needs a finite number, not '1e999'"),
        ({"steps": "1.5"}, "method 'm': steps needs a whole number, not '1.5'"),
        ({"steps": True}, "method 'm': steps needs a whole number, not True"),
        ({"mode": "apend"}, "method 'm': mode cannot be 'apend' - did you mean 'append'?"),
        ({"pair": "1"}, "method 'm': pair needs 2 values, not 1"),
        ({"sizes": 3}, "method 'm': sizes needs a comma-separated list, not 3"),
        ({"fast": "perhaps"}, "method 'm': fast needs true or false, not 'perhaps'"),
        ({"limit": "many"}, "method 'm': limit needs a whole number, not 'many'"),
        ({"name": 3}, "method 'm': name needs str, not 3"),
        ({"steps": "0"}, "method 'm': steps must be at least 1"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Settings, settings, "method 'm'")
    assert str(caught.value) == message


def test_config_is_plain_json_data() -> None:
    assert config_dict(Settings())["pair"] == [1, 2.0]


def test_special_cases_apply_in_order_and_only_where_all_facts_match() -> None:
    preset = Preset(
        {"lr": 1, "k": 1},
        (Case({"dataset": "german"}, {"k": 2}), Case({"dataset": "german", "teacher": "gcn"}, {"k": 3})),
    )
    assert preset.resolve({"dataset": "bail"}) == {"lr": 1, "k": 1}
    assert preset.resolve({"dataset": "german"}) == {"lr": 1, "k": 2}
    assert preset.resolve({"dataset": "german", "teacher": "gcn"}) == {"lr": 1, "k": 3}
