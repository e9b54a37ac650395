"""A damaged tar is noticed wherever the damage lies, and nothing foreign gets in."""

import os
import random
import tarfile

import pytest

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.tar_index import _checksum, index_tar
from tests.data.samples import write_tar


def _link(name, kind=tarfile.LNKTYPE, to="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([(_link("a.jpg", tarfile.SYMTYPE), b"")], Reason.FOREIGN_MEMBER),
        ([(_link("a", tarfile.DIRTYPE), b"")], Reason.FOREIGN_MEMBER),
        ([("../a.json", b"{}")], Reason.FOREIGN_MEMBER),
        ([("/a.json", b"{}")], Reason.FOREIGN_MEMBER),
        ([("b/a.json", b"{}")], Reason.FOREIGN_MEMBER),
        ([("README", b"Hi")], Reason.FOREIGN_MEMBER),
        ([(".json", b"{}")], Reason.FOREIGN_MEMBER),
        ([("a.json", b"{}"), ("a.json", b"{}")], Reason.DUPLICATE_MEMBER),
        ([("a.json", b"{}"), ("b.json", b"{}"), ("a.jpg", b"")], Reason.DUPLICATE_KEY),
    ],
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_members_that_do_not_belong_are_refused(tmp_path, members, reason, format):
    path = write_tar(tmp_path / "x.tar", members, format)
    with pytest.raises(BadSample) as raised:
        index_tar(path)
    assert raised.value.reason is reason
    assert raised.value.where == str(path)


@pytest.mark.parametrize(
    ("link", "to", "why"),
    [
        ("b.jpg", "/etc/passwd", "to images alone"),
        ("b.jpg", "/tmp/a.jpg", "no member before it"),
        ("b.jpg", "../a.jpg", "to images alone"),
        ("b.jpg", "./a.jpg", "to images alone"),
        ("b.jpg", "c.jpg", "no member before it"),
        ("b.jpg", "b.jpg", "no member before it"),
        ("b.jpg", "b.rejected.0.jpg", "no member before it"),
        ("b.jpg", "a.png", "no member before it"),
        ("b.jpg", "a.json", "to images alone"),
        ("b.json", "a.json", "only images may be links"),
        ("b.json", "a.jpg", "only images may be links"),
        ("b.jpg", "a.1.jpg", "that is a link itself"),
    ],
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_link_to_anything_but_an_earlier_image_is_refused(tmp_path, link, to, why, format):
    members = [("a.jpg", b"A"), (_link("a.1.jpg", to="a.jpg"), b""), ("a.json", b"{}")]
    members += [(_link(link, to=to), b""), ("b.rejected.0.jpg", b"B"), ("c.jpg", b"C")]
    path = write_tar(tmp_path / "x.tar", members, format)
    with pytest.raises(
        BadSample, match=rf"{link}' links to '{to}', but .*{why}.*link_duplicate_images"
    ) as raised:
        index_tar(path)
    assert (raised.value.reason, raised.value.where) == (Reason.BAD_LINK, str(path))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_link_has_the_place_of_what_it_links_to(tmp_path, format):
    """Also under a name that a plain header cannot hold; a second link goes to the file, not to the first."""
    long = "a" if format == tarfile.USTAR_FORMAT else "a" * 80 + "0" * 30
    links = [(_link(f"{key}.jpg", to=f"{long}.0.jpg"), b"") for key in ("b", "c")]
    members = [(f"{long}.0.jpg", b"A" * 700), (_link(f"{long}.1.jpg", to=f"{long}.0.jpg"), b""), *links]
    index = index_tar(write_tar(tmp_path / "x.tar", members, format))
    first = index[0].members["0.jpg"]
    assert (
        [entry.members["jpg"] for entry in list(index)[1:]]
        == [first, first]
        == [index[0].members["1.jpg"]] * 2
    )
    assert (tmp_path / "x.tar").read_bytes()[first.offset :][:701] == b"A" * 700 + b"\0"
    assert index.shared == (3, 2100)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_a_link_that_claims_a_content_of_its_own_is_refused(tmp_path, format):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=format) as tar:
        file, link = tarfile.TarInfo("a.jpg"), _link("b.jpg", to="a.jpg")
        link.size = 5
        if format == tarfile.PAX_FORMAT:
            link.pax_headers = {"comment": "asks for a header that is not plain ustar"}
        tar.addfile(file)
        tar.addfile(link)
    with pytest.raises(BadSample, match=r"b\.jpg' is no regular file") as raised:
        index_tar(path)
    assert raised.value.reason is Reason.FOREIGN_MEMBER


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_cut_of_a_tar_is_noticed(tmp_path, format):
    long_name = "b" if format == tarfile.USTAR_FORMAT else "b" * 120
    members = [("a.json", b"x" * 1024), (f"{long_name}.json", b"y" * 1024)]
    path = write_tar(tmp_path / "x.tar", members, format)
    assert len(index_tar(path)) == 2
    end = index_tar(path)[1].members["json"].offset + 1024
    for size in (0, 100, 512, 1000, 1536, 2000, end - 1024, end - 1, end, end + 511):
        os.truncate(path, 0)
        write_tar(path, members, format)
        os.truncate(path, size)
        with pytest.raises(BadSample) as raised:
            index_tar(path)
        assert raised.value.reason in (Reason.TRUNCATED_SHARD, Reason.CORRUPT_SHARD), size
        assert raised.value.reason is Reason.TRUNCATED_SHARD or format != tarfile.USTAR_FORMAT


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_a_flipped_bit_in_a_header_is_noticed(tmp_path, format):
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{}"), ("b.json", b"{}")], format)
    data = bytearray(path.read_bytes())
    second = 1024 if format == tarfile.USTAR_FORMAT else 2048  # a pax header takes two blocks more
    data[second + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadSample) as raised:
        index_tar(path)
    assert raised.value.reason is Reason.CORRUPT_SHARD


