"""Published lists: what their lines hold, and folds that must agree with each other."""

import pytest

from data_builders.raw_face import Drops
from data_builders.sources.published_lists import FoldClip, clips_of_folds, read_pairs
from facellava.errors import BadCorpus


def folds(tested: list[list[tuple[str, str]]]) -> list[tuple[list, list]]:
    """Train and test lists: each clip trains where it is not tested."""
    everything = [pair for fold in tested for pair in fold]
    return [([pair for pair in everything if pair not in fold], fold) for fold in tested]


def test_each_clip_is_tested_in_one_fold():
    lists = folds([[("b", "1")], [("a", "2"), ("c", "1")], [("d", "3")]])
    drops = Drops()
    assert list(clips_of_folds("X", lists, drops)) == [
        FoldClip("a", "2", 2), FoldClip("b", "1", 1), FoldClip("c", "1", 2),
        FoldClip("d", "3", 3),
    ]  # fmt: skip
    assert not drops.counts


def test_clips_on_which_the_lists_disagree_are_counted():
    lists = folds([[("a", "1")], [("b", "1")], [("c", "1")]])
    train, test = lists[0]
    train += [("only trained", "1"), ("other label", "1")]
    test += [("twice", "1")]
    lists[1][1].extend([("twice", "1"), ("other label", "2"), ("rarely trained", "1")])
    lists[2][0].append(("other label", "2"))
    drops = Drops()
    assert [clip.name for clip in clips_of_folds("X", lists, drops)] == ["a", "b", "c"]
    assert {reason: found["examples"] for reason, found in drops.to_dict().items()} == {
        "clip has several labels": ["other label"],
        "clip is in no test list": ["only trained"],
        "clip is in several test lists": ["twice"],
        "clip is missing in a train list": ["rarely trained"],
    }


def test_a_train_list_with_a_clip_of_its_own_test_list_is_refused():
    lists = folds([[("a", "1")], [("b", "1")]])
    lists[1][0].append(("b", "1"))
    with pytest.raises(BadCorpus, match="X: 1 clips, such as 'b', are in the train list .* fold 2"):
        list(clips_of_folds("X", lists, Drops()))


def test_lines_are_two_words(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\ufeff00025.mp4 happiness\n\n00030.mp4\tsadness\r\n", "utf-8")
    assert read_pairs(path, "X") == [("00025.mp4", "happiness"), ("00030.mp4", "sadness")]
    path.write_text("00025.mp4 happiness\n00030.mp4\n")
    with pytest.raises(BadCorpus, match=r"X: line 2 of '.*train.txt' is '00030.mp4'; a name and"):
        read_pairs(path, "X")
