"""Projects in object storage (S3, Google, Azure), whose errors a user can read.

Where it is and who may use it comes from the environment, as of the providers' own tools:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; for other servers with the S3 API
AWS_ENDPOINT_URL, and AWS_ALLOW_HTTP=true where they are reached without TLS.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from tasks.errors import UserError, WrongParameter

# What S3 calls it → what to do about it.
CREDENTIALS = "check the credentials, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
REMEDIES = {
    "NoSuchBucket": "make the bucket, or correct its name",
    "AllAccessDisabled": "use another bucket",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "RequestTimeTooSkewed": "set this machine's clock",
}


class Unreachable(ConnectionError):
    """The storage does not answer; it may do so again."""


class Refused(UserError):
    """The storage refuses what is asked of it: another try gets the same answer."""


class RemoteStore(ObjectStore[Any]):
    """A store of obstore; its errors are one line each, and those that may pass are OSErrors."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise WrongParameter(
                f"{url}: cloud storage needs obstore: pip install '.[cloud]'"
            ) from error
        self._url = url
        try:
            made = from_url(url)
        except (BaseError, ValueError) as error:
            raise WrongParameter(
                f"{url}: {_first_line(error)}: give a folder, or a URL such as s3://BUCKET/NAME.zarr"
            ) from error
        super().__init__(made, read_only=read_only)

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        """Return the same store, to be read only or to be written."""
        return type(self)(self._url, read_only=read_only)

    def check_bucket(self) -> None:
        """Raise unless there is a bucket: what lies in none is merely not there when it is read."""
        import obstore

        with self._told():
            next(iter(obstore.list(self.store, chunk_size=1)), None)

    @contextmanager
    def _told(self) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise Refused(f"{self._url}: access denied{_code(error)}: {CREDENTIALS}") from error
        except FileNotFoundError as error:
            code = _code(error)
            remedy = REMEDIES.get(code.strip(" ()"), "is it still there?")
            raise Refused(f"{self._url}: not found{code}: {remedy}") from error
        except exceptions.GenericError as error:
            text = str(error)
            if "169.254.169.254" in text or "metadata" in text.partition("\n")[0]:
                raise Refused(f"{self._url}: no credentials: {CREDENTIALS}") from error
            if "builder error" in text:
                raise Refused(
                    f"{self._url}: its server is reached by http: set AWS_ALLOW_HTTP=true"
                ) from error
            code = _code(error)
            if (name := code.strip(" ()")) in REMEDIES:
                raise Refused(f"{self._url}: refused{code}: {REMEDIES[name]}") from error
            raise Unreachable(f"{self._url}: {_first_line(error)}: try again later") from error

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or a part of it; None if there is none."""
        with self._told():
            return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        with self._told():
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        with self._told():
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless there is one."""
        with self._told():
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        with self._told():
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects under a prefix."""
        with self._told():
            await super().delete_dir(prefix)

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield what lies directly under a prefix."""
        return self._listed(super().list_dir(prefix))

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield all objects under a prefix."""
        return self._listed(super().list_prefix(prefix))

    async def _listed(self, names: AsyncIterator[str]) -> AsyncGenerator[str, None]:
        with self._told():
            async for name in names:
                yield name


def _code(error: BaseException) -> str:
    """Return ' (Code)' of the server's answer, or nothing."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return f" ({found[1]})" if found else ""


def _first_line(error: BaseException) -> str:
    text = str(error).partition("\n\nDebug source")[0]
    return " ".join(re.sub(r"<\?xml.*", "", text, flags=re.DOTALL).split()).rstrip(" :")
