"""Where cloud-volume finds a volume: buckets of gs and s3 as anyone over https, unless credentials are known."""

from __future__ import annotations

import os
from pathlib import Path

from emsr import places

ENDPOINTS = {  # variables that name another service, as the services' own libraries read them, and the usual one
    "gs": (("STORAGE_EMULATOR_HOST",), "https://storage.googleapis.com"),
    "s3": (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "https://s3.amazonaws.com"),
}


def address_of(place: Path | str) -> str:
    """What cloud-volume is given for a folder or an address: gs and s3 as https, which asks for no account.

    Where credentials are known gs stays gs, and s3 s3. Raises ValueError where half of them are.
    """
    if isinstance(place, Path):
        return f"{places.PREFIX}file://{place.absolute()}"
    scheme, _, rest = place.removeprefix(places.PREFIX).rstrip("/").partition("://")
    known = {"gs": _google_credentials, "s3": _aws_credentials}.get(scheme)
    try:
        if known is None or known(rest.partition("/")[0]):
            return f"{places.PREFIX}{scheme}://{rest}"
    except KeyError as error:
        raise ValueError(
            f"{place}: {error.args[0]} is not set: cloud-volume wants it beside AWS_ACCESS_KEY_ID, so export it, maybe "
            "empty"
        ) from None
    names, usual = ENDPOINTS[scheme]
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), usual)
    return f"{places.PREFIX}{endpoint.rstrip('/')}/{rest}"


def _google_credentials(bucket: str) -> bool:
    """Whether cloud-volume's files or the environment name credentials of Google."""
    from cloudfiles.secrets import secretpath

    files = [secretpath(f"{bucket}-google-secret.json"), secretpath("google-secret.json")]
    return "GOOGLE_APPLICATION_CREDENTIALS" in os.environ or any(map(os.path.exists, files))


def _aws_credentials(bucket: str) -> bool:
    """Whether cloud-volume's files or the environment name credentials of an S3 service; KeyError for half of them."""
    from cloudfiles.secrets import aws_credentials

    return bool(aws_credentials(bucket).get("AWS_ACCESS_KEY_ID"))
