from pathlib import Path

import pytest

from data_builders.mixture import MixtureEntry, is_taken, read_mixture
from data_builders.raw_face import stable_split
from facellava.errors import BadCorpus


def write(folder: Path, text: str) -> Path:
    path = folder / "mix.toml"
    path.write_text(text)
    return path


def test_datasets_come_in_the_files_order_with_roots_beside_it(tmp_path):
    path = write(
        tmp_path,
        '[utkface]\nroot = "data/utk"\nweight = 0.25\nlimit = 50\n[fer2013]\nroot = "/fer"\n',
    )
    assert read_mixture(path) == [
        MixtureEntry(name="utkface", root=tmp_path / "data/utk", weight=0.25, limit=50),
        MixtureEntry(name="fer2013", root=Path("/fer"), weight=1.0, limit=None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no dataset"),
        ("[fer2013", "is not TOML"),
        ('fer2013 = "data"', r"\[fer2013\]: a table with the keys root, weight, limit"),
        ('[imagenet]\nroot = "x"', "no source 'imagenet'"),
        ('[fer2013]\nroot = "x"\nwieght = 1.0', "no key wieght; the keys are root, weight, limit"),
        ("[fer2013]\nweight = 1.0", "root is missing"),
        ('[fer2013]\nroot = "x"\nname = "y"', "no key name"),
        ('[fer2013]\nroot = "x"\nweight = 1.5', "weight is 1.5"),
        ('[fer2013]\nroot = "x"\nweight = 0', "weight is 0"),
        ('[fer2013]\nroot = "x"\nweight = nan', "weight is nan"),
        ('[fer2013]\nroot = "x"\nlimit = 0', "limit is 0"),
        ('[fer2013]\nroot = "x"\nlimit = true', "limit is True"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    with pytest.raises(BadCorpus, match=message):
        read_mixture(write(tmp_path, text))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BadCorpus, match="cannot be read"):
        read_mixture(tmp_path / "none.toml")


def test_a_greater_share_holds_the_smaller_and_splits_are_thinned_evenly():
    keys = [f"row-{number}" for number in range(4000)]
    taken = {weight: {key for key in keys if is_taken(key, weight)} for weight in (0.3, 0.6, 1.0)}
    assert taken[0.3] < taken[0.6] < taken[1.0] == set(keys)
    for split in ("train", "validation", "test"):
        own = {key for key in keys if stable_split(key) == split}
        assert abs(len(own & taken[0.3]) / len(own) - 0.3) < 0.06
