"""Annotators: they write questions and explained answers for labelled faces."""
