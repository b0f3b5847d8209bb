"""Images of one's own: patches are cut from them, and what is no image is refused in a sentence."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cnnlab
from cnnlab.dashboards.upload import read_upload
from cnnlab.records import own_image as given_image
from cnnlab.training.data import make_patches

NOISE = np.random.default_rng(0).integers(0, 256, (120, 200), dtype=np.uint8)
SMALL = {"channels": 2, "hidden": (4, 4), "patch_size": 14, "patches": 20, "device": "cpu"}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def colours() -> np.ndarray:
    return np.stack([NOISE] * 3, axis=2)


@pytest.mark.parametrize(
    "source",
    [NOISE, NOISE / 255, colours(), png(NOISE), png(colours()), Image.fromarray(NOISE), NOISE.astype(np.int64)],
    ids=["array", "floats", "colours", "png", "colour png", "pillow", "whole numbers"],
)
def test_an_image_in_any_form_is_the_same_image(source):
    image, mask = given_image.kept(cnnlab.own_image(source))
    assert np.abs(image.astype(int) - NOISE).max() <= 1
    assert (mask[:60] == 0).all()
    assert (mask[60:] == 1).all()


def test_a_run_trains_on_patches_of_a_file(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    name = cnnlab.own_image(tmp_path / "noise.png")
    run = cnnlab.Run("question", image=name, learning_rate=1e-6, **SMALL)
    assert np.isfinite(run.advance(2).cost)
    data = make_patches(run.settings)
    for (row, column), patch, label in zip(data.positions, data.x[:, 0].numpy(), data.y, strict=True):
        assert (patch == NOISE[row : row + 14, column : column + 14]).all()
        assert label == int(row >= 60)
    assert (data.positions[:, 1] + 14 <= 100).all()
    assert (data.held_positions[:, 1] >= 100).all()


def test_texture_is_where_grey_values_deviate():
    image = np.full((120, 200), 100, np.uint8)
    image[:, ::2][:60] = 160
    _, mask = given_image.kept(cnnlab.own_image(image, "texture"))
    assert mask[:45].mean() > 0.99
    assert mask[75:].mean() < 0.01


def test_a_mask_labels_the_patches():
    mask = np.zeros(NOISE.shape, bool)
    mask[:, 50:150] = True
    name = cnnlab.own_image(NOISE, mask)
    assert given_image.kept(name)[1].sum() == mask.sum()
    assert set(make_patches(cnnlab.settings(image=name, patches=20, patch_size=14)).y.tolist()) == {0, 1}


def test_the_same_image_has_the_same_name_and_another_labelling_another():
    assert cnnlab.own_image(NOISE) == cnnlab.own_image(NOISE.copy())
    assert cnnlab.own_image(NOISE) != cnnlab.own_image(NOISE, "texture")


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""
    chunks = [
        b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0",
        b"IDAT" + zlib.compress(b"\0" * 1000),
        b"IEND",
    ]
    body = b"".join((len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            b"no image",
            ValueError,
            r"^image must be a picture that pillow can read, got the bytes given, ",
        ),
        ("missing.png", ValueError, r"^image must be a file, got 'missing.png', which is none$"),
        (png(NOISE)[:2000], ValueError, r"^image must be a whole picture, got the bytes given, which is damaged"),
        (bomb(), ValueError, r"^image must have at most 24,000,000 pixels, got "),
        (NOISE[:12], ValueError, r"^image must be at least 26x13 pixels, .* got 200x12$"),
        (NOISE[:, :25], ValueError, r"^image must be at least 26x13 pixels, .* got 25x120$"),
        (NOISE[0], ValueError, r"^image must be an array \(rows, columns\) .*, got shape \(200,\)$"),
        (NOISE * np.nan, ValueError, r"^image must hold uint8, or numbers in \[0, 1\], got others$"),
        (NOISE * 2.0, ValueError, r"^image must hold uint8, or numbers in \[0, 1\], got others$"),
        ({"a": 1}, TypeError, r"^image must be a path, bytes, an image or an array of numbers, got dict$"),
        (np.broadcast_to(np.uint8(3), (5000, 5000)), ValueError, r"^image must have at most .* got 25,000,000$"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(source, error, message):
    with pytest.raises(error, match=message):
        cnnlab.own_image(source)


def test_a_file_too_long_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(given_image, "MOST_FILE", 10)
    with pytest.raises(ValueError, match=r"^image must be a file of at most 0 MiB, got 0 MiB$"):
        cnnlab.own_image(png(NOISE))


@pytest.mark.parametrize("labels", ["thirds", np.zeros((3, 3), int), np.zeros(NOISE.shape), 7])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match=r"^labels must be "):
        cnnlab.own_image(NOISE, labels)


def test_an_image_without_room_for_the_patches_is_refused_when_the_run_begins():
    name = cnnlab.own_image(NOISE[:30])
    with pytest.raises(ValueError, match=r"^image must have room for 66 patches of 16x16, half of them of each label"):
        cnnlab.Run("question", image=name)
    with pytest.raises(ValueError, match=r"^image must have 40 rows and 80 columns for patches of 40, got 200x30"):
        cnnlab.Run("question", image=name, patch_size=40)


def test_a_name_that_nobody_gave_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"^image must be one of 'mosaic' or a name given by cnnlab.own_image, got"):
        cnnlab.settings(image="cat")
    with pytest.raises(ValueError, match=r"^image 'own_0{16}' is one of yours that this session does not hold: call"):
        cnnlab.Run("question", image="own_" + "0" * 16)


def test_a_saved_record_brings_its_image_along(tmp_path, monkeypatch):
    name = cnnlab.own_image(NOISE)
    run = cnnlab.Run("question", image=name, **SMALL)
    run.advance(3)
    run.record.save(tmp_path / "own.cnnlab")
    monkeypatch.setattr(given_image, "KEPT", {})
    again = cnnlab.Run(cnnlab.load(tmp_path / "own.cnnlab"))
    again.advance(2)
    run.advance(2)
    assert again.record.table.tobytes() == run.record.table.tobytes()


def test_an_image_too_large_for_a_file_is_asked_for_again(tmp_path, monkeypatch):
    run = cnnlab.Run("question", image=cnnlab.own_image(NOISE), **SMALL)
    run.step()
    monkeypatch.setattr("cnnlab.records.storage.MOST_PIXELS", 10)
    run.record.save(tmp_path / "own.cnnlab")
    monkeypatch.setattr(given_image, "KEPT", {})
    record = cnnlab.load(tmp_path / "own.cnnlab")
    with pytest.raises(ValueError, match=r"does not hold: call cnnlab\.own_image again$"):
        cnnlab.Run(record)


def test_a_script_of_an_own_image_trains_the_same(tmp_path):
    run = cnnlab.Run("question", image=cnnlab.own_image(NOISE), **SMALL)
    run.advance(2)
    cnnlab.export_script(run.record, tmp_path / "run.py")
    assert "PICTURE" in (tmp_path / "run.py").read_text()


def test_an_upload_is_handed_on_or_refused_in_a_sentence():
    assert read_upload({"file": "halves"}, [memoryview(png(NOISE))]) == {"set": {"image": cnnlab.own_image(NOISE)}}
    texture = {"set": {"image": cnnlab.own_image(NOISE, "texture")}}
    assert read_upload({"file": "texture"}, [memoryview(png(NOISE))]) == texture
    assert read_upload({"file": "halves"}, [b"text"])["problem"].startswith("image must be a picture")
    assert read_upload({"file": "halves"}, None)["problem"] == "file must come with the bytes of an image, got none"
    assert read_upload({"file": "stripes"}, [png(NOISE)])["problem"].startswith("labels must be ")


@pytest.mark.parametrize("message", [{"do": "play"}, {}, None, ["file"]])
def test_a_message_without_a_file_is_no_upload(message):
    assert read_upload(message, [b"text"]) is message


def test_a_lab_takes_an_uploaded_image_and_shows_why_another_is_refused():
    lab = cnnlab.Lab("question", **SMALL)
    name = cnnlab.own_image(NOISE)
    lab.received({"set": {"image": name}})
    assert lab.settings.image == name
    lab.received({"problem": "image must be a picture"})
    assert lab.problem == "image must be a picture"
    lab.close()


def dds(content: bytes = b"ZZZZ") -> bytes:
    """A DDS of a form that pillow does not know."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 4), np.uint8)).save(buffer, "DDS")
    whole = bytearray(buffer.getvalue())
    whole[76:88] = b"\x20\0\0\0\x04\0\0\0" + content
    return bytes(whole)


