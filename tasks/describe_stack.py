"""Tilt series without movies: whence the angles and the order of the sections of a stack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.description import Description, order_is_default, with_angle
from tasks.discover import series_name
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.mdoc import Mdoc, MdocSection, read_mdoc
from tasks.formats.mrc import open_frames
from tasks.formats.mrc_extended import axis_in_labels, ctf_correction_in, read_sections
from tasks.formats.tilt_list import acquisition_order, parse_range, read_tilt_list
from tasks.parameters import ImportParameters


def describe_stack(path: Path, user: ImportParameters) -> Description:
    """Return what a stack, and what lies beside it, say of a tilt series.

    Raises
    ------
    UnusableData, FormatError
        Naming the file, the value and the remedy.
    """
    header = open_frames(path).header
    count = header.shape[0]
    label = axis_in_labels(header.labels)
    axis = None if label is None else (label[0], "stack label")
    if user.aligned or (user.aligned is None and path.suffix == ".ali"):
        axis = (0.0, "aligned stack")
    where = user.angles or ""
    mdoc = _mdoc_beside(path) if where in ("", "mdoc") else None
    if mdoc is not None:
        return _of_stack_with_mdoc(path, count, mdoc, axis, ctf_correction_in(header))
    if where == "mdoc":
        raise UnusableData(f"{path}: no mdoc beside it: bring {path.name}.mdoc, or give --angles")
    sections, said_by, order = _listed_sections(path, count, where)
    angles = [section.tilt_angle or 0.0 for section in sections]
    doubt = None
    if order is None:
        order, order_by = list(acquisition_order(angles, user.order)), f"--order {user.order}"
        if order_is_default(user):
            doubt = "not known, the dose depends on it: say --order, or give an mdoc"
    else:
        order_by = said_by
    ranked = sorted(range(count), key=lambda i: order[i])
    views = tuple(sections[i] for i in ranked)
    return Description(
        mdoc=Mdoc(path, {}, (), tuple(sections)),
        views=views,
        files=dict.fromkeys(range(count), path),
        orders=tuple(range(1, count + 1)),
        said_by=said_by,
        order_by=order_by,
        doubts=(("order", order_by, "user" if doubt is None else "default", doubt),),
        axis=axis,
        is_stack=True,
        ctf_corrected=ctf_correction_in(header),
    )


def _of_stack_with_mdoc(
    path: Path,
    count: int,
    mdoc: Mdoc,
    axis: tuple[float, str] | None,
    ctf_corrected: str | None,
) -> Description:
    views = tuple(with_angle(view) for view in mdoc.views_by_time)
    numbers = sorted(view.number for view in views)
    if numbers != list(range(count)):
        raise UnusableData(
            f"{path}: has {count} sections, {mdoc.path.name} tells of {len(views)} "
            f"({numbers[0]} to {numbers[-1]}): give the mdoc of this stack, or --angles"
            if numbers
            else f"{mdoc.path}: has no views: give --angles"
        )
    timed = all(view.date_time is not None for view in views)
    return Description(
        mdoc=mdoc,
        views=views,
        files=dict.fromkeys(range(count), path),
        orders=tuple(range(1, count + 1)),
        order_by="DateTime" if timed else "mdoc",
        axis=axis,
        is_stack=True,
        ctf_corrected=ctf_corrected,
    )


def _mdoc_beside(path: Path) -> Mdoc | None:
    names = dict.fromkeys([f"{path.name}.mdoc", f"{path.stem}.mrc.mdoc", f"{path.stem}.mdoc"])
    found = next((p for name in names if (p := path.with_name(name)).is_file()), None)
    return None if found is None else read_mdoc(found)


def _listed_sections(
    path: Path, count: int, where: str
) -> tuple[list[MdocSection], str, list[int] | None]:
    """Return a section of an mdoc for each section of a stack, who said so, and the order."""
    beside = [path.with_suffix(suffix) for suffix in (".rawtlt", ".tlt")]
    if not where:
        where = next((str(file) for file in beside if file.is_file()), "header")
    if where == "header":
        told = read_sections(path)
        if told is None or any(section.tilt_angle is None for section in told):
            raise UnusableData(
                f"{path}: its header tells no tilt angles, and there is no mdoc, .rawtlt or .tlt "
                "beside it: give --angles, a file or first,last,step"
            )
        angles = [float(section.tilt_angle or 0.0) for section in told]
        held = [section.exposure_dose for section in told]
        return _sections(path, count, angles, held, "stack header"), "stack header", None
    file = Path(where.replace("{TS}", series_name(path))).expanduser()
    if not file.is_file():
        try:
            angles = list(parse_range(where, count))
        except ValueError as error:
            if "{" in where or re.search("[A-Za-z/]", where):
                raise UnusableData(f"{file}: no such file: correct --angles") from error
            raise UnusableData(f"{path}: --angles {where}: {error}") from error
        return _sections(path, count, angles, None, "--angles"), "--angles", None
    table = read_tilt_list(file)
    order = None if table.order is None else [int(n) for n in table.order]
    doses = None if table.dose is None else [float(dose) for dose in table.dose]
    angles = [float(angle) for angle in table.angles]
    return _sections(path, count, angles, doses, str(file)), file.name, order


def _sections(
    path: Path,
    count: int,
    angles: Sequence[float],
    doses: Sequence[float | None] | None,
    said_by: str,
) -> list[MdocSection]:
    if len(angles) != count:
        raise FormatError(
            said_by if "/" in said_by else path,
            f"{len(angles)} tilt angles for the {count} sections of {path.name}",
            "give one for each section",
        )
    sections = []
    for i, angle in enumerate(angles):
        fields = {"TiltAngle": repr(angle)}
        if doses is not None and doses[i] is not None:
            fields["ExposureDose"] = repr(doses[i])
        sections.append(MdocSection("ZValue", i, fields, path))
    return sections
