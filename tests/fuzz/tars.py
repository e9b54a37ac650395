"""Damage to tars: cut, flipped, foreign, with members that do not belong."""

import gzip
import io
import os
import tarfile
import zipfile

from rlaifv_pl.data.schema import encode_sample
from rlaifv_pl.records import Sample
from tests.fuzz.base import ALL, Case, Member, members, owners, photo, rewrite
from tests.fuzz.headers import BLOCK, headed, holed


def cut(case: Case) -> None:
    """The end is missing."""
    path = case.tar()
    size = path.stat().st_size
    keep = case.rng.choice(
        [0, 1, BLOCK, size - 1, size - BLOCK, size // BLOCK // 2 * BLOCK, case.rng.randrange(size)]
    )
    os.truncate(path, keep)
    case.touched.add(ALL)
    case.note(f"cut {path.name} to {keep} of {size} bytes")


def flipped(case: Case) -> None:
    """A few bits are others."""
    path = case.tar()
    data, whose = bytearray(path.read_bytes()), owners(path)
    for _ in range(case.rng.choice([1, 1, 1, 2, 5])):
        at, bit = case.rng.randrange(len(data)), case.rng.randrange(8)
        data[at] ^= 1 << bit
        case.touched.add(whose(at))
        case.note(f"flipped bit {bit} of byte {at} of {path.name}, of {whose(at) or 'no sample'}")
    path.write_bytes(data)


def overwritten(case: Case) -> None:
    """A stretch holds zeros or noise, or is missing, or stands there twice."""
    path = case.tar()
    data, whose = path.read_bytes(), owners(path)
    at = case.rng.randrange(len(data))
    end = min(len(data), at + case.rng.choice([1, 7, BLOCK, 3 * BLOCK]))
    if case.rng.random() < 0.5:
        at, end = at // BLOCK * BLOCK, -(-end // BLOCK) * BLOCK
    how = case.rng.choice(["zeros", "noise", "gone", "twice"])
    put = {
        "zeros": bytes(end - at),
        "noise": case.rng.randbytes(end - at),
        "gone": b"",
        "twice": data[at:end] * 2,
    }
    path.write_bytes(data[:at] + put[how] + data[end:])
    case.touched |= {whose(byte) for byte in range(at, end)} if how in ("zeros", "noise") else {ALL}
    case.note(f"{how}: bytes {at} to {end} of {path.name}")


def foreign(case: Case) -> None:
    """Something else altogether under the name of a shard."""
    path = case.tar()
    data = path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("s1.json", "{}")
    made = {
        "nothing": b"",
        "gzip": gzip.compress(data, mtime=0),
        "zip": archive.getvalue(),
        "noise": case.rng.randbytes(3000),
        "zeros": bytes(20 * BLOCK),
        "text": b"404: Not Found\n" * 100,
        "pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "two archives": data + data,
        "what follows the end": data + b"x" * 100,
        "behind a byte": b"\n" + data,
    }
    name = case.pick(made)
    path.write_bytes(made[name])
    case.touched.add(ALL)
    case.note(f"{path.name} is {name}")


def reordered(case: Case) -> None:
    """Members in another order."""

    def change(found: list[Member]) -> list[Member]:
        how = case.rng.choice(["members", "samples", "inside samples"])
        case.note(how)
        if how == "members":
            return case.rng.sample(found, len(found))
        keys = list(dict.fromkeys(member.key for member in found))
        if how == "samples":
            case.rng.shuffle(keys)
        parts = [[member for member in found if member.key == key] for key in keys]
        return [member for part in parts for member in case.rng.sample(part, len(part))]

    rewrite(case, change)


def duplicated(case: Case) -> None:
    """A member, a sample or an image twice, or a sample of another shard too."""

    def change(found: list[Member]) -> list[Member]:
        one = case.rng.choice(found)
        whole = [member for member in found if member.key == one.key]
        other = members(case.shards / "shard-000002.tar")[:2]
        how = case.rng.choice(["next", "last", "empty", "sample", "other", "numbered"])
        case.note(f"{how}: {one.name}")
        at = found.index(one)
        added = {
            "next": found[: at + 1] + found[at:],
            "last": [*found, one],
            "empty": [*found[:at], Member(one.name, b""), *found[at:]],
            "sample": found + whole,
            "other": found + other,
            "numbered": [*found[:at], Member(f"{one.key}.0.png", one.data), *found[at:]],
        }
        if how in ("empty", "numbered"):
            case.touched.add(one.key)
        return added[how]

    rewrite(case, change)


def emptied(case: Case) -> None:
    """A member without content, or gone, or all of them."""

    def change(found: list[Member]) -> list[Member]:
        one = case.rng.choice(found)
        case.touched.add(one.key)
        how = case.rng.choice(["content", "member", "tar"])
        case.note(f"{how}: {one.name}")
        rest = [Member(one.name, b"") if member is one and how == "content" else member for member in found]
        return {"content": rest, "member": [m for m in found if m is not one], "tar": []}[how]

    rewrite(case, change)


NAMES = (
    "../canary/secret.json", "/etc/hostname.json", "./s1.json", "a/b.json", "..", ".", ".json", "README", "s1.",
    "s1", "S1.json", "s1.JSON", "s1.JPG", "a.b.json", "a.b.c.d.jpg", "s\u00e4.json", "s 1.json", "s1\n.json",
    "k" * 81 + ".json", "k" * 300 + ".json", "s1." + "x" * 20_000, "s1.jpg.json", "s1.rejected.jpg", "s1.99999.jpg",
    "s1.\u0661.jpg", "s1.-1.jpg", "s1.cls", "s1.pyd", "__pycache__.json", "s1.json\udcff", "\udcff.json",
)  # fmt: skip


def named(case: Case) -> None:
    """A member under a name that no sample has, added or in place of another."""

    def change(found: list[Member]) -> list[Member]:
        name, at = case.pick(NAMES), case.rng.randrange(len(found))
        one = found[at]
        case.touched.add(one.key)
        case.note(f"{name[:99]!r} at {one.name}")
        put = [Member(name, one.data)]
        return [*found[:at], *put, *found[at + case.rng.randrange(2) :]]

    rewrite(case, change, format=case.rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))