def test_a_dds_of_an_unknown_form_is_refused_in_a_sentence_and_on_the_page():
    said = "image must be a picture that pillow can read, got the bytes given, which is none"
    with pytest.raises(ValueError, match=f"^{said}$"):
        cnnlab.own_image(dds())
    assert read_upload({"file": "halves"}, [dds()]) == {"problem": said}


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (NotImplementedError("of this form"), "NotImplementedError: of this form"),
        (MemoryError(), "MemoryError"),
        (KeyError("tile"), "KeyError: 'tile'"),
    ],
)
def test_whatever_an_upload_brings_about_reaches_the_page(problem, said, monkeypatch):
    def fails(*_arguments: object) -> str:
        raise problem

    monkeypatch.setattr("cnnlab.dashboards.upload.own_image", fails)
    assert read_upload({"file": "halves"}, [b"image"]) == {"problem": said}


FORMS = {"PNG": "RGB", "JPEG": "RGB", "GIF": "P", "BMP": "RGB", "TIFF": "F", "WEBP": "RGB", "DDS": "RGBA", "TGA": "RGB"}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=200)
@given(
    form=st.sampled_from(sorted(FORMS)),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=9),
)
def test_a_damaged_picture_of_any_form_is_an_image_or_one_sentence(form, changes):
    buffer = io.BytesIO()
    Image.fromarray(colours()[:40, :60]).convert(FORMS[form]).save(buffer, form)
    whole = bytearray(buffer.getvalue())
    for place, value in changes:
        whole[place % len(whole)] = value
    try:
        said = cnnlab.own_image(bytes(whole))
    except ValueError as refused:
        said = str(refused)
    assert said.startswith(("own_", "image must "))
    assert "\n" not in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_of_numbers_that_are_not_finite_is_refused(value):
    picture = Image.fromarray(np.where(NOISE > 250, value, NOISE).astype(np.float32))
    with pytest.raises(ValueError, match=r"^image must hold finite numbers, got others in the image given$"):
        cnnlab.own_image(picture)


