"""The sets of metric learning in small trees of their documented layouts."""

import importlib
import os
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from reidkit.data import BENCHMARKS, READERS, check_benchmark, load_benchmark
from reidkit.data.adapters.matlab import read_structs
from reidkit.evaluation.protocols import protocol

SETS = {"cub200": "cub200", "cars196": "cars196", "sop": "sop", "inshop": "in_shop"}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def cub(tmp_path):
    """Classes 1, 100, 101 and 200 with two pictures each."""
    root = tmp_path / "CUB_200_2011"
    lines = []
    for number, name in ((1, "Auk"), (100, "Jay"), (101, "Owl"), (200, "Wren")):
        for picture in (2, 1):
            file = f"{number:03d}.{name}/{name}_{picture:04d}_9.jpg"
            touch(root / "images" / file)
            lines.append(f"{len(lines) + 1} {file}")
        (root / "images" / f"{number:03d}.{name}" / "Thumbs.db").write_bytes(b"no picture")
    (root / "images.txt").write_text("\n".join(lines) + "\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n")
    return root


def annotations(file, rows, **names):
    """A file of Cars196: rows are (name of the picture, class or None)."""
    field = names.get("field", "fname")
    types = [("bbox_x1", object), ("class", object), (field, object)]
    if rows[0][1] is None:
        types.pop(1)
    table = np.zeros((1, len(rows)), types)
    for place, (name, model) in enumerate(rows):
        table[0, place][field] = name
        table[0, place]["bbox_x1"] = np.uint16(30 + place)
        if model is not None:
            table[0, place]["class"] = np.uint8(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"class_names": np.array([["AM Hummer", "BMW"]], object), "annotations": table}
    savemat(file, content, do_compression=names.get("packed", True))


@pytest.fixture
def cars(tmp_path):
    """Both folders have pictures of models 98 and 99, and the same names."""
    root = tmp_path / "cars196"
    for part, packed in (("train", True), ("test", False)):
        rows = [("00001.jpg", 99), ("00002.jpg", 98), ("00003.jpg", 196)]
        for name, _ in rows:
            touch(root / f"cars_{part}" / name)
        suffix = "_withlabels" if part == "test" else ""
        annotations(root / "devkit" / f"cars_{part}_annos{suffix}.mat", rows, packed=packed)
    return root


@pytest.fixture
def sop(tmp_path):
    root = tmp_path / "Stanford_Online_Products"
    lists = {"train": ["1 2 1 bike_final/a_0.JPG", "2 2 1 bike_final/a_1.JPG", "3 1 7 c/b.JPG"]}
    lists["test"] = ["4 11319 1 bike_final/c_0.JPG", "5 11319 1 bike_final/c_1.JPG"]
    for part, lines in lists.items():
        for line in lines:
            touch(root / line.split()[-1])
        text = "\n".join(["image_id class_id super_class_id path", *lines])
        (root / f"Ebay_{part}.txt").write_text(text + "\n")
    return root


@pytest.fixture
def inshop(tmp_path):
    root = tmp_path / "In-shop Clothes Retrieval Benchmark"
    rows = [
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
        ("img/WOMEN/Dresses/id_00000001/02_1_front.jpg", "id_00000001", "query"),
        ("img/WOMEN/Dresses/id_00000001/02_2_side.jpg", "id_00000001", "gallery"),
        ("img/MEN/Denim/id_00000080/01_1_front.jpg", "id_00000080", "gallery"),
    ]
    for name, *_ in rows:
        touch(root / name)
        touch(root / "Img" / name.replace("img/", "img_highres/"))
    lines = [f"{name}    {item} {split}" for name, item, split in rows]
    text = "\n".join([str(len(rows)), "image_name item_id evaluation_status", *lines])
    (root / "list_eval_partition.txt").write_text(text + "\n")
    return root


def pids(samples):
    return [sample.pid for sample in samples]


@pytest.mark.parametrize("name", SETS)
def test_every_set_can_be_loaded_and_checked_by_name(name):
    assert name in BENCHMARKS and name in READERS


@pytest.mark.parametrize("name, named", SETS.items())
def test_the_protocol_is_the_one_that_evaluation_has_by_that_name(name, named, request):
    root = request.getfixturevalue({"cub200": "cub", "cars196": "cars"}.get(name, name))
    assert load_benchmark(name, root, "off").protocol == protocol(named)


