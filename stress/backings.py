"""What may back guest memory on the host: our words, the KVM selftests' names, and what follows for blocks."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from stress.units import SIZE_UNITS


class Backing(StrEnum):
    """What backs guest memory on the host, and so which blocks stage 2 may have (``vm_mem_backing_src_type``)."""

    ANONYMOUS = "anonymous"
    THP = "thp"
    HUGETLB_2M = "hugetlb-2m"
    HUGETLB_1G = "hugetlb-1g"
    HUGETLB_32M = "hugetlb-32m"
    HUGETLB_512M = "hugetlb-512m"


#: The backings' names in the selftests: lib/test_util.c's ``vm_mem_backing_src_alias``.
SELFTEST_NAMES: Final = {
    Backing.ANONYMOUS: "anonymous",
    Backing.THP: "anonymous_thp",
    Backing.HUGETLB_2M: "anonymous_hugetlb_2mb",
    Backing.HUGETLB_1G: "anonymous_hugetlb_1gb",
    Backing.HUGETLB_32M: "anonymous_hugetlb_32mb",
    Backing.HUGETLB_512M: "anonymous_hugetlb_512mb",
}

_K, _M, _G = (SIZE_UNITS[unit] for unit in "KMG")

#: hugetlb backing -> bytes of the granule whose block has the page's size, and bytes of the page.
HUGETLB: Final = {
    Backing.HUGETLB_2M: (4 * _K, 2 * _M),
    Backing.HUGETLB_1G: (4 * _K, _G),
    Backing.HUGETLB_32M: (16 * _K, 32 * _M),
    Backing.HUGETLB_512M: (64 * _K, 512 * _M),
}
