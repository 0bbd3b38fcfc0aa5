"""Calibration data: real photographs that never leave the machine, and whatever a user's folder holds."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.calibration import folder as folders
from edge.calibration import photographs
from edge.calibration.decoding import UnusableError, read_array, read_image
from edge.calibration.photographs import CALIBRATION, CHECK, CalibrationSet, calibration_set, check_samples, digest
from edge.calibration.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edge.errors import ExitCode, InputError, SetupError

SMALL = Preprocessing(size=32, crop=0.9, mean=IMAGENET_MEAN, std=IMAGENET_STD)
PLAIN = Preprocessing(size=32, crop=1.0, mean=(0, 0, 0), std=(1 / 255,) * 3)
"""Gives the pixels' own values."""


def gradient(width: int = 80, height: int = 60) -> np.ndarray:
    """Red grows to the right, green downwards, blue is 100."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 100)], axis=-1).astype(np.uint8)


class TestPreprocessing:
    def test_an_image_of_the_right_size_is_only_normalised(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        got = Preprocessing(32, 1.0, IMAGENET_MEAN, IMAGENET_STD)(Image.fromarray(pixels))
        assert got.shape == (3, 32, 32) and got.dtype == np.float32 and got.flags.c_contiguous
        for channel in range(3):
            expected = (pixels[:, :, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
            np.testing.assert_allclose(got[channel], expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("width", "height"), [(80, 60), (60, 80), (33, 500), (32, 32), (10, 10)])
    def test_it_resizes_the_shorter_side_and_cuts_the_middle(self, width: int, height: int) -> None:
        """At crop 0.9 and size 32 the shorter side becomes 35: sizes are cut down, as torchvision does."""
        image = Image.fromarray(gradient(width, height))
        resized = (35, int(35 * height / width)) if width <= height else (int(35 * width / height), 35)
        left, top = round((resized[0] - 32) / 2), round((resized[1] - 32) / 2)
        expected = np.asarray(image.resize(resized, Image.Resampling.BICUBIC))[top : top + 32, left : left + 32]
        got = Preprocessing(32, 0.9, PLAIN.mean, PLAIN.std)(image)
        np.testing.assert_allclose(got.transpose(1, 2, 0), expected, atol=1e-4)


class TestThePhotographs:
    def test_there_are_enough_and_they_are_twice_there(self) -> None:
        images = calibration_set(SMALL)
        assert len(images.used) == 13 and images.samples.shape == (26, 3, 32, 32)
        assert images.samples.dtype == np.float32 and np.isfinite(images.samples).all()
        assert (images.rejected, images.left_out, images.digest) == ((), 0, digest())
        np.testing.assert_array_equal(images.samples[1::2], images.samples[::2, :, :, ::-1])

    def test_no_sample_is_in_both_sets(self) -> None:
        assert not set(CALIBRATION) & set(CHECK)
        assert len(CHECK) >= 8
        calibration, check = calibration_set(SMALL).samples, check_samples(SMALL)
        nearest = min(np.abs(mine - other).mean() for mine in calibration for other in check)
        assert nearest > 0.1
        assert np.abs(calibration[16] - calibration[18]).mean() > 0, "the two motorcycles are two pictures"

    def test_the_check_is_eight_photographs_and_eight_random_images(self) -> None:
        samples = check_samples(SMALL)
        assert samples.shape == (16, 3, 32, 32) and samples.dtype == np.float32
        np.testing.assert_array_equal(samples, check_samples(SMALL))
        assert len({sample.tobytes() for sample in samples}) == 16
        lowest, highest = calibration_set(SMALL).samples.min(), calibration_set(SMALL).samples.max()
        assert samples.min() >= lowest and samples.max() <= highest, "the input's range is the photographs'"

    def test_random_images_have_contrast_at_every_scale(self) -> None:
        """White noise would lose half its contrast each time it is halved; these lose little."""
        random = check_samples(SMALL)[8:]
        halved = random.reshape(8, 3, 16, 2, 16, 2).mean((3, 5))
        assert halved.std() > 0.8 * random.std()

    def test_the_digest_is_quick_and_imports_nothing_heavy(self) -> None:
        code = """
