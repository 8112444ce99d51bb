import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidkit.data import load_benchmark


@pytest.fixture
def table(tmp_path, picture):
    """Write a manifest of these lines, and a picture for each path in it that is not 'absent'."""

    def write(header, *lines, name="own.csv"):
        for number, line in enumerate(lines):
            path = line.split(",")[0]
            if path and "absent" not in path:
                picture(path, number)
        file = tmp_path / name
        file.write_text("\n".join([header, *lines]) + "\n")
        return file

    return write


def test_columns_become_samples_with_paths_relative_to_the_file(table, tmp_path):
    file = table(
        "path,pid,camid,split,view,condition,domain",
        "a.png,4,1,train,090,nm,cars",
        "b.png,5,0,query,,,",
        "c.png,5,2,gallery,,,",
    )
    benchmark = load_benchmark("manifest", file)
    sample = benchmark.train[0]
    assert sample.frames == (str(tmp_path / "a.png"),)
    found = (sample.pid, sample.camid, sample.view, sample.condition, sample.domain)
    assert found == (4, 1, "090", "nm", "cars")
    assert benchmark.query[0].domain == "own"
    assert benchmark.protocol.exclude == "same_camera"


def test_names_of_identities_are_numbered_from_one_in_sorted_order(table):
    file = table("path,pid,split", "a.png,zoe,train", "b.png,adam,train", "c.png,7,train")
    pids = [sample.pid for sample in load_benchmark("manifest", file).train]
    assert pids == [3, 2, 1]


def test_numbers_of_identities_stay_as_written(table):
    file = table("path,pid,split", "a.png,12,train", "b.png,3,train")
    assert [sample.pid for sample in load_benchmark("manifest", file).train] == [12, 3]


def test_names_of_cameras_are_numbered(table):
    file = table("path,pid,camid,split", "a.png,1,yard,train", "b.png,1,door,train")
    assert [sample.camid for sample in load_benchmark("manifest", file).train] == [1, 0]


def test_without_cameras_only_the_query_itself_is_left_out(table):
    file = table("path,pid,split", "a.png,1,test", "b.png,1,test")
    benchmark = load_benchmark("manifest", file)
    assert benchmark.query == benchmark.gallery
    assert benchmark.protocol.exclude == "itself"


def test_separate_query_and_gallery_without_cameras_leave_nothing_out(table):
    file = table("path,pid,split", "a.png,1,query", "b.png,1,gallery")
    assert load_benchmark("manifest", file).protocol.exclude == "nothing"


def test_rows_of_a_tracklet_are_one_sample_in_the_order_of_frames(table, tmp_path):
    file = table(
        "path,pid,camid,split,tracklet,frame",
        "a.png,1,0,train,t1,10",
        "b.png,1,0,train,t1,9",
        "c.png,1,0,train,,",
        "d.png,1,0,train,t1,11",
    )
    train = load_benchmark("manifest", file).train
    names = [[frame.rsplit("/", 1)[1] for frame in sample.frames] for sample in train]
    assert names == [["b.png", "a.png", "d.png"], ["c.png"]]


def test_junk_stays_in_train_only(table):
    file = table(
        "path,pid,split", "a.png,-1,train", "b.png,1,query", "c.png,-1,gallery", "d.png,1,gallery"
    )
    benchmark = load_benchmark("manifest", file)
    assert [sample.pid for sample in benchmark.train] == [-1]
    assert [sample.pid for sample in benchmark.gallery] == [1]


def test_parquet_reads_as_csv_does(table, tmp_path):
    file = table("path,pid,camid,split", "a.png,1,0,query", "b.png,1,1,gallery")
    columns = {
        "path": ["a.png", "b.png"],
        "pid": [1, 1],
        "camid": [0, 1],
        "split": ["query", "gallery"],
    }
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    assert load_benchmark("manifest", tmp_path / "own.parquet") == load_benchmark("manifest", file)


@pytest.mark.parametrize(
    "line, words",
    [
        (",1,0,train,", "line 3: no path"),
        ("b.png,,0,train,", "line 3: no pid"),
        ("b.png,-2,0,train,", "line 3: pid -2"),
        ("b.png,1,0,training,", "line 3: split 'training', expected one of train"),
        ("b.png,1,,train,", "line 3: no camid"),
        ("b.png,1,0,train,first", "line 3: frame 'first' is no whole number"),
        ("a.png,1,0,train,", "line 3: a.png is already in train, line 2"),
        ("absent.png,1,0,train,", "line 3: no file .*absent.png"),
        ("b.png,1,0", "line 3: 3 cells, expected 5"),
    ],
)
def test_a_faulty_line_is_named_with_its_number(table, line, words):
    file = table("path,pid,camid,split,frame", "a.png,1,0,train,1", line)
    with pytest.raises(ValueError, match=words):
        load_benchmark("manifest", file)