@pytest.mark.parametrize("name, fixture", [("cub200", "cub"), ("cars196", "cars"), ("sop", "sop")])
def test_every_test_picture_asks_all_others(name, fixture, request):
    root = request.getfixturevalue(fixture)
    for place in (root, root.parent):  # the set's own folder, or the one that holds it
        benchmark = load_benchmark(name, place, "off")
        assert benchmark.query == benchmark.gallery != ()
        assert not set(pids(benchmark.train)) & set(pids(benchmark.query))
        assert {sample.domain for sample in (*benchmark.train, *benchmark.query)} == {name}


def test_cub_trains_on_the_first_hundred_classes_and_not_on_its_split_for_classification(cub):
    benchmark = load_benchmark("cub200", cub, "off")
    assert pids(benchmark.train) == [1, 1, 100, 100]
    assert pids(benchmark.query) == [101, 101, 200, 200]
    names = [Path(sample.frames[0]).name for sample in benchmark.train]
    assert names == ["Auk_0001_9.jpg", "Auk_0002_9.jpg", "Jay_0001_9.jpg", "Jay_0002_9.jpg"]


def test_cars_of_both_folders_are_merged_before_the_models_are_split(cars):
    benchmark = load_benchmark("cars196", cars, "off")
    files = [sample.frames[0].removeprefix(f"{cars}/") for sample in benchmark.train]
    assert files == ["cars_test/00002.jpg", "cars_train/00002.jpg"]
    assert pids(benchmark.train) == [98, 98]
    assert pids(benchmark.query) == [99, 99, 196, 196]


def test_cars_in_one_folder_read_the_same(tmp_path):
    rows = [("car_ims/000001.jpg", 1), ("car_ims/000002.jpg", 99)]
    for name, _ in rows:
        touch(tmp_path / name)
    annotations(tmp_path / "cars_annos.mat", rows, field="relative_im_path")
    benchmark = load_benchmark("cars196", tmp_path, "warn")
    assert pids(benchmark.train) == [1] and pids(benchmark.query) == [99]
    assert benchmark.train[0].frames == (str(tmp_path / "car_ims/000001.jpg"),)


def test_products_are_in_the_order_of_their_lists_with_their_super_class(sop):
    benchmark = load_benchmark("sop", sop, "off")
    assert [(sample.pid, sample.condition) for sample in benchmark.train] == [
        (2, "1"),
        (2, "1"),
        (1, "7"),
    ]
    assert pids(benchmark.query) == [11319, 11319]
    assert benchmark.query[0].frames == (str(sop / "bike_final/c_0.JPG"),)


def test_garments_are_split_as_the_list_says(inshop):
    for place in (inshop, inshop.parent):
        benchmark = load_benchmark("inshop", place, "off")
        found = [pids(split) for split in (benchmark.train, benchmark.query, benchmark.gallery)]
        assert found == [[2], [1], [1, 80]]


def test_large_pictures_of_garments_are_read_on_request_or_where_there_are_no_others(inshop):
    for arguments in ({}, {"pictures": "img_highres"}):
        benchmark = load_benchmark("inshop", inshop, "off", **arguments)
        middle = "Img/img_highres" if arguments else "img"
        expected = inshop / middle / "WOMEN/Dresses/id_00000002/02_1_front.jpg"
        assert benchmark.train[0].frames == (str(expected),)
    (inshop / "img").rename(inshop / "elsewhere")
    assert "img_highres" in load_benchmark("inshop", inshop, "off").train[0].frames[0]
    with pytest.raises(FileNotFoundError, match="no folder 'img' in"):
        load_benchmark("inshop", inshop, "off", pictures="img")