import sys, time
from edge.calibration.photographs import digest
print(digest(), time.process_time(), *sorted({"numpy", "PIL", "torch", "skimage", "sklearn"} & set(sys.modules)))
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        result, seconds, *heavy = run.stdout.split()
        assert (result, heavy) == (digest(), []) and float(seconds) < 0.3

    def test_reading_them_imports_neither_package(self) -> None:
        code = """
import sys
from edge.calibration.photographs import calibration_set, check_samples
from edge.calibration.preprocessing import Preprocessing
preprocessing = Preprocessing(32, 0.9, (0, 0, 0), (1, 1, 1))
calibration_set(preprocessing), check_samples(preprocessing)
assert not {"skimage", "sklearn"} & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_without_the_packages_the_error_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(photographs, "CALIBRATION", ("no_such_package/data/astronaut.png",))
        with pytest.raises(SetupError, match="astronaut") as caught:
            digest()
        assert "scikit-image" in caught.value.next_step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good photographs, in a folder whose name is not plain."""
    place = tmp_path / "Meine Fotos 📷"
    place.mkdir()
    for index in range(8):
        Image.fromarray(np.roll(gradient(), index * 10, axis=1)).save(place / f"photo {index}.png")
    return place


def read(folder: Path, preprocessing: Preprocessing = SMALL) -> CalibrationSet:
    return calibration_set(preprocessing, folder)


def jpeg(path: Path) -> bytes:
    Image.fromarray(gradient(200, 200)).save(path, "JPEG", quality=95)
    return path.read_bytes()


def truncated_jpeg(path: Path) -> None:
    content = jpeg(path)
    path.write_bytes(content[: len(content) * 2 // 3])


def flipped_png(path: Path) -> None:
    Image.fromarray(gradient()).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=True)


GOOD = np.zeros((3, 32, 32), np.float32)
BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "0 bytes": ("a.jpg", lambda p: p.write_bytes(b""), "0 bytes"),
    "truncated JPEG": ("a.jpg", truncated_jpeg, "truncated"),
    "a flipped byte in a PNG": ("a.png", flipped_png, "does not decode"),
    "text": ("a.png", lambda p: p.write_text("not a picture"), "not a JPEG"),
    "a GIF called PNG": ("a.png", lambda p: Image.new("P", (50, 50)).save(p, "GIF"), "not a JPEG"),
    "icon": ("a.png", lambda p: Image.new("RGB", (16, 16)).save(p), "16×16 pixels"),
    "strip": ("a.png", lambda p: Image.new("L", (40, 30_000)).save(p), "40×30000 pixels"),
    "float samples": ("a.tif", lambda p: Image.new("F", (50, 50), 0.5).save(p), "range is not known"),
    "32-bit samples": ("a.tif", lambda p: Image.new("I", (50, 50), 1 << 20).save(p), "more than 16 bits"),
    "HEIC": ("a.heic", lambda p: p.write_bytes(b"ftypheic"), "neither an image nor a .npy"),
    "a note": ("readme.txt", lambda p: p.write_text("hello"), "neither an image nor a .npy"),
    "a folder called PNG": ("a.png/b.txt", lambda p: (p.parent.mkdir(), p.touch()), "neither an image"),
    "a link to nowhere": ("a.png", lambda p: p.symlink_to("nowhere.png"), "neither an image"),
    "NaN": ("a.npy", npy(np.where(np.arange(32) == 3, np.nan, GOOD)), "96 values are NaN or infinite"),
    "infinity": ("a.npy", npy(GOOD + np.float32(np.inf)), "NaN or infinite"),
    "channels last": ("a.npy", npy(GOOD.transpose(1, 2, 0)), "channels last: transpose it"),
    "another size": ("a.npy", npy(np.zeros((3, 64, 64), np.float32)), "shape (3, 64, 64), not (3, 32, 32)"),
    "one channel": ("a.npy", npy(np.zeros((1, 32, 32), np.float32)), "shape (1, 32, 32)"),
    "no samples": ("a.npy", npy(np.zeros((0, 3, 32, 32), np.float32)), "shape (0, 3, 32, 32)"),
    "five dimensions": ("a.npy", npy(GOOD[None, None]), "shape (1, 1, 3, 32, 32)"),
    "bytes": ("a.npy", npy(np.zeros((3, 32, 32), np.uint8)), "uint8, not floating-point"),
    "pickled objects": ("a.npy", npy(np.array([{}], object)), "not a plain .npy array"),
    "not normalised": ("a.npy", npy(GOOD + 200), "values up to 200: not normalised"),
    "truncated array": ("a.npy", lambda p: (np.save(p, GOOD), p.write_bytes(p.read_bytes()[:-9])), "not a plain .npy"),
    "garbage array": ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "not a plain .npy"),
    "empty array": ("a.npy", lambda p: p.write_bytes(b""), "not a plain .npy"),
}


