"""Cars196: models of cars, half of them never seen in training."""

from pathlib import Path

from reidkit.data.adapters.class_sets import find_folder, lost, zero_shot
from reidkit.data.adapters.matlab import Row, read_structs
from reidkit.data.benchmarks import BENCHMARKS, READERS, Reading, settle
from reidkit.types import Benchmark, CheckLevel

# classes, images; 16,185 in all as published, the two parts from memory (unverified)
STATISTICS = {"train": (98, 8054), "test": (98, 8131)}
TRAINED = range(1, 99)
PARENTS = ("cars196", "Cars196", "stanford_cars", "CARS196")
# Of both releases: the annotations, the field that names the picture, the folder of the pictures.
ONE_FOLDER = (("cars_annos.mat", "relative_im_path", ""),)
TWO_FOLDERS = (
    ("cars_train_annos.mat", "fname", "cars_train"),
    ("cars_test_annos_withlabels.mat", "fname", "cars_test"),
)
PLACES = ("", "devkit")


@BENCHMARKS.register("cars196")
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """Cars196: Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013,
    for retrieval as Song et al., CVPR 2016: models 1 to 98 train, of 99 to 196 each picture asks
    all others.

    `root`, or a folder such as `cars196` in it, holds `car_ims` and `cars_annos.mat`; or
    `cars_train`, `cars_test` and, there or in `devkit`, `cars_train_annos.mat` and
    `cars_test_annos_withlabels.mat`. The two folders are the halves of a classification task, with
    the same models in both: they are merged before the models are split.
    """
    return settle(read(root), check)


@READERS.register("cars196")
def read(root: Path) -> Reading:
    """Everything readable of Cars196 under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder, ValueError for annotations that cannot be
    used.
    """
    folder = find_folder("cars196", root, PARENTS, ["car_ims", "cars_train", "cars_test"])
    release = ONE_FOLDER if (folder / "car_ims").is_dir() else TWO_FOLDERS
    classes: dict[int, list[str]] = {}
    for name, field, pictures in release:
        path = next((folder / at / name for at in PLACES if (folder / at / name).is_file()), None)
        if path is None:
            return lost("cars196", f"file {name!r} (there or in 'devkit')", folder)
        for number, row in enumerate(read_structs(path, "annotations", (field, "class")), start=1):
            model = model_of(row, f"{path}, picture {number:,}", field)
            classes.setdefault(model, []).append(str(folder / pictures / str(row[field])))
    return zero_shot("cars196", folder, classes, trained=TRAINED, expected=STATISTICS, findings=())


def model_of(row: Row, where: str, field: str) -> int:
    """The number of the model; ValueError where the picture has none or no name."""
    model = row.get("class")
    if not isinstance(row.get(field), str):
        raise ValueError(f"cars196: {where} has no text {field!r}; get the original file again")
    if not isinstance(model, float) or model < 1 or model != int(model):
        raise ValueError(
            f"cars196: {where} has class {model}, expected a number from 1; "
            "cars_test_annos.mat has none: get cars_test_annos_withlabels.mat"
        )
    return int(model)
