"""Sizes and durations, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.errors import UsageError
from stress.units import format_bytes, format_duration, format_ns, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4 << 10),
        ("64k", 64 << 10),
        ("2M", 2 << 20),
        ("1.5M", 3 << 19),
        ("1G", 1 << 30),
        ("1GiB", 1 << 30),
        ("512 MB", 512 << 20),
        ("8B", 8),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("250ns", 250),
        ("5us", 5_000),
        ("5µs", 5_000),
        ("1.5us", 1_500),
        ("500ms", 500_000_000),
        ("10s", 10_000_000_000),
        ("10 s", 10_000_000_000),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
    ],
)
def test_parse_duration(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1 2", "0.3", "1e3", "0x10", "9999999999T", "1\n2", "٣K"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "5 sec", "0.5ns", "1e3s", "9999999999h", "5MS", "٣s"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        parse_duration(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert "\n" not in str(error)


@given(st.integers(0, (1 << 63) - 1))
def test_formats_read_back_exactly(value: int) -> None:
    assert parse_size(format_size(value)) == value
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1000, "1000"), (4096, "4K"), (3 << 19, "1536K"), (1 << 30, "1G"), (1 << 40, "1T")],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0ns"), (5_000_000, "5ms"), (1_500_000, "1500us"), (90_000_000_000, "90s")]
)
def test_format_duration(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999.4, "999 ns"),
        (999.6, "1.00 us"),
        (9_994, "9.99 us"),
        (9_996, "10.0 us"),
        (31_234, "31.2 us"),
        (1_400_000, "1.40 ms"),
        (99_960_000, "100 ms"),
        (200_000_000_000, "200 s"),
        (-31_234, "-31.2 us"),
    ],
)
def test_format_ns(ns: float, text: str) -> None:
    assert format_ns(ns) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (42 << 20, "42.0 MiB"),
        (378972214400, "353 GiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_format_bytes(size: int, text: str) -> None:
    assert format_bytes(size) == text
