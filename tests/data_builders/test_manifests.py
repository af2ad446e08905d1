import json

import pytest

from data_builders.endpoint_stage import AnnotateOptions, annotate_corpus, estimate_corpus
from data_builders.exports import export
from data_builders.remove import remove
from data_builders.report_page import write_report
from facellava.endpoint import EndpointSettings
from facellava.errors import BadCorpus
from tests.data_builders.small_corpus import contents
from tests.data_builders.written_corpus import record, write_corpus

OPTIONS = AnnotateOptions(EndpointSettings("http://127.0.0.1:1/v1", "m"))
READERS = {
    "report": write_report,
    "export": lambda folder: export(folder, folder.with_name("out"), "llava"),
    "remove": lambda folder: remove(folder, sources=["celeba"]),
    "annotate": lambda folder: annotate_corpus(folder, OPTIONS),
    "estimate": lambda folder: estimate_corpus(folder, OPTIONS),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "has the form None, and this facellava reads form 2"),
        ({"version": 1, "files": {}}, "has the form 1"),
        (
            {"version": 2, "settings": {}, "files": []},
            "lacks what it says about sources",
        ),
    ],
)
def test_a_manifest_of_another_form_is_told_and_nothing_changes(
    tmp_path, reader, manifest, message
):
    corpus = write_corpus(tmp_path / "corpus", [record(0), record(1)], [])
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    before = contents(tmp_path)
    with pytest.raises(BadCorpus, match=message):
        READERS[reader](corpus)
    assert contents(tmp_path) == before
