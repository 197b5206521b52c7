"""Settings come from flags, variables and a file, in that order, and an error names its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.addresses import split_address
from lockring.config import ConfigFile, load, misspelt_variables, setting, settings_of
from lockring.errors import ConfigError


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, setting("A name.")]
    weight: Annotated[int, setting("A share.", minimum=1, maximum=100)] = 1
    drain_timeout_s: Annotated[float, setting("A while.", unit="seconds", minimum=0)] = 60.0
    mode: Annotated[Literal["sync", "async"], setting("A way.")] = "sync"
    care: Annotated[Literal["some", "much"] | None, setting("A choice, if any.")] = None
    fresh: Annotated[bool, setting("A switch.")] = False
    servers: Annotated[
        tuple[str, ...], setting("Some places.", metavar="HOST:PORT", check=split_address, key="server")
    ] = ("127.0.0.1:1",)
    folder: Annotated[str | None, setting("A place.", variable=False)] = None
    once: Annotated[int, setting("Only by flag.", variable=False, file=False)] = 0


def read(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "lockring.toml"
    path.write_text(text)
    return ConfigFile(path, {"sample": settings_of(Sample), "other": ()})


def loaded(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file=None
) -> Sample:
    return load(Sample, "sample", flags={"id": "n1", **(flags or {})}, environ=environ or {}, file=file)


def test_flag_variable_and_key_follow_from_the_declaration():
    found = {each.field: (each.flag, each.variable, each.key) for each in settings_of(Sample)}
    assert found["drain_timeout_s"] == ("--drain-timeout", "LOCKRING_DRAIN_TIMEOUT", "drain_timeout")
    assert found["servers"] == ("--server", "LOCKRING_SERVER", "server")
    assert found["folder"] == ("--folder", None, "folder")


def test_a_flag_wins_over_a_variable_and_this_over_the_file(tmp_path):
    file = read(tmp_path, "[sample]\nweight = 3\nfresh = true\nserver = ['a:1', 'b:2']\ndrain_timeout = 1\n")
    environ = {"LOCKRING_WEIGHT": "4", "LOCKRING_DRAIN_TIMEOUT": "2.5"}
    sample = loaded({"weight": "5"}, environ, file)
    assert (sample.weight, sample.drain_timeout_s, sample.fresh, sample.servers) == (
        5,
        2.5,
        True,
        ("a:1", "b:2"),
    )
    assert sample.mode == "sync"


def test_a_false_flag_wins_over_a_true_variable():
    assert loaded({"fresh": False}, {"LOCKRING_FRESH": "yes"}).fresh is False


def test_an_empty_variable_counts_as_not_set():
    assert loaded(environ={"LOCKRING_WEIGHT": ""}).weight == 1


@pytest.mark.parametrize("word", ["1", "true", "Yes", " on "])
def test_a_switch_reads_the_usual_words(word):
    assert loaded(environ={"LOCKRING_FRESH": word}).fresh


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        ({"weight": "0"}, {}, "--weight: expected a whole number from 1 to 100, got '0'"),
        ({"weight": "1.5"}, {}, "--weight: expected a whole number from 1 to 100, got '1.5'"),
        ({}, {"LOCKRING_WEIGHT": "x"}, "the variable LOCKRING_WEIGHT: expected a whole number"),
        (
            {"drain_timeout_s": "nan"},
            {},
            "--drain-timeout: expected a number of seconds, 0 or more, got 'nan'",
        ),
        (
            {"drain_timeout_s": "inf"},
            {},
            "--drain-timeout: expected a number of seconds, 0 or more, got 'inf'",
        ),
        ({"drain_timeout_s": "-1"}, {}, "--drain-timeout: expected a number of seconds, 0 or more, got '-1'"),
        ({"mode": "fast"}, {}, "--mode: expected one of sync, async, got 'fast'"),
        ({}, {"LOCKRING_FRESH": "maybe"}, "LOCKRING_FRESH: expected true or false, got 'maybe'"),
        ({"servers": "a:1,,b:2"}, {}, "--server: expected one or more of HOST:PORT, separated by commas"),
        ({"servers": "a:1,b"}, {}, "--server: invalid address 'b': expected HOST:PORT"),
        ({"id": "\udcff"}, {}, "--id: '\\udcff' is not valid UTF-8 text: it has the byte 0xff"),
        ({"id": "x", "weight": "9" * 500}, {}, "--weight: expected a whole number from 1 to 100, got '999"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_source(flags, environ, said):
    with pytest.raises(ConfigError) as caught:
        loaded(flags, environ)
    assert str(caught.value).replace("the variable ", "").startswith(said.replace("the variable ", ""))
    assert len(str(caught.value)) < 250


def test_a_missing_value_that_is_required_is_refused():
    with pytest.raises(ConfigError, match=r"--id is required \(or the variable LOCKRING_ID\): a name"):
        load(Sample, "sample", flags={}, environ={})


def test_a_setting_for_flags_only_is_neither_read_from_a_variable_nor_from_the_file(tmp_path):
    assert loaded(environ={"LOCKRING_ONCE": "7"}).once == 0
    with pytest.raises(ConfigError, match="unknown key 'once'"):
        read(tmp_path, "[sample]\nonce = 7\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[sample]\nid = 'x'\nwieght = 3\n",
            "lockring.toml, line 3: unknown key 'wieght' in [sample]; did you mean 'weight'?",
        ),
        ("[sample]\nzzz = 3\n", "line 2: unknown key 'zzz' in [sample]; [sample] has id, weight"),
        ("[smaple]\n", "line 1: unknown table 'smaple'; did you mean 'sample'?"),
        ("weight = 3\n", "line 1: unknown key outside of a table 'weight'; the tables are [sample], [other]"),
        ("sample = 3\n", "line 1: 'sample' is a table: write [sample] above its keys"),
        ("[sample\n", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("weight = 'a'", "line 4: [sample] weight: expected a whole number from 1 to 100, got 'a'"),
        ("weight = true", "line 4: [sample] weight: expected a whole number from 1 to 100, got True"),
        ("weight = 101", "line 4: [sample] weight: expected a whole number from 1 to 100, got 101"),
        ("fresh = 'perhaps'", "line 4: [sample] fresh: expected true or false, got 'perhaps'"),
        ("server = [1]", "line 4: [sample] server: expected one or more of HOST:PORT"),
        ("server = []", "line 4: [sample] server: expected one or more of HOST:PORT"),
        ("drain_timeout = '1 s'", "line 4: [sample] drain_timeout: expected a number of seconds, 0 or more"),
    ],
)
def test_a_wrong_value_in_the_file_is_refused_naming_line_and_key(tmp_path, line, said):
    file = read(tmp_path, f"[other]\n# weight = 3\n[sample]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        loaded(file=file)
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        ConfigFile(tmp_path / "none.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        ConfigFile(tmp_path / "bytes.toml", {})


def test_a_misspelt_variable_is_found_and_an_unrelated_one_is_not():
    environ = {"LOCKRING_WIEGHT": "1", "LOCKRING_TEST_FOLDER": "x", "LOCKRING_CONFIG": "y", "PATH": "z"}
    assert misspelt_variables(environ, settings_of(Sample)) == [("LOCKRING_WIEGHT", "LOCKRING_WEIGHT")]


@given(st.text(max_size=40), st.sampled_from(settings_of(Sample)))
def test_any_text_is_either_read_or_refused(text, each):
    said = "here: "
    try:
        each.read(text, "here")
    except ConfigError as error:
        said = str(error)
    assert said.startswith("here: ")


def test_a_choice_may_have_no_default():
    assert loaded().care is None
    assert loaded(environ={"LOCKRING_CARE": "much"}).care == "much"
    with pytest.raises(ConfigError, match="--care: expected one of some, much, got 'none'"):
        loaded({"care": "none"})


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two settings that contradict each other."""

    store: Annotated[str, setting("One place.")] = ""
    data_dir: Annotated[str | None, setting("Another place.", metavar="DIR")] = None

    def __post_init__(self) -> None:
        if self.store and self.data_dir is not None:
            raise ConfigError("--store contradicts --data-dir: leave one of --store and --data-dir out")


def contradiction(flags: dict[str, object], environ: dict[str, str], file: ConfigFile | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Pair, "sample", flags=flags, environ=environ, file=file)
    return str(caught.value)


def test_settings_that_contradict_each_other_are_named_with_their_sources(tmp_path: Path) -> None:
    text = "--store contradicts --data-dir: leave one of --store and --data-dir out"
    assert contradiction({"store": "s", "data_dir": "d"}, {}) == text
    assert contradiction({"data_dir": "d"}, {"LOCKRING_STORE": "s"}) == (
        f"{text} (--store is set by the variable LOCKRING_STORE)"
    )
    path = tmp_path / "lockring.toml"
    path.write_text('[sample]\ndata_dir = "d"\n')
    file = ConfigFile(path, {"sample": settings_of(Pair)})
    assert contradiction({}, {"LOCKRING_STORE": "s"}, file) == (
        f"{text} (--store is set by the variable LOCKRING_STORE; --data-dir is set by {path}, line 2: [sample] data_dir)"
    )