@pytest.mark.parametrize(
    "name, fixture, words",
    [
        ("cub200", "cub", "train has 2 classes and 4 images, expected 100 and 5,864"),
        ("cub200", "cub", "test has 2 classes and 4 images, expected 100 and 5,924"),
        ("cars196", "cars", "train has 1 classes and 2 images, expected 98 and 8,054"),
        ("cars196", "cars", "test has 2 classes and 4 images, expected 98 and 8,131"),
        ("sop", "sop", "train has 2 classes and 3 images, expected 11,318 and 59,551"),
        ("sop", "sop", "test has 1 classes and 2 images, expected 11,316 and 60,502"),
        ("inshop", "inshop", "train has 1 classes and 1 images, expected 3,997 and 25,882"),
        ("inshop", "inshop", "query has 1 classes and 1 images, expected 3,985 and 14,218"),
        ("inshop", "inshop", "gallery has 2 classes and 2 images, expected 3,985 and 12,612"),
    ],
)
def test_strict_names_the_counts_that_differ_and_warn_logs_them(
    name, fixture, words, request, caplog
):
    root = request.getfixturevalue(fixture)
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark(name, root)
    assert "\n" not in str(error.value)
    load_benchmark(name, root, "warn")
    assert words in caplog.text
    assert words in check_benchmark(name, root, decode=False).text()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cub200", {"all": (200, 11788)}),
        ("cars196", {"all": (196, 16185)}),
        ("sop", {"all": (22634, 120053)}),
    ],
)
def test_the_published_parts_add_up_to_the_published_whole(name, expected):
    parts = importlib.import_module(f"reidkit.data.adapters.{name}").STATISTICS.values()
    assert tuple(map(sum, zip(*parts, strict=True))) == expected["all"]


@pytest.mark.parametrize(
    "name, fixture, gone",
    [
        ("cub200", "cub", "images"),
        ("cars196", "cars", "devkit/cars_test_annos_withlabels.mat"),
        ("sop", "sop", "Ebay_test.txt"),
        ("inshop", "inshop", "list_eval_partition.txt"),
    ],
)
@pytest.mark.parametrize("check", ["strict", "warn", "off"])
def test_what_is_missing_is_named_at_every_level(name, fixture, gone, check, request):
    root = request.getfixturevalue(fixture)
    (root / gone).rename(root.parent / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"no .*{Path(gone).name}.*README.md#{name}"):
        load_benchmark(name, root, check)
    with pytest.raises(FileNotFoundError, match=f"{name}: no folder .*nowhere"):
        load_benchmark(name, root / "nowhere", check)


@pytest.mark.parametrize(
    "name, fixture, file",
    [
        ("cub200", "cub", "images/001.Auk/Auk_0001_9.jpg"),
        ("cars196", "cars", "cars_test/00002.jpg"),
        ("sop", "sop", "bike_final/a_1.JPG"),
        ("inshop", "inshop", "img/MEN/Denim/id_00000080/01_1_front.jpg"),
    ],
)
def test_listed_pictures_that_are_not_there_are_named(name, fixture, file, request):
    root = request.getfixturevalue(fixture)
    (root / file).unlink()
    with pytest.raises(ValueError, match=Path(file).name):
        load_benchmark(name, root)


@pytest.mark.parametrize(
    "name, fixture, file, text, words",
    [
        ("sop", "sop", "Ebay_train.txt", "a b c d\n1 1 1 x.JPG\n", "does not begin with the line"),
        ("sop", "sop", "Ebay_train.txt", "", "does not begin with the line"),
        ("sop", "sop", "Ebay_train.txt", "{sop}1 1 x.JPG\n", "line 2: 3 words, expected 4"),
        ("sop", "sop", "Ebay_train.txt", "{sop}1 one 1 x.JPG\n", "product 'one' of x.JPG"),
        ("inshop", "inshop", "list_eval_partition.txt", "1\nh\nimg/a.jpg id_1 val\n", "id_1 val"),
        ("inshop", "inshop", "list_eval_partition.txt", "1\nh\nimg/a.jpg 1 query\n", "jpg 1 query"),
        ("inshop", "inshop", "list_eval_partition.txt", "1\nh\nimg/a.jpg\n", "line 3: 1 words"),
        ("inshop", "inshop", "list_eval_partition.txt", "", "says '' pictures in its first line"),
        ("cub200", "cub", "images.txt", "1\n", "line 1: 1 words, expected 2"),
    ],
)
def test_faulty_lists_are_named_with_the_line(name, fixture, file, text, words, request):
    root = request.getfixturevalue(fixture)
    header = "image_id class_id super_class_id path\n"
    (root / file).write_text(text.replace("{sop}", header))
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark(name, root)
    assert "\n" not in str(error.value)


