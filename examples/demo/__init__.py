"""The demo: a data-science session on handwritten digits, saved after every cell. ``python -m examples.demo``"""
