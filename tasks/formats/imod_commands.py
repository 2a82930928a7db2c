"""newst.com and tilt.com: how IMOD makes the aligned stack and the tomogram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, refuse_nan, write_text
from tasks.formats.imod import print_views
from tasks.formats.imod_geometry import TiltVolume

LEGACY_FALLOFF = 2**0.5  # IMOD's fall-off is √2 sigma unless FalloffIsTrueSigma, new in 4.10


def write_newst(
    path: StrPath,
    *,
    stack: str,
    aligned: str,
    transforms: str,
    size: tuple[int, int],
    binning: int = 1,
    antialias: bool = True,
) -> None:
    """Write newst.com.

    Parameters
    ----------
    path
        The file.
    stack, aligned, transforms
        Names of the input stack, the output and the .xf file.
    size
        nx, ny of the aligned stack, in binned pixels.
    binning
        Of the output.
    antialias
        Whether to reduce with IMOD's antialias filter instead of adding pixels up.
    """
    entries = [
        ("InputFile", _name(path, stack)),
        ("OutputFile", _name(path, aligned)),
        ("TransformFile", _name(path, transforms)),
        ("TaperAtFill", "1,0"),
        ("AdjustOrigin", ""),
        ("SizeToOutputInXandY", f"{size[0]},{size[1]}"),
        ("OffsetsInXandY", "0,0"),
        ("ImagesAreBinned", "1"),
        ("BinByFactor", f"{binning}"),
    ]
    if antialias and binning > 1:
        entries.append(("AntialiasFilter", "-1"))
    _write(path, "newstack", entries)


def write_tilt(
    path: StrPath,
    *,
    aligned: str,
    output: str,
    tilt_file: str,
    volume: TiltVolume,
    xtilt_file: str | None = None,
    angle_offset: float = 0.0,
    excluded: Sequence[int] = (),
    radial: tuple[float, float] = (0.35, 0.035),
    hamming_from: float | None = None,
    exact_size: int | None = None,
    sirt_like_iterations: int = 0,
    logarithm: bool = False,
    mode: int = 2,
    scale: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write tilt.com; IMOD's output is to be turned by ``trimvol -rx``.

    Parameters
    ----------
    path
        The file.
    aligned, output, tilt_file, xtilt_file
        Names of the aligned stack, the tomogram, the .tlt and, when solved, the .xtilt file.
    volume
        Of `tilt_volume`.
    angle_offset
        Added to the tilt angles [degrees].
    excluded
        Views left out, from 1.
    radial
        Cut-off and sigma of the radial filter [cycles per binned pixel]; the file has √2 sigma
        for the fall-off, which every release of IMOD takes as the same filter.
    hamming_from
        Start of the Hamming-like filter, which takes the place of `radial` [cycles per binned
        pixel].
    exact_size
        Of the object, for the exact filter [unbinned pixels].
    sirt_like_iterations
        Of FakeSIRTiterations; 0 for the plain ramp. Not with `exact_size`.
    logarithm
        Whether to take the logarithm of the views.
    mode, scale
        MRC mode of the output; what is added to its values, and their factor after that.
    """
    refuse_nan(path, "value", (*radial, *scale, angle_offset, volume.shift_x, volume.shift_z))
    if any(view < 1 for view in excluded):
        raise FormatError(path, f"excluded views {shown(list(excluded))}", "number them from 1")
    entries = [
        ("InputProjections", _name(path, aligned)),
        ("OutputFile", _name(path, output)),
        ("IMAGEBINNED", f"{volume.binning}"),
        ("TILTFILE", _name(path, tilt_file)),
        *([("XTILTFILE", _name(path, xtilt_file))] if xtilt_file else []),
        ("THICKNESS", f"{volume.thickness}"),
        ("WIDTH", f"{volume.width}"),
        ("SLICE", f"{volume.slices[0]} {volume.slices[1]}"),
        ("RADIAL", f"{radial[0]:g} {radial[1] * LEGACY_FALLOFF:.5f}")
        if hamming_from is None
        else ("HammingLikeFilter", f"{hamming_from:g}"),
        *([("ExactFilterSize", f"{exact_size}")] if exact_size else []),
        *([("LOG", "0.0")] if logarithm else []),
        ("XAXISTILT", "0"),
        ("SCALE", f"{scale[0]:g} {scale[1]:g}"),
        ("PERPENDICULAR", ""),
        ("MODE", f"{mode}"),
        ("FULLIMAGE", f"{volume.full_image[0]} {volume.full_image[1]}"),
        ("SUBSETSTART", "0 0"),
        ("AdjustOrigin", ""),
        ("SHIFT", f"{volume.shift_x:.4f} {volume.shift_z:.4f}"),
        ("OFFSET", f"{angle_offset:.4f} 0" if angle_offset else "0 0"),
        *([("FakeSIRTiterations", f"{sirt_like_iterations}")] if sirt_like_iterations else []),
        *([("EXCLUDELIST", print_views(excluded))] if excluded else []),
    ]
    _write(path, "tilt", entries)


def _write(path: StrPath, program: str, entries: Sequence[tuple[str, str]]) -> None:
    body = "".join(f"{key}\t{value}".rstrip() + "\n" for key, value in entries)
    write_text(path, f"# Run with: subm {Path(path).name}\n${program} -StandardInput\n{body}")


def _name(path: StrPath, name: str) -> str:
    if not name.strip() or not name.isprintable() or "#" in name:
        raise FormatError(path, f"file name {shown(name)}", "use a name that IMOD can read")
    return name