def test_a_list_that_is_no_text_is_refused(sop, inshop):
    (sop / "Ebay_train.txt").write_bytes(b"\xff\xfe\x00")
    (inshop / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00")
    for name, root in (("sop", sop), ("inshop", inshop)):
        with pytest.raises(ValueError, match="is no text"):
            load_benchmark(name, root, "off")


def test_folders_of_cub_without_a_number_are_named(cub):
    touch(cub / "images" / "Sparrow" / "1.jpg")
    with pytest.raises(ValueError, match=r"1 folders in images are not named like 001.*: Sparrow"):
        load_benchmark("cub200", cub)


def test_annotations_without_labels_send_to_the_file_that_has_them(cars):
    file = cars / "devkit" / "cars_test_annos_withlabels.mat"
    annotations(file, [("00001.jpg", None)])
    with pytest.raises(ValueError, match=r"picture 1 has class None.*get cars_test_annos_withl"):
        load_benchmark("cars196", cars, "off")


def test_structures_are_read_as_they_were_written(tmp_path):
    rows = [(f"{number:05d}.jpg", number % 196 + 1) for number in range(300)]
    for packed in (True, False):
        annotations(tmp_path / "a.mat", rows, packed=packed)
        found = read_structs(tmp_path / "a.mat", "annotations", ("fname", "class"))
        assert found == [{"fname": name, "class": float(model)} for name, model in rows]
    with pytest.raises(ValueError, match="holds no 'nothing'"):
        read_structs(tmp_path / "a.mat", "nothing", ())
    with pytest.raises(ValueError, match="'class_names' is no array of structures"):
        read_structs(tmp_path / "a.mat", "class_names", ())


def test_damaged_annotations_are_a_value_error_and_nothing_worse(tmp_path):
    file = tmp_path / "a.mat"
    annotations(file, [("a.jpg", 1), ("b.jpg", 2)], packed=False)
    whole = file.read_bytes()
    draw = random.Random(0)
    for trial in range(600):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 1, 4])):
            data[draw.randrange(124, len(data))] = draw.choice([0, 255, draw.randrange(256)])
        if trial % 5 == 0:
            del data[draw.randrange(len(data)) :]
        file.write_bytes(data)
        try:
            read_structs(file, "annotations", ("fname", "class"))
        except ValueError as error:
            assert str(file) in str(error)  # the only way to fail


ALPHABETS = {"Greek": 2, "Korean": 1, "Latin": 3, "Ojibwe": 1, "Tengwar": 2}


@pytest.fixture
def omniglot(tmp_path):
    """Five alphabets of one to three characters, with three drawings each."""
    root, number = tmp_path / "omniglot", 0
    for alphabet, characters in ALPHABETS.items():
        for character in range(1, characters + 1):
            number += 1
            for drawer in (1, 2, 20):
                name = f"character{character:02d}/{number:04d}_{drawer:02d}.png"
                touch(root / alphabet / name)
    (root / "README.md").write_text("no alphabet")
    (root / "strokes").mkdir()
    return root


def alphabets(samples):
    return sorted({Path(sample.frames[0]).parent.parent.name for sample in samples})


def test_characters_are_numbered_over_all_alphabets_and_drawers_are_cameras(omniglot):
    benchmark = load_benchmark("omniglot", omniglot, "off")
    everything = (*benchmark.train, *benchmark.query)
    assert pids(everything) == [pid for pid in range(1, 10) for _ in range(3)]
    assert [sample.camid for sample in everything[:3]] == [0, 1, 19]
    assert everything[0].condition == "Greek" and everything[0].domain == "omniglot"


def test_the_first_alphabets_train_and_every_drawing_of_the_others_asks_all_others(omniglot):
    benchmark = load_benchmark("omniglot", omniglot.parent, "off")
    assert alphabets(benchmark.train) == ["Greek", "Korean", "Latin"]
    assert alphabets(benchmark.query) == ["Ojibwe", "Tengwar"]
    assert benchmark.query == benchmark.gallery
    assert benchmark.protocol.exclude == "itself"
    assert benchmark.protocol.report == ("R@1", "R@2", "R@4", "R@8", "MAP@R", "mAP")