def test_a_tracklet_of_two_identities_is_a_fault(table):
    file = table("path,pid,split,tracklet", "a.png,1,train,t", "b.png,2,train,t")
    with pytest.raises(ValueError, match="line 3: pid '2', but its tracklet has '1' in line 2"):
        load_benchmark("manifest", file)


@pytest.mark.parametrize("pids", ["12", "1234", "12345678"])
def test_it_is_one_too_where_the_pictures_are_dealt_out_here(table, pids):
    rows = [f"{letter}.png,{pid},t" for letter, pid in zip("abcdefgh", pids, strict=False)]
    file = table("path,pid,tracklet", *rows, "x.png,7,u", "y.png,9,v")
    with pytest.raises(ValueError, match="line 3: pid '2', but its tracklet has '1' in line 2"):
        load_benchmark("manifest", file)


def test_all_faults_come_in_one_error_five_named_and_the_rest_counted(table):
    file = table("path,pid,split", *[f"{name}.png,,train" for name in "abcdefg"], "h.png,1,train")
    with pytest.raises(ValueError, match=r"7 faulty lines .*line 6: no pid; and 2 more") as error:
        load_benchmark("manifest", file)
    assert "line 7" not in str(error.value)


def test_warn_loads_the_good_lines(table, caplog):
    file = table("path,pid,split", "a.png,1,train", "b.png,,train")
    assert len(load_benchmark("manifest", file, "warn").train) == 1
    assert "line 3: no pid" in caplog.text


def test_a_missing_column_is_named_with_the_nearest(table):
    file = table("path,pids,split", "a.png,1,train")
    with pytest.raises(ValueError, match=r"no column 'pid'.*Did you mean 'pids'\?"):
        load_benchmark("manifest", file, "off")


@pytest.mark.parametrize(
    "splits, words",
    [
        (["query"], "split 'query' without 'gallery'"),
        (["train", "gallery"], "split 'gallery' without 'query'"),
        (["test", "query", "gallery"], "split 'test' beside"),
        ([], "no usable picture"),
    ],
)
def test_splits_that_do_not_go_together_are_refused(table, splits, words):
    file = table("path,pid,split", *[f"{n}.png,1,{split}" for n, split in enumerate(splits)])
    with pytest.raises(ValueError, match=words):
        load_benchmark("manifest", file)


@pytest.mark.parametrize("content", [b"path,pid,split\n\xff\xfe,1,train\n", b""])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.csv"):
        load_benchmark("manifest", tmp_path / "own.csv")