def test_a_drawing_is_refused_for_another_program_would_run_it():
    buffer = io.BytesIO()
    Image.fromarray(colours()).save(buffer, "EPS")
    with pytest.raises(
        ValueError, match=r"^image must be made of pixels, got the bytes given, which is a drawing in EPS$"
    ):
        cnnlab.own_image(buffer.getvalue())


def test_forms_that_take_much_memory_may_have_fewer_pixels(monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "WEBP")
    monkeypatch.setattr(given_image, "MOST_PIXELS_IN", {"WEBP": 20_000})
    with pytest.raises(ValueError, match=r"^image must have at most 20,000 pixels as WEBP, got 24,000$"):
        cnnlab.own_image(buffer.getvalue())


def whole_texture(image: np.ndarray) -> np.ndarray:
    """The labels by texture, with all numbers of the image at once."""

    def averaged(values: np.ndarray) -> np.ndarray:
        wide = np.pad(values, (9, 8), mode="reflect").cumsum(0).cumsum(1)
        high, low = slice(17, None), slice(None, -17)
        return (wide[high, high] - wide[low, high] - wide[high, low] + wide[low, low]) / 289

    values = image.astype(float)
    mean, square = averaged(values), averaged(values**2)
    deviation = averaged(np.sqrt(np.maximum(square - mean**2, 0)))
    return (deviation > np.median(deviation)).astype(np.uint8)


@pytest.mark.parametrize("piece", [1, 3000, 10**9])
@pytest.mark.parametrize("shape", [(13, 26), (120, 201), (200, 31)])
def test_an_image_that_is_computed_some_rows_at_a_time_is_the_same_to_the_bit(shape, piece, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    image[: shape[0] // 3] = 7
    image[:, : shape[1] // 2] //= 3
    monkeypatch.setattr(given_image, "PIECE", piece)
    assert (given_image.build_mask(image, "texture") == whole_texture(image)).all()
    coloured = np.stack([image, image[::-1], image[:, ::-1]], axis=2)
    grey = (coloured @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    assert (given_image.read_grey(coloured) == grey).all()
    assert (given_image.read_grey(image / 255) == image).all()


def test_texture_of_a_very_wide_image_is_measured_column_by_column(monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (30, 200), dtype=np.uint8)
    image[:, :90] //= 3
    upright = given_image.build_mask(image, "texture")
    monkeypatch.setattr(given_image, "WIDEST", 100)
    assert (given_image.build_mask(image, "texture") == upright).all()