def test_a_negative_size_does_not_lead_in_circles(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{}")])
    data = bytearray(path.read_bytes())
    data[124:136] = b"-0000001000\0"
    data[148:156] = b"%06o\0 " % (sum(data[:512]) - sum(data[148:156]) + 8 * 32)
    path.write_bytes(data)
    with pytest.raises(BadSample) as raised:
        index_tar(path)
    assert raised.value.reason is Reason.CORRUPT_SHARD


def _header(name, kind, size, magic=b"ustar\x0000"):
    """With a right checksum, whatever stands in it."""
    block = (name + bytes(100 - len(name)) + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0")).ljust(
        148, b"\0"
    )
    block = (block + b" " * 8 + kind + bytes(100) + magic).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@pytest.mark.parametrize(
    "inserted",
    [
        (_header(b"x", b"L", b"%011o\0" % 1) + b"a".ljust(512, b"\0")) * 2000,
        (_header(b"x", b"x", b"%011o\0" % 13) + b"13 comment=a\n".ljust(512, b"\0")) * 2000,
        _header(b"x", b"x", b"%011o\0" % 0o7777777777),
        _header(b"x", b"L", b"\xff" * 11 + b"\0"),
        _header(b"x", b"L", b"\x80" + bytes(5) + b"\xff" * 6),
        _header(b"b.json", b"0", b"-0000001000"),
        _header(b"b.json", b"0", b"\xff" * 10 + b"\xfe\0"),
        _header(b"b.json", b"0", b"\x80" + bytes(5) + b"\xff" * 6),
        _header(b"b.json", b"0", b"many"),
    ],
    ids=[
        "names",
        "pax",
        "pax size",
        "name below zero",
        "name size",
        "octal",
        "binary",
        "huge",
        "letters",
    ],
)
@pytest.mark.parametrize("place", [0, 1024])
def test_headers_made_to_trip_a_reader_end_in_a_named_fault(tmp_path, inserted, place):
    """Chains, negative sizes and sizes beyond any memory: what follows them is never taken for what it is not."""
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{}"), ("c.json", b"{}")])
    data = path.read_bytes()
    path.write_bytes(data[:place] + inserted + data[place:])
    with pytest.raises(BadSample) as raised:
        index_tar(path)
    assert raised.value.reason in (Reason.CORRUPT_SHARD, Reason.TRUNCATED_SHARD, Reason.FOREIGN_MEMBER)
    assert len(str(raised.value)) < 600


def test_a_pax_size_beyond_the_file_is_noticed(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.json")
        info.pax_headers = {"size": "1000000"}
        tar.addfile(info)
    with pytest.raises(BadSample) as raised:
        index_tar(path)
    assert raised.value.reason in (Reason.CORRUPT_SHARD, Reason.TRUNCATED_SHARD)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_a_header_lost_to_zeros_is_no_end(tmp_path, format):
    """The image of the last sample: its text alone would pass for a whole sample."""
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{}"), ("a.jpg", b"jpg")], format)
    data = bytearray(path.read_bytes())
    at = index_tar(path)[0].members["jpg"].offset
    data[at - (512 if format == tarfile.USTAR_FORMAT else 1536) : at] = bytes(
        512 if format == tarfile.USTAR_FORMAT else 1536
    )
    path.write_bytes(data)
    with pytest.raises(BadSample, match="goes on after an end mark") as raised:
        index_tar(path)
    assert raised.value.reason is Reason.CORRUPT_SHARD


def test_a_compressed_tar_is_no_shard(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.json"))
    with pytest.raises(BadSample):
        index_tar(path)


def test_samples_come_with_their_members_in_file_order(tmp_path):
    names = ["b.json", "b.0.jpg", "b.1.jpg", "a.json"]
    path = write_tar(tmp_path / "x.tar", [(name, name.encode() * 200) for name in names])
    index, data = index_tar(path), path.read_bytes()
    found = [(entry.key, list(entry.members)) for entry in index]
    assert found == [("b", ["json", "0.jpg", "1.jpg"]), ("a", ["json"])]
    for entry in index:
        for extension, (offset, size) in entry.members.items():
            assert data[offset : offset + size] == f"{entry.key}.{extension}".encode() * 200
    assert index[-1] == index[1] != index[0]
    with pytest.raises(IndexError):
        index[2]


def test_a_headers_checksum_is_the_sum_of_its_bytes():
    for header in (bytes(512), b"\xff" * 512, *(random.Random(seed).randbytes(512) for seed in range(20))):
        assert _checksum(header) == sum(header[:148] + b" " * 8 + header[156:])
