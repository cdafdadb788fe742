"""What the oracle knows about objects of numpy, pandas and matplotlib.

Libraries are looked up, never imported: an object of a library that is not loaded cannot exist.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle import Atom, Child, _Discovery


_ATOMS = (str, int, float, bool, type(None))


def by_name(value: Any) -> Atom | None:
    """Values of libraries without an identity of their own."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.dtype):
        return ("dtype", repr(value.descr) if value.names else repr(value), repr(value.metadata))
    if numpy is not None and isinstance(value, numpy.ufunc):
        return ("name", f"ufunc {value.__name__}")
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return ("singleton", repr(value))
    if pandas is not None and isinstance(value, pandas.api.extensions.ExtensionDtype) and not isinstance(value, pandas.CategoricalDtype):
        return ("dtype", repr(value))
    return None


def expand(discovery: _Discovery, value: Any, kind: type) -> tuple[Atom, list[Child]] | None:
    """Label and children of an object of a library; None if it is of none known here."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _array(discovery, value, kind, numpy)
        if isinstance(value, numpy.generic):
            return _scalar(discovery, value, kind)
    root = kind.__module__.partition(".")[0]
    if root == "pandas":
        return _pandas(discovery, value, kind, sys.modules["pandas"])
    if root == "matplotlib" and kind.__name__ == "Figure":
        return _figure(discovery, value)
    return None


def _array(discovery: _Discovery, value: Any, kind: type, numpy: Any) -> tuple[Atom, list[Child]]:
    from oracle import bytes_atom

    flags = value.flags
    # A copy in C order is what a load of a strided array may give.
    order = "F" if flags.fnc else "C"
    plain = value.view(numpy.ndarray)
    label: Atom = ("array", value.shape, order, flags.writeable, discovery.child(value.dtype))
    children = [discovery.child(kind)]
    if value.dtype.hasobject and value.dtype.names is None:
        children += discovery.many(plain.ravel().tolist())
    elif value.dtype.hasobject:
        children += discovery.many(part for row in plain.ravel().tolist() for part in row)
    else:
        flat = numpy.ascontiguousarray(plain).reshape(-1)
        label = (*label, bytes_atom("values", flat.view(numpy.uint8).data if flat.nbytes else b""))
    if isinstance(value, numpy.ma.MaskedArray):
        children += discovery.many((numpy.ma.getmaskarray(value), value.fill_value, value.hardmask))
    elif getattr(value, "__dict__", None):
        children += discovery.pairs(value.__dict__.items())
    return label, children


def _scalar(discovery: _Discovery, value: Any, kind: type) -> tuple[Atom, list[Child]]:
    if value.dtype.hasobject:
        return ("scalar", discovery.child(value.dtype)), [discovery.child(kind), discovery.child(value.item())]
    return ("scalar", discovery.child(value.dtype), value.tobytes()), [discovery.child(kind)]


def _pandas(discovery: _Discovery, value: Any, kind: type, pandas: Any) -> tuple[Atom, list[Child]] | None:
    if isinstance(value, pandas.DataFrame):
        children = [discovery.child(kind), *_index(discovery, value.columns, pandas), *_index(discovery, value.index, pandas)]
        for position in range(value.shape[1]):
            children += _column(discovery, value.iloc[:, position].array, pandas)
        children += discovery.pairs(value.attrs.items())
        return ("frame", value.shape, value.flags.allows_duplicate_labels), children
    if isinstance(value, pandas.Series):
        children = [discovery.child(kind), discovery.child(value.name), *_index(discovery, value.index, pandas)]
        children += _column(discovery, value.array, pandas) + discovery.pairs(value.attrs.items())
        return ("series", len(value)), children
    if isinstance(value, pandas.Index):
        return ("index", len(value)), [discovery.child(kind), *_index(discovery, value, pandas)]
    if isinstance(value, pandas.CategoricalDtype):
        return ("categorical dtype", value.ordered), _index(discovery, value.categories, pandas)
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return ("extension array", len(value)), [discovery.child(kind), *_column(discovery, value, pandas)]
    if isinstance(value, pandas.Timestamp | pandas.Timedelta | pandas.Period | pandas.Interval | pandas.offsets.BaseOffset):
        return ("time", repr(value), getattr(value, "unit", None)), [discovery.child(kind)]
    return None


def _column(discovery: _Discovery, values: Any, pandas: Any) -> list[Child]:
    numpy = sys.modules["numpy"]
    dtype = values.dtype
    children: list[Child] = [("dtype", repr(dtype))]
    if isinstance(dtype, pandas.CategoricalDtype):
        return children + _index(discovery, dtype.categories, pandas) + _leaf(discovery, numpy.asarray(values.codes))
    if dtype == object or isinstance(dtype, pandas.StringDtype) or not isinstance(dtype, numpy.dtype):
        return children + _elements(discovery, ["<NA>" if item is pandas.NA or item is pandas.NaT else item for item in _items(values)])
    return children + _leaf(discovery, numpy.asarray(values))


def _items(values: Any) -> list[Any]:
    """Elements; of arrays that make a new object on every access, as text."""
    if values.dtype == object:
        return list(values)
    return [item if type(item) in _ATOMS else repr(item) for item in values.tolist()]


def _elements(discovery: _Discovery, items: list[Any]) -> list[Child]:
    """Elements of a column; long runs of nothing but atoms as one hash."""
    from oracle import atom, bytes_atom

    atoms = [atom(item) for item in items]
    if len(items) > 100 and None not in atoms:
        return [("column", len(items)), bytes_atom("atoms", repr(atoms).encode("utf-8", "surrogatepass"))]
    return discovery.many(items)


def _leaf(discovery: _Discovery, array: Any) -> list[Child]:
    from oracle import bytes_atom

    numpy = sys.modules["numpy"]
    flat = numpy.ascontiguousarray(array).reshape(-1)
    return [("values", repr(array.dtype), flat.shape[0]), bytes_atom("values", flat.view(numpy.uint8).data if flat.nbytes else b"")]


def _index(discovery: _Discovery, index: Any, pandas: Any) -> list[Child]:
    children: list[Child] = [("index", type(index).__name__, len(index)), *discovery.many(index.names)]
    if isinstance(index, pandas.RangeIndex):
        return [*children, ("range", index.start, index.stop, index.step)]
    if isinstance(index, pandas.MultiIndex):
        for level, codes in zip(index.levels, index.codes, strict=True):
            children += _index(discovery, level, pandas) + _leaf(discovery, codes)
        return children
    if getattr(index, "freq", None) is not None:
        children.append(("freq", repr(index.freq)))
    return children + _column(discovery, index.array, pandas)


def _figure(discovery: _Discovery, figure: Any) -> tuple[Atom, list[Child]]:
    """What a figure shows. Its callback ids run on with each copy, so its inner objects are no measure."""
    children: list[Child] = []
    for axes in figure.axes:
        children.append(("axes", axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), len(axes.patches), len(axes.collections)))
        for line in axes.lines:
            children.append(("line", line.get_label(), line.get_color() if isinstance(line.get_color(), str) else repr(line.get_color())))
            children += _leaf(discovery, sys.modules["numpy"].asarray(line.get_xdata(), dtype=float))
            children += _leaf(discovery, sys.modules["numpy"].asarray(line.get_ydata(), dtype=float))
        for image in axes.images:
            children += _leaf(discovery, sys.modules["numpy"].asarray(image.get_array()))
    return ("figure", tuple(figure.get_size_inches()), figure.dpi), children