class TestAFolderOfTheUsers:
    def test_every_photograph_is_used(self, folder: Path) -> None:
        images = read(folder)
        assert images.name == folder.name and images.samples.shape == (8, 3, 32, 32)
        assert images.used == tuple(f"photo {index}.png" for index in range(8)) and images.rejected == ()
        np.testing.assert_array_equal(images.samples[3], SMALL(Image.open(folder / "photo 3.png")))

    @pytest.mark.parametrize("kind", BAD_FILES)
    def test_a_bad_file_is_rejected_with_its_reason_and_the_others_are_used(self, kind: str, folder: Path) -> None:
        name, make, reason = BAD_FILES[kind]
        make(folder / name)
        images = read(folder)
        assert len(images.used) == len(images.samples) == 8
        ((rejected, why),) = images.rejected
        assert rejected == name and reason in why

    def test_too_few_are_an_error_that_shows_the_reasons(self, folder: Path) -> None:
        (folder / "photo 0.png").write_bytes(b"")
        truncated_jpeg(folder / "half.jpeg")
        with pytest.raises(InputError) as caught:
            read(folder)
        assert caught.value.exit_code == ExitCode.INPUT
        assert "gives 7 samples, at least 8 are needed" in caught.value.message
        assert "photo 0.png (0 bytes)" in caught.value.message and "half.jpeg (does not decode" in caught.value.message

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="gives 0 samples"):
            read(tmp_path)

    @pytest.mark.parametrize(("name", "what"), [("nowhere", "does not exist"), ("file", "is not a folder")])
    def test_no_folder(self, name: str, what: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for function in (read, digest):
            with pytest.raises(InputError, match=what):
                function(tmp_path / name)

    def test_sub_folders_count_and_hidden_files_do_not(self, folder: Path) -> None:
        (folder / "more" / ".thumbnails").mkdir(parents=True)
        for path in ("more/Ünïcode.PNG", "more/.thumbnails/small.png", ".DS_Store", "._photo 0.png"):
            Image.fromarray(gradient()).save(folder / path, "PNG")
        images = read(folder)
        assert set(images.used) - {f"photo {index}.png" for index in range(8)} == {"more/Ünïcode.PNG"}
        assert images.rejected == ()

    def test_arrays_of_preprocessed_samples_are_used_as_they_are(self, folder: Path) -> None:
        generator = np.random.default_rng(0)
        one, three = generator.uniform(-2, 2, (3, 32, 32)), generator.uniform(-2, 2, (3, 3, 32, 32)).astype(np.float16)
        np.save(folder / "a one.npy", one)
        np.save(folder / "a three.npy", three)
        images = read(folder)
        assert images.samples.shape == (12, 3, 32, 32) and images.samples.dtype == np.float32
        np.testing.assert_array_equal(images.samples[0], one.astype(np.float32))
        np.testing.assert_array_equal(images.samples[1:4], three.astype(np.float32))

    def test_of_a_large_folder_every_part_gives_some(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "MAXIMUM", 10)
        for label in "abcde":
            for index in range(6):
                Image.fromarray(gradient()).save(folder / f"{label}{index}.png")
        images = read(folder)
        assert (len(images.used), images.left_out) == (10, 28)
        assert {name[0] for name in images.used} == {"a", "b", "c", "d", "e", "p"}

    def test_an_array_may_not_flood_the_set(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "MAXIMUM", 12)
        np.save(folder / "z.npy", np.zeros((5, 3, 32, 32), np.float32))
        images = read(folder)
        assert images.rejected == (("z.npy", "5 samples, with which the set would pass 12"),)


class TestTheDigest:
    def test_it_changes_with_bytes_and_names_and_not_with_the_rest(self, folder: Path) -> None:
        before = digest(folder)
        assert before == read(folder).digest == digest(folder.rename(folder.with_name("elsewhere")))
        folder = folder.with_name("elsewhere")
        (folder / "notes.txt").write_text("nothing to decode")
        (folder / "photo 0.png").touch()
        assert digest(folder) == before
        seen = {before}
        (folder / "photo 0.png").rename(folder / "photo 9.png")
        seen.add(digest(folder))
        content = bytearray((folder / "photo 1.png").read_bytes())
        content[-1] ^= 1
        (folder / "photo 1.png").write_bytes(content)
        seen.add(digest(folder))
        (folder / "empty.jpg").touch()
        seen.add(digest(folder))
        assert len(seen) == 4

    def test_what_moves_from_one_file_to_the_next_is_seen(self, tmp_path: Path) -> None:
        for name, contents in {"x": (b"ab", b"c"), "y": (b"a", b"bc")}.items():
            (tmp_path / name).mkdir()
            for label, content in zip("pq", contents, strict=True):
                (tmp_path / name / f"{label}.png").write_bytes(content)
        assert digest(tmp_path / "x") != digest(tmp_path / "y")


class TestDecoding:
    """Every kind of picture becomes the same 8-bit RGB."""

    def pixels(self, path: Path) -> np.ndarray:
        image = read_image(path)
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)

    @pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
    def test_lossless_formats(self, suffix: str, tmp_path: Path) -> None:
        Image.fromarray(gradient()).save(tmp_path / f"a.{suffix}", lossless=True)
        np.testing.assert_array_equal(self.pixels(tmp_path / f"a.{suffix}"), gradient())

    def test_jpeg_and_its_four_colours(self, tmp_path: Path) -> None:
        jpeg(tmp_path / "a.jpg")
        Image.fromarray(gradient(200, 200)).convert("CMYK").save(tmp_path / "b.jpg", quality=95)
        for name in ("a.jpg", "b.jpg"):
            assert np.abs(self.pixels(tmp_path / name) - gradient(200, 200)).mean() < 3

    def test_alpha_is_dropped(self, tmp_path: Path) -> None:
        alpha = np.arange(80 * 60, dtype=np.uint8).reshape(60, 80, 1)
        Image.fromarray(np.concatenate([gradient(), alpha], axis=2)).save(tmp_path / "a.png")
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.png"), gradient())

    def test_a_palette_is_looked_up(self, tmp_path: Path) -> None:
        image = Image.fromarray(gradient()).quantize(64)
        image.save(tmp_path / "a.png", transparency=3)
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.png"), np.asarray(image.convert("RGB")))

    def test_grey_is_repeated(self, tmp_path: Path) -> None:
        grey = gradient()[:, :, 0]
        Image.fromarray(grey).save(tmp_path / "a.png")
        Image.fromarray(grey > 127).save(tmp_path / "b.png")
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.png"), np.repeat(grey[:, :, None], 3, axis=2))
        np.testing.assert_array_equal(self.pixels(tmp_path / "b.png")[:, :, 1], np.where(grey > 127, 255, 0))

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_sixteen_bits_are_scaled_and_not_cut(self, name: str, tmp_path: Path) -> None:
        grey = np.linspace(0, 65535, 80 * 60).reshape(60, 80).round().astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / name)
        got = self.pixels(tmp_path / name)
        np.testing.assert_array_equal(got[:, :, 0], np.rint(grey / 257).astype(int))
        assert (got == got[:, :, :1]).all()

    def test_a_picture_taken_sideways_stands_up(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned by a quarter
        Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.png"), np.rot90(gradient(), -1))

    def test_a_bomb_is_refused(self, tmp_path: Path) -> None:
        """The header of a bitmap of 60000 x 60000 pixels, and no pixels."""
        header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        (tmp_path / "a.bmp").write_bytes(header)
        with pytest.raises(UnusableError, match="does not decode"):
            read_image(tmp_path / "a.bmp")

    def test_an_array_of_the_largest_photograph_is_normalised(self, tmp_path: Path) -> None:
        white = SMALL(Image.new("RGB", (64, 64), (255, 255, 255)))
        np.save(tmp_path / "a.npy", white)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy", SMALL)[0], white)