def test_a_broken_parquet_file_is_refused(tmp_path):
    (tmp_path / "own.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match=r"own\.parquet is no Parquet file"):
        load_benchmark("manifest", tmp_path / "own.parquet")


def test_a_manifest_that_is_absent_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*own\.csv"):
        load_benchmark("manifest", tmp_path / "own.csv")
    (tmp_path / "own.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet"):
        load_benchmark("manifest", tmp_path / "own.xlsx")


def test_a_folder_an_identity_gives_the_first_half_to_training(tmp_path, picture):
    for name in ["cat", "ant", "dog", "bee"]:
        picture(f"own/{name}/1.png")
        picture(f"own/{name}/2.png")
    benchmark = load_benchmark("manifest", tmp_path / "own")
    assert [sample.pid for sample in benchmark.train] == [1, 1, 2, 2]
    assert [sample.pid for sample in benchmark.query] == [3, 3, 4, 4]
    assert benchmark.query == benchmark.gallery
    assert benchmark.protocol.exclude == "itself"


def test_the_fraction_and_a_seed_decide_who_is_trained_on(tmp_path, picture):
    for number in range(10):
        picture(f"own/{number:03d}/1.png")
    draws = [
        {
            sample.pid
            for sample in load_benchmark(
                "manifest", tmp_path / "own", train_fraction=0.3, seed=seed
            ).train
        }
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert [len(draw) for draw in draws] == [3, 3, 3]


def test_folders_for_the_splits_are_honoured(tmp_path, picture):
    picture("own/train/0005/1.png")
    picture("own/query/0002/1.png")
    picture("own/gallery/0002/2.png")
    benchmark = load_benchmark("manifest", tmp_path / "own")
    assert [s.pid for s in (*benchmark.train, *benchmark.query, *benchmark.gallery)] == [5, 2, 2]
    assert benchmark.protocol.exclude == "nothing"


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_a_fraction_that_leaves_one_side_empty_is_refused(tmp_path, picture, fraction):
    with pytest.raises(ValueError, match="manifest: train_fraction is"):
        load_benchmark("manifest", tmp_path, train_fraction=fraction)


def test_a_folder_without_identities_and_one_of_market_are_refused(tmp_path, picture, market):
    picture("flat/1.png")
    with pytest.raises(ValueError, match="0 sub-folders with pictures"):
        load_benchmark("manifest", tmp_path / "flat")
    with pytest.raises(ValueError, match="load it as 'market1501'"):
        load_benchmark("manifest", market)


@pytest.fixture
def animals(tmp_path, picture):
    """A folder with five identities of three pictures each."""
    for name in ["ant", "bee", "cat", "dog", "eel"]:
        for number in range(3):
            picture(f"own/{name}/{number}.png")
    return tmp_path / "own"


def names_of(samples):
    return sorted({sample.frames[0].rsplit("/", 2)[1] for sample in samples})


def test_classes_to_test_are_named_and_all_others_train(animals):
    benchmark = load_benchmark("manifest", animals, test_classes=["dog", "ant"])
    assert names_of(benchmark.query) == ["ant", "dog"]
    assert names_of(benchmark.train) == ["bee", "cat", "eel"]
    assert benchmark.query == benchmark.gallery and benchmark.protocol.exclude == "itself"


@pytest.mark.parametrize("seed", [None, 0])
def test_over_the_folds_each_identity_is_tested_once_under_the_same_number(animals, seed):
    tested = []
    for fold in range(3):
        benchmark = load_benchmark("manifest", animals, fold=fold, folds=3, seed=seed)
        assert not set(names_of(benchmark.train)) & set(names_of(benchmark.query))
        tested += sorted({(sample.pid, names_of([sample])[0]) for sample in benchmark.query})
    assert sorted(tested) == [(1, "ant"), (2, "bee"), (3, "cat"), (4, "dog"), (5, "eel")]


def test_by_picture_each_identity_trains_and_is_tested(animals):
    benchmark = load_benchmark("manifest", animals, by="picture", train_fraction=0.34)
    assert names_of(benchmark.train) == names_of(benchmark.query) != []
    assert (len(benchmark.train), len(benchmark.query)) == (5, 10)
    assert not {s.frames for s in benchmark.train} & {s.frames for s in benchmark.query}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            {"test_classes": ["cow"]},
            "manifest: test_classes names no class 'cow'; there are: 'ant', 'bee'",
        ),
        ({"fold": 3, "folds": 3}, "manifest: fold is 3, expected 0 to 2"),
        ({"fold": 0, "folds": 6}, "manifest: folds is 6, but there are 5 classes"),
        ({"by": "person"}, "by = 'person'"),
        ({"fold": 0, "test_classes": ["ant"]}, "manifest: test_classes and fold both say"),
    ],
)
def test_a_split_that_cannot_be_is_refused_in_one_line(animals, arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark("manifest", animals, "off", **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["path,pid", "path,pid,split"])
def test_a_table_that_does_not_say_who_trains_is_split_by_its_identities(table, header):
    tail = ",all" if header.endswith("split") else ""
    lines = [f"{pid}{n}.png,{pid}{tail}" for n in range(2) for pid in ("ant", "bee", "cat", "dog")]
    file = table(header, *lines)
    benchmark = load_benchmark("manifest", file)
    assert [sample.pid for sample in benchmark.train] == [1, 2, 1, 2]
    assert [sample.pid for sample in benchmark.query] == [3, 4, 3, 4]
    assert benchmark.query == benchmark.gallery and benchmark.protocol.exclude == "itself"
    benchmark = load_benchmark("manifest", file, test_classes=["bee"])
    assert {sample.pid for sample in benchmark.query} == {2}


def test_a_table_without_splits_keeps_cameras_tracklets_and_the_unknown(table):
    file = table(
        "path,pid,camid,tracklet",
        "a.png,1,0,t1",
        "b.png,1,0,t1",
        "c.png,1,1,t2",
        "d.png,2,0,t3",
        "e.png,2,1,t4",
        "f.png,2,1,t4",
        "g.png,-1,0,t5",
    )
    benchmark = load_benchmark("manifest", file)
    assert [(s.pid, len(s.frames)) for s in benchmark.train] == [(1, 2), (1, 1), (-1, 1)]
    assert [(s.pid, len(s.frames)) for s in benchmark.query] == [(2, 1), (2, 2)]
    assert benchmark.protocol.exclude == "same_camera"


def test_by_picture_a_tracklet_is_not_torn(table):
    lines = [f"{pid}{n}.png,{pid},t{pid}{n // 3}" for pid in (1, 2) for n in range(12)]
    file = table("path,pid,tracklet", *lines)
    for seed in range(5):
        benchmark = load_benchmark("manifest", file, by="picture", seed=seed)
        for samples in (benchmark.train, benchmark.query):
            assert [(s.pid, len(s.frames)) for s in samples] == [(1, 3)] * 2 + [(2, 3)] * 2


def test_some_rows_without_a_split_are_refused(table):
    file = table("path,pid,split", "a.png,1,all", "b.png,2,train", "c.png,3,all")
    with pytest.raises(ValueError, match=r"split 'all' beside 'train' \(line 3\)"):
        load_benchmark("manifest", file, "off")


def test_a_misspelt_column_of_splits_is_no_table_without_splits(table):
    file = table("path,pid,splits", "a.png,1,train", "b.png,2,test")
    with pytest.raises(ValueError, match=r"no column 'split'.*Did you mean 'splits'\?"):
        load_benchmark("manifest", file, "off")


def test_faulty_lines_are_told_even_where_the_rest_cannot_be_split(table):
    file = table("path,pid", "a.png,1", "b.png,")
    with pytest.raises(ValueError, match=r"1 classes to split.*1 faulty lines.*line 3: no pid"):
        load_benchmark("manifest", file)
    with pytest.raises(ValueError, match="manifest: 1 classes to split"):
        load_benchmark("manifest", table("path,pid", "a.png,1", "b.png,1"))


@pytest.mark.parametrize("arguments", [{"fold": 0}, {"test_classes": ["1"]}, {"by": "picture"}])
def test_data_that_says_who_trains_is_not_split_again(table, tmp_path, picture, arguments):
    file = table("path,pid,split", "a.png,1,train", "b.png,2,test", "c.png,2,test")
    with pytest.raises(ValueError, match="has a column 'split', which says who trains: leave out"):
        load_benchmark("manifest", file, **arguments)
    picture("tree/train/1/a.png")
    picture("tree/test/2/a.png")
    with pytest.raises(ValueError, match="has a folder 'train', which says who trains: leave out"):
        load_benchmark("manifest", tmp_path / "tree", **arguments)


def test_frames_of_a_tracklet_give_its_span_and_those_of_a_single_row_a_moment(table):
    file = table(
        "path,pid,camid,split,tracklet,frame",
        "a.png,1,0,train,t1,10",
        "b.png,1,0,train,t1,-9",
        "c.png,1,0,train,,7",
        "d.png,1,0,train,,",
        "e.png,1,0,train,t2,11",
        "f.png,1,0,train,t2,",
    )
    spans = [sample.span for sample in load_benchmark("manifest", file).train]
    assert spans == [(-9.0, 10.0), (7.0, 7.0), None, None]


@pytest.mark.parametrize("first, known", [(0, False), (1, False), (2, True)])
def test_frames_counted_within_each_tracklet_say_nothing_of_time(table, first, known):
    rows = [f"{name}.png,1,0,train,{name},{first}" for name in "abc"]
    file = table("path,pid,camid,split,tracklet,frame", *rows)
    spans = [sample.span for sample in load_benchmark("manifest", file).train]
    assert spans == [(2.0, 2.0) if known else None] * 3


def test_without_a_column_of_frames_nobody_knows_when(table):
    file = table("path,pid,split,tracklet", "a.png,1,train,t", "b.png,1,train,t")
    assert [sample.span for sample in load_benchmark("manifest", file).train] == [None]


def test_parquet_gives_spans_too(table, tmp_path):
    table("path,pid", "a.png,1", "b.png,1")
    columns = {
        "path": ["a.png", "b.png"],
        "pid": [1, 1],
        "split": ["train", "train"],
        "tracklet": ["t", "t"],
        "frame": [30, 20],
    }
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    (sample,) = load_benchmark("manifest", tmp_path / "own.parquet").train
    assert sample.span == (20.0, 30.0)
    assert [frame.rsplit("/", 1)[1] for frame in sample.frames] == ["b.png", "a.png"]
