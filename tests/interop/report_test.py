"""The account of a foreign checkpoint."""

from ganjax.interop.report import Report


def test_text_names_what_did_not_match():
    report = Report(matched=("a", "b"), missing=("c",), unexpected=("d",))
    assert str(report) == "2 entries matched\n1 missing:\n    c\n1 unexpected:\n    d"
    assert not report.complete
    assert Report(matched=("a",), ignored=("e",)).complete
