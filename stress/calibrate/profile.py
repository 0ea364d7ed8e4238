"""A platform as the TOML that `stress.platforms.load` reads."""

from __future__ import annotations

import json

from stress.platforms import COSTS, Origin, Platform, profile_key


def as_toml(platform: Platform) -> str:
    """The file of a platform; costs of nothing are left out."""
    lines = [
        f"description = {_text(platform.description)}",
        f"source = {_text(platform.source)}",
        f"fwb = {str(platform.fwb).lower()}",
        f"dic = {str(platform.dic).lower()}",
        f"bbm-level = {platform.bbm_level}",
    ]
    if platform.cores is not None:
        lines.append(f"cores = {platform.cores}")
    lines += [f"{profile_key(field)} = {_number(value)}" for field in COSTS if (value := getattr(platform, field))]
    for origin in Origin:
        sources = getattr(platform, origin.value)
        if sources:
            lines += ["", f"[{origin}]", *(f"{key} = {_text(source)}" for key, source in sources.items())]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:_.0f}" if value == round(value) else repr(value)


def _text(text: str) -> str:
    # A JSON string is a basic string of TOML, but for DEL, which no line of a platform may have.
    return json.dumps(text, ensure_ascii=False)
