import pytest

from reidkit.config import ConfigError, differences, load_config, override, parse_config, parse_yaml

GOOD = """
data: {train: [market1501], test: [{name: market1501, check: warn}], size: [128, 64]}
model: {name: reid, backbone: {name: resnet}}
losses:
  - {name: cross_entropy, on: logits}
optim: {lr: 5e-4, epochs: 3}
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_a_config_reads_as_written(good):
    config = load_config(good)
    assert config.data.train[0].name == "market1501"
    assert config.data.test[0].check == "warn"
    assert config.data.size == (128, 64)
    assert config.optim.lr == 5e-4
    # YAML 1.1 would read the key `on` as True.
    assert config.losses[0]["on"] == "logits"


def test_a_config_survives_being_written_and_read(good, tmp_path):
    config = load_config(good)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


def test_dotted_overrides_reach_into_lists_and_make_groups(good):
    config = load_config(good, ["optim.lr=1e-3", "losses.0.smoothing=0.2", "evaluate.every=2"])
    assert config.optim.lr == 1e-3
    assert config.losses[0]["smoothing"] == 0.2
    assert config.evaluate.every == 2


def test_every_fault_is_reported_at_once_with_the_nearest_key(good):
    with pytest.raises(ConfigError) as caught:
        load_config(good, ["optim.epoch=3", "data.siez=[1,2]", "optim.lr=fast", "seed=x"])
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "'optim.epoch'" in text and "Did you mean 'epochs'" in text
    assert "Did you mean 'size'" in text
    assert "optim.lr = 'fast'" in text
    assert "seed = 'x'" in text


def test_a_fault_inside_a_list_of_parts_suggests_that_parts_keys(good):
    with pytest.raises(ConfigError, match=r"'data\.train\.0\.rot'.*Did you mean 'root'"):
        load_config(good, ["data.train=[{name: market1501, rot: x}]"])


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("optim.lr", "key=value"),
        ("losses.3.weight=1", "not a position in a list of 1"),
        ("seed.deep=1", "nothing lies below|is a value"),
        ("optim.lr=[1,", "not readable as YAML"),
        ("data.batch.identities=0", "greater than 0"),
        ("data.stages=[{until: .5, size: [8,4]}, {until: .4, size: [8,4]}]", "later than the one"),
        ("data.batch.groups=0", "greater than 0"),
        ("data.batch.groups=17", "groups 17 is above identities 16"),
        ("data.crop=0", r"data\.crop = 0: .*greater than 0"),
        ("data.crop=1.1", "less than or equal to 1"),
        ("data.crop=.nan", r"data\.crop = nan"),
        ("data.fit=squash", "'stretch' or 'white_square'"),
        ("data.fit=white_square", r"white_square needs square sizes, not \[128, 64\]"),
        ("data.augment.crop=0.5", r"data\.augment\.crop"),
        ("data.augment.crop=[0, 1]", "greater than 0"),
        ("data.augment.crop=[0.5, 2]", "less than or equal to 1"),
        ("data.augment.crop=[1, 0.5]", r"crop is \[1\.0, 0\.5\], expected the smaller value first"),
        (
            "data.augment.aspect=[2, 1]",
            r"aspect is \[2\.0, 1\.0\], expected the smaller value first",
        ),
        ("data.augment.aspect=[1, .inf]", "finite"),
    ],
)
def test_an_override_that_cannot_be_is_told(good, assignment, words):
    seeded = ["seed=1", assignment]
    with pytest.raises(ConfigError, match=words):
        load_config(good, seeded)


def test_a_missing_file_names_its_nearest_neighbour(good):
    with pytest.raises(ConfigError, match=r"Did you mean 'good\.yaml'"):
        load_config(good.with_name("goood.yaml"))


def test_a_key_given_twice_and_broken_yaml_are_told_with_their_line():
    with pytest.raises(ConfigError, match=r"line 2.*twice"):
        parse_yaml("a: 1\na: 2\n", "x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml, line 2"):
        parse_yaml("a: [1\nb: 2\n", "x.yaml")


@pytest.mark.parametrize(
    "text, value",
    [("1e-4", 1e-4), ("on", "on"), ("yes", "yes"), ("true", True), ("3", 3), ("1.5", 1.5)],
)
def test_yaml_words_mean_what_they_look_like(text, value):
    found = parse_yaml(text, "x")
    assert found == value and type(found) is type(value)


def test_a_config_is_frozen(good):
    config = load_config(good)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": {}})
    assert caught.value.faults == [
        "'data.train' is missing",
        "'model' is missing",
        "'losses' is missing",
    ]


def test_override_changes_only_the_named_key():
    tree = {"a": {"b": 1, "c": 2}}
    override(tree, "a.b=5")
    assert tree == {"a": {"b": 5, "c": 2}}


def test_differences_name_the_keys_that_changed():
    old = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert differences(old, {"a": {"b": 3, "c": 2}, "d": [1]}) == ["a.b: 1 -> 3"]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    "words, told",
    [
        (["data.fit=white_square", "data.size=[8, 8]", "data.store=x"], "leave store out"),
        (
            [
                "data.fit=white_square",
                "data.size=[8, 8]",
                "data.stages=[{until: .5, size: [8, 4]}]",
            ],
            r"needs square sizes, not \[8, 4\]",
        ),
        (["data.pixels=silhouettes", "data.crop=0.9"], "crop is for pictures; silhouettes are"),
        (["data.pixels=silhouettes", "data.fit=white_square"], "fit is for pictures"),
        (["data.pixels=silhouettes", "data.augment.crop=[0.5, 1]"], r"augment\.crop is for pict"),
    ],
)
def test_pictures_that_cannot_be_framed_so_are_told(good, words, told):
    with pytest.raises(ConfigError, match=told) as caught:
        load_config(good, words)
    assert len(caught.value.faults) == 1


def test_crops_fits_and_groups_read_as_written_and_are_off_by_default(good, tmp_path):
    plain = load_config(good).data
    assert (plain.crop, plain.fit, plain.augment.crop, plain.batch.groups) == (
        1.0,
        "stretch",
        None,
        None,
    )
    words = ["data.crop=0.887", "data.fit=white_square", "data.size=[227, 227]"]
    words += ["data.augment.crop=[0.5, 1.0]", "data.augment.aspect=[0.8, 1.25]"]
    config = load_config(good, [*words, "data.batch.groups=2"])
    assert config.data.augment.crop == (0.5, 1.0)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[a]: 1", r"line 1: not readable as YAML: a key must be a word"),
        (b"a: \x07", r"not readable as YAML: unacceptable character"),
        (b"a: \xff", r"is no text in UTF-8: invalid start byte"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_file(tmp_path, content, told):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"odd\.yaml.*{told}") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
