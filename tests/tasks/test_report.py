from __future__ import annotations

import csv
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tasks import plots
from tasks.errors import NotThere
from tasks.report import shown, write_report


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):  # type: ignore[no-untyped-def]
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> dict[str, str]:
        """Return alt text → source of every image."""
        return {a["alt"] or "": a["src"] or "" for tag, a in self.tags if tag == "img"}


@pytest.fixture
def url(fake_run) -> str:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    tomogram = run.reconstruct((12, 48, 40), 2)
    for level in "01":  # bright where y is high, and brighter where z is high
        array = tomogram.array(level)
        nz, ny, _ = array.shape
        z, y = np.arange(nz)[:, None, None] / nz, np.arange(ny)[:, None] / ny
        array[:] = np.broadcast_to(y + 3 * z, array.shape).astype("float32")
    fake_run("TS_02").series.note_failure("main", "motion", "TS_02_3.mrc: cut off")
    return str(run.series.project.url)


def test_the_page_stands_alone(url: str, tmp_path: Path) -> None:
    page = Page(write_report(url, "main", tmp_path / "out"))
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("data:image/", "#")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in (tmp_path / "out" / "report.html").read_text()
    targets = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert targets == {"TS_01", "TS_02"}


def test_every_image_has_words(url: str, tmp_path: Path) -> None:
    page = Page(write_report(url, "main", tmp_path))
    images = page.images()
    assert len(images) == sum(tag == "img" for tag, _ in page.tags) == 13  # no two alike
    assert "Motion against tilt angle: median 4.5 Å, largest 7 Å at 47.0°." in images
    assert (
        "Defocus against tilt angle: median 2.91 µm, largest 2.92 µm at 47.0°. "
        "Reach of the fit against tilt angle: median 8.5 Å, largest 11 Å at 47.0°. "
        "1 of 6 views are not reliable."
    ) in images


def test_the_patches_of_an_alignment_have_a_table_and_a_plot(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    views = run.series.current("main", "markerfree").attributes()["decides"]["views"]
    patch = {"patch": 1, "X [Å]": 37.25, "Y [Å]": -12.5, "views": 6, "residual [Å]": 0.75}
    table = [{"view": 2, "error of shift x [Å]": 0.125, "error of shift y [Å]": 0.5}]
    extra = {"patches": [patch], "held_out": {"shifts": 1.53125}, "refined": ["axis"]}
    run.finish("markerfree", views=views, table=table, **extra)
    page = Page(write_report(str(run.series.project.url), "main", tmp_path))
    assert (
        "predicted to, in their standard errors: shifts: 1.5312. Refined for each view: axis."
        in (page.text)
    )
    assert "37.25" in page.text
    assert any(alt.startswith("1 patches seen in 6 to 6 views") for alt in page.images())
    with (tmp_path / "qc.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["markerfree_error_of_shift_x_A"] == "0.125"


def test_the_page_tells_what_a_user_must_see(url: str, tmp_path: Path) -> None:
    text = Page(write_report(url, "main", tmp_path)).text
    for fact in (
        "title says <84.1°>",  # a conflict of the import, escaped in the page
        "View 7, 50.0°: dark: mean 2 where 94 is expected",
        "CTF is not from the view's own rings: −47.0°",
        "TS_02: motion failed: TS_02_3.mrc: cut off",
        "300 kV, 2.7 mm",
        "96 × 80 pixels",
        "refined 85.40°",
        "significance [σ]",
    ):
        assert fact in text, fact


def test_high_y_and_high_z_are_at_the_top_of_slices(url: str, tmp_path: Path) -> None:
    images = Page(write_report(url, "main", tmp_path)).images()
    for plane in ("XY", "XZ", "YZ"):
        source = images[f"Central {plane} slice of the tomogram of TS_01."]
        pixels = matplotlib.image.imread(BytesIO(b64decode(source.split(",")[1])), "jpeg")
        third = len(pixels) // 3
        assert pixels[:third].mean() > pixels[-third:].mean() + 50
    # y grows to the right in YZ
    assert pixels[:, -10:].mean() > pixels[:, :10].mean() + 10


def test_qc_has_every_view_of_every_series_with_its_figures(url: str, tmp_path: Path) -> None:
    page = write_report(url, "main", tmp_path / "report of today.html")
    assert page.name == "report of today.html"
    rows = list(csv.DictReader((tmp_path / "qc.csv").open(encoding="utf-8")))
    assert [(row["series"], row["view"]) for row in rows] == [
        (name, str(i)) for name in ("TS_01", "TS_02") for i in range(1, 8)
    ]
    first, dark, other = rows[0], rows[6], rows[7]
    assert (first["tilt_angle_deg"], first["order"], first["included"]) == ("-47", "6", "True")
    assert (first["defocus_u_A"], first["ctf_reliable"]) == ("30000", "False")
    assert (first["motion_mean"], first["motion_significance_sigma"]) == ("100", "9")
    assert (dark["included"], dark["defocus_u_A"]) == ("False", "")
    assert dark["excluded_because"] == "dark: mean 2 where 94 is expected"
    assert (other["motion_total_A"], other["prior_dose_e_per_A2"]) == ("", "15")


def test_a_branch_that_nobody_has_is_an_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="no series has a branch 'typo'"):
        write_report(url, "typo", tmp_path / "out")
    with pytest.raises(NotThere, match="no project there"):
        write_report(str(tmp_path / "nowhere.zarr"), "main", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("width", "bar"), [(129.6, 20), (30, 10), (29.9, 5), (6000, 2000), (0.7, 0.2)]
)
def test_scale_bars_are_round_and_at_most_a_third(width: float, bar: float) -> None:
    assert plots.scale_bar(width) == pytest.approx(bar)


def test_a_picture_keeps_its_mean_and_its_scale() -> None:
    image = np.random.default_rng(0).normal(size=(1301, 1203)).astype("float32")
    small = plots.shrunk(image, 560)
    assert small.shape == (433, 401)
    assert small.mean() == pytest.approx(image[:1299].mean(), abs=1e-5)
    picture = plots.picture(image, 2.0, "", "")
    assert (picture.bar_text, picture.bar_percent) == ("50 nm", pytest.approx(100 * 500 / 2406))
    constant = plots.picture(np.ones((8, 8), "float32"), 2.0, "", "")
    assert constant.uri.startswith("data:image/jpeg")


def test_values_are_shown_as_people_write_them() -> None:
    values = [None, "", True, float("nan"), -1.23456789, 7, {"binning": 2.0, "align": False}]
    expected = ["–", "–", "yes", "–", "−1.2346", "7", "binning: 2, align: no"]
    assert [shown(value) for value in values] == expected
    assert plots.angle(-0.01) == "0.0°"