@pytest.mark.parametrize(
    "arguments, trained, tested",
    [
        ({"test": ["Greek"]}, ["Korean", "Latin", "Ojibwe", "Tengwar"], ["Greek"]),
        ({"train": ["Latin", "Greek"]}, ["Greek", "Latin"], ["Korean", "Ojibwe", "Tengwar"]),
        ({"train": ["Latin"], "test": ["Korean"]}, ["Latin"], ["Korean"]),
    ],
)
def test_alphabets_are_chosen_by_name_and_keep_their_numbers(omniglot, arguments, trained, tested):
    benchmark = load_benchmark("omniglot", omniglot, "off", **arguments)
    assert alphabets(benchmark.train) == trained
    assert alphabets(benchmark.query) == tested
    number = {sample.frames: sample.pid for sample in load_both(omniglot)}
    assert all(number[sample.frames] == sample.pid for sample in benchmark.query)


def load_both(root):
    benchmark = load_benchmark("omniglot", root, "off")
    return (*benchmark.train, *benchmark.query)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"test": ["Koreen"]}, "test names no alphabet 'Koreen'; there are: 'Greek'.*Did you mean"),
        ({"train": ["Greek"], "test": ["Greek"]}, "'Greek' is in both train and test"),
        ({"train": [], "test": []}, "train and test are both empty"),
        ({"train": ["Greek", "Greek"]}, "train names alphabet 'Greek' twice"),
        ({"tests": ["Greek"]}, "unknown key 'tests'"),
    ],
)
def test_alphabets_that_do_not_go_together_are_refused(omniglot, arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark("omniglot", omniglot, "off", **arguments)
    assert "\n" not in str(error.value)


def test_both_parts_of_the_release_are_read_and_counted(omniglot):
    for part, names in {"images_background": ["Greek"], "images_evaluation": ["Latin"]}.items():
        for name in names:
            (omniglot / part).mkdir()
            (omniglot / name).rename(omniglot / part / name)
    for name in ("Korean", "Ojibwe", "Tengwar"):
        (omniglot / name).rename(omniglot / "images_evaluation" / name)
    assert len(load_both(omniglot)) == 27
    with pytest.raises(ValueError, match="images_background has 1 alphabets, 2 characters and 6 d"):
        load_benchmark("omniglot", omniglot)


def test_characters_with_too_few_drawings_are_a_warning(omniglot, caplog):
    assert load_benchmark("omniglot", omniglot, "strict").train
    words = "9 characters have another number of drawings than 20: Greek/character01 (3); "
    assert words in caplog.text


@pytest.mark.parametrize("name", ["drawing.png", "0001_00.png", "0001_01.jpg"])
def test_a_drawing_with_an_odd_name_is_named(omniglot, name):
    touch(omniglot / "Greek" / "character01" / name)
    with pytest.raises(ValueError, match=f"1 names .*: Greek/character01/{name}"):
        load_benchmark("omniglot", omniglot)


def test_a_folder_without_alphabets_or_with_one_is_refused(omniglot):
    with pytest.raises(FileNotFoundError, match="no folders Alphabet/characterNN in"):
        load_benchmark("omniglot", omniglot / "Greek", "off")
    with pytest.raises(FileNotFoundError, match=r"omniglot: no folder .*nowhere"):
        load_benchmark("omniglot", omniglot / "nowhere", "off")
    for name in ("Korean", "Latin", "Ojibwe", "Tengwar"):
        (omniglot / name).rename(omniglot.parent / name)
    with pytest.raises(ValueError, match="1 to split, expected at least 2"):
        load_benchmark("omniglot", omniglot, "off")


def test_the_real_alphabets_have_twenty_drawings_a_character_and_no_faults():
    root = Path(os.environ.get("REIDKIT_DATA") or "datasets")
    if not (root / "omniglot-small").is_dir():
        pytest.skip("no omniglot-small in REIDKIT_DATA")
    report = check_benchmark("omniglot", root / "omniglot-small")
    assert report.findings == ()
    found = {split: (c.identities, c.images) for split, c in report.counts.items()}
    assert found == {"train": (70, 1400), "query": (66, 1320), "gallery": (66, 1320)}
    assert {count.cameras for count in report.counts.values()} == {20}