LINKS = {
    "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "directory": tarfile.DIRTYPE, "pipe": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE, "contiguous": tarfile.CONTTYPE,
    "GNU sparse": tarfile.GNUTYPE_SPARSE, "unknown": b"Z",
}  # fmt: skip


def linked(case: Case) -> None:
    """A link, a device, or something else that is no file, in place of a member or beside it."""

    def change(found: list[Member]) -> list[Member]:
        at = case.rng.randrange(len(found))
        kind = case.pick(LINKS)
        info = tarfile.TarInfo(found[at].name)
        info.type = LINKS[kind]
        info.linkname = case.rng.choice(
            ["../canary/secret.png", str(case.here / "canary" / "secret.png"), "s1.json"]
        )
        case.touched.add(found[at].key)
        case.note(f"{found[at].name} is a {kind} to {info.linkname}")
        return [*found[:at], Member(info, b""), *found[at + case.rng.randrange(2) :]]

    rewrite(
        case, change, format=case.rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    )


SHARED: dict[str, list[str]] = {
    "nowhere": ["s55.jpg"], "outside": ["../canary/secret.png"], "outside in full": ["{here}/canary/secret.png"],
    "later": ["s99.png"], "JSON": ["{key}.json"], "itself": ["s98.1.png"], "chain": ["s98.0.png", "s98.1.png"],
    "cycle": ["s98.2.png", "s98.1.png"], "sound": ["s98.0.png"], "a thousand": ["s98.0.png"] * 999,
}  # fmt: skip


def shared(case: Case) -> None:
    """Images that are links: to nothing, to what comes later, to no image, in circles, or to an earlier image."""

    def change(found: list[Member]) -> list[Member]:
        way, image = case.pick(SHARED), photo(98, "first", "PNG")
        case.note(f"links: {way}")
        texts = encode_sample(Sample(key="s98", prompt="Which?", chosen="This.", rejected="That."))["json"]
        links = [to.format(here=case.here, key=found[0].key) for to in SHARED[way]]
        made = [Member(_hard(f"s98.{number}.png", to), b"") for number, to in enumerate(links, start=1)]
        behind = [Member("s99.png", image), Member("s99.json", texts)]
        return [*found, Member("s98.0.png", image), *made, Member("s98.json", texts), *behind]

    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    rewrite(case, change, format=case.rng.choice(formats))


def _hard(name: str, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, to
    return info


def crowded(case: Case) -> None:
    """A sample with a thousand images, or more than its prompt has places for."""

    def change(found: list[Member]) -> list[Member]:
        count = case.rng.choice([2, 100, 1000])
        image, answers = photo(50, "first", "PNG"), {"chosen": "This.", "rejected": "That."}
        made = encode_sample(Sample(key="s99", prompt="Which?", images=(image,) * count, **answers))
        case.note(f"a sample of {count} images")
        return [*found, *(Member(f"s99.{name}", data) for name, data in made.items())]

    case.touched.add(ALL)
    rewrite(case, change)


KINDS = {
    "tar cut": cut, "tar flipped": flipped, "tar overwritten": overwritten, "tar foreign": foreign,
    "tar reordered": reordered, "tar duplicated": duplicated, "tar emptied": emptied, "tar named": named,
    "tar linked": linked, "tar headers": headed, "tar shared": shared, "tar holed": holed, "tar crowded": crowded,
}  # fmt: skip
