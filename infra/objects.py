"""The object store: one bucket behind an S3 server, spoken to with the `minio` client.

The client is synchronous, so its calls run in a small thread pool. Conditional writes (If-None-Match, If-Match)
are what the record stands on: of several writers exactly one wins. Everything that the server or the network
does wrong is turned into `Passing` (`Refusing` where only a person can change it); a missing object is
`NotFound`. What the objects mean is left to `infra.records`.

Who finds an object under a key that it writes makes sure that listings tell of it. SeaweedFS (seen with 4.48) keeps
an object before the folders above it: one that was on its way when the server was killed can be read afterwards, is
in no listing, and writing it again does not change that.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final, TypeVar, cast

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from infra.metrics import OBJECT_STORE_SECONDS
from schemas.failures import Passing

PART: Final = "object store"
T = TypeVar("T")

_THREADS: Final = 12
"""Calls in flight from one process: enough to hide the latency of a batch of items, few enough for 2 cores."""

_ONE_PIECE: Final = 5 << 20
"""Bytes up to which an object goes up in one request; the least that S3 takes as a part."""

_PASSING: Final = ".shown/"
"""A folder that is written into for a moment, to bring those above it into being; in no listing of ours."""

_ABSENT_CODES: Final = frozenset({"NoSuchKey", "NoSuchObject", "NotFound"})
_CONDITION_CODES: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_REFUSALS: Final = {
    "AccessDenied": "these credentials may not do this in the bucket {bucket!r}; check PROMENADE_S3_ACCESS_KEY, "
    "PROMENADE_S3_SECRET_KEY, PROMENADE_BUCKET and the rights of the account",
    "InvalidAccessKeyId": "it does not know the access key; check the credentials in PROMENADE_S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check the credentials in "
    "PROMENADE_S3_SECRET_KEY",
    "NoSuchBucket": "there is no bucket {bucket!r}; `promenade prepare` makes it, or check PROMENADE_BUCKET",
    "AuthorizationHeaderMalformed": "the bucket is in another region; check PROMENADE_S3_REGION",
    "InvalidRegion": "the bucket is in another region; check PROMENADE_S3_REGION",
    "RequestTimeTooSkewed": "its clock and this machine's differ too much; set them right",
}
"""What a person must change before these answers become others."""

_TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429})
"""Answers below 500 that say "later": time-outs, conflicts of the moment, too many requests."""


class NotFound(Exception):
    """There is no object under this key."""


class Refusing(Passing):
    """The store answers, and says no: wrong key, missing bucket, no right. Waiting alone does not change that.

    A stage waits all the same, visibly, until a person mended it; a command ends and says what is wrong.
    """


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing tells of one object: key, bytes, when it was written."""

    key: str
    size: int
    modified: datetime


class _ConditionalMinio(Minio):
    """The public `put_object` turns unknown headers into metadata; conditions need the request itself."""

    def put_with_headers(self, bucket: str, key: str, content: bytes, headers: dict[str, str]) -> str:
        result = self._put_object(bucket, key, content, headers=dict(headers))
        return str(result.etag)


class _FromFile:
    """Reads a file from its beginning without moving the place that others read at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = os.pread(self._descriptor, size if size >= 0 else 1 << 30, self._place)
        self._place += len(content)
        return content


class Objects:
    """An object store's bucket.

    Args:
        endpoint: `host:port`.
        access_key: name of the account.
        secret_key: its secret.
        bucket: the one bucket that is used; `prepare` makes it.
        secure: speak TLS.
        region: as the server was told; given so that the client need not ask.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        *,
        secure: bool = False,
        region: str = "us-east-1",
    ) -> None:
        self.bucket = bucket
        self.endpoint = endpoint
        # No retries here: waiting is the stage runner's business, where it is visible and can be ended.
        # 5 s to connect: a server on the same machine or network answers in milliseconds or is away.
        # 60 s to read: listings of large prefixes and originals of 200 MiB on a busy disk.
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60), maxsize=_THREADS, retries=False, block=False
        )
        self._client = _ConditionalMinio(
            endpoint, access_key=access_key, secret_key=secret_key, secure=secure, region=region, http_client=pool
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="objects")

    def close(self) -> None:
        """End the threads; calls in flight are finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare(self) -> None:
        """Make the bucket if it is not there."""

        def work() -> None:
            if not self._client.bucket_exists(self.bucket):
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

        await self._run("prepare", work)

    async def ping(self) -> None:
        """Return when the store answers for the bucket; raise `Passing` otherwise."""

        def work() -> None:
            if not self._client.bucket_exists(self.bucket):
                raise Refusing(PART, _REFUSALS["NoSuchBucket"].format(bucket=self.bucket))

        await self._run("ping", work)

    async def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: there is none.
            Passing: the store is away.
        """
        return await self._run("get", lambda: self._get(key))

    def _get(self, key: str) -> bytes:
        response = self._client.get_object(self.bucket, key)
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    async def put(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Write, replacing what was there. Large content goes up in parts by itself."""

        def work() -> None:
            # Nearly all keys are new, and one request does for them.
            if len(content) > _ONE_PIECE or not self._create(key, content, content_type):
                self._client.put_object(self.bucket, key, io.BytesIO(content), len(content), content_type)
                self._show(key)

        await self._run("put", work)

    async def put_if_absent(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
        """Write only if there is nothing under the key yet; True if this call wrote it.

        Either way a listing tells of the object afterwards.
        """

        def work() -> bool:
            created = self._create(key, content, content_type)
            if not created:
                self._show(key)
            return created

        return await self._run("put if absent", work)

    def _create(self, key: str, content: bytes, content_type: str) -> bool:
        try:
            self._client.put_with_headers(
                self.bucket, key, content, {"If-None-Match": "*", "Content-Type": content_type}
            )
        except S3Error as error:
            if error.code in _CONDITION_CODES:
                return False
            raise
        return True

    def _show(self, key: str) -> None:
        """Make the folders above an object where a server that was killed has not (see the top of this file).

        From the top down: whatever is written into a folder brings it and all above it into being.
        """
        folder = ""
        for step in key.split("/")[:-1]:
            folder += f"{step}/"
            found = self._client.list_objects(self.bucket, prefix=folder.removesuffix("/"))
            if not any(each.object_name == folder for each in found):
                passing = f"{folder}{_PASSING}now"
                self._client.put_object(self.bucket, passing, io.BytesIO(), 0)
                self._client.remove_object(self.bucket, passing)

    async def show(self, keys: Iterable[str]) -> None:
        """Make listings tell of whatever lies under these keys or beside them (see the top of this file)."""

        def work() -> None:
            for key in keys:
                self._show(key)

        await self._run("show", work)

    async def put_file(self, key: str, descriptor: int, size: int, content_type: str) -> None:
        """Write the first `size` bytes of an open file, replacing what was there; a few MiB of it in memory at once.

        Args:
            descriptor: of a regular file; its place is neither used nor moved.
        """

        def work() -> None:
            self._client.put_object(self.bucket, key, cast(BinaryIO, _FromFile(descriptor)), size, content_type)
            self._show(key)

        await self._run("put", work)

    async def size(self, key: str) -> int:
        """Bytes of the object.

        Raises:
            NotFound: there is none.
        """
        return await self._run("stat", lambda: int(self._client.stat_object(self.bucket, key).size or 0))

    async def get_part(self, key: str, start: int, length: int) -> bytes:
        """So many bytes from `start` on, fewer at the object's end.

        Raises:
            NotFound: there is no such object.
        """

        def work() -> bytes:
            response = self._client.get_object(self.bucket, key, offset=start, length=length)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return await self._run("get", work)

    async def folders(self, prefix: str) -> list[str]:
        """What lies one level below the prefix and holds objects, each with a slash at its end, in order."""

        def work() -> list[str]:
            return [
                each.object_name
                for each in self._client.list_objects(self.bucket, prefix=prefix)
                if each.object_name is not None and each.is_dir and not each.object_name.endswith(f"/{_PASSING}")
            ]

        return await self._run("list", work)

    async def list(self, prefix: str, after: str | None = None) -> list[ObjectInfo]:
        """All objects whose key begins with the prefix, in order of key; with `after`, those behind that key only."""

        def work() -> list[ObjectInfo]:
            return [
                ObjectInfo(each.object_name, each.size or 0, each.last_modified)
                for each in self._client.list_objects(self.bucket, prefix=prefix, recursive=True, start_after=after)
                if each.object_name is not None
                and each.last_modified is not None
                and not each.is_dir
                # What a kill left of `_show` is as good as nothing.
                and f"/{_PASSING}" not in each.object_name
            ]

        return await self._run("list", work)

    async def exists(self, key: str) -> bool:
        """True if there is an object under the key."""

        def work() -> bool:
            try:
                self._client.stat_object(self.bucket, key)
            except S3Error as error:
                if error.code in _ABSENT_CODES:
                    return False
                raise
            return True

        return await self._run("stat", work)

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; keys that are not there are no fault."""
        chosen = list(keys)
        if not chosen:
            return

        def work() -> None:
            errors = list(self._client.remove_objects(self.bucket, [DeleteObject(key) for key in chosen]))
            failed = [each for each in errors if each.code not in _ABSENT_CODES]
            if failed:
                known = _REFUSALS.get(failed[0].code or "")
                why = failed[0].message if known is None else known.format(bucket=self.bucket)
                kind = Passing if known is None else Refusing
                raise kind(PART, f"{len(failed)} objects could not be removed: {why}")

        await self._run("delete", work)

    async def get_many(self, keys: Sequence[str]) -> AsyncIterator[tuple[str, bytes | None]]:
        """The objects of several keys, fetched side by side, in the order given; None where there is none."""

        async def one(key: str) -> bytes | None:
            try:
                return await self.get(key)
            except NotFound:
                return None

        for start in range(0, len(keys), _THREADS * 4):
            chunk = keys[start : start + _THREADS * 4]
            for key, content in zip(chunk, await asyncio.gather(*map(one, chunk)), strict=True):
                yield key, content

    async def _run(self, operation: str, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            with OBJECT_STORE_SECONDS.labels(operation).time():
                return await loop.run_in_executor(self._threads, work)
        except S3Error as error:
            if error.code in _ABSENT_CODES:
                raise NotFound(str(error.message)) from None
            raise self._trouble(error) from None
        except (ServerError, InvalidResponseError) as error:
            raise Passing(PART, f"answered with a fault: {error}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Passing(PART, f"{self.endpoint} does not answer ({type(error).__name__})") from None
        except MinioException as error:
            raise Passing(PART, f"failed: {error}") from None

    def _trouble(self, error: S3Error) -> Passing:
        """A store's answer as trouble: of the moment, or a refusal that names what to change."""
        known = _REFUSALS.get(error.code or "")
        if known is not None:
            return Refusing(PART, f"it refuses: {known.format(bucket=self.bucket)} ({error.code})")
        if 400 <= error.response.status < 500 and error.response.status not in _TRANSIENT_STATUSES:
            return Refusing(PART, f"it refuses: {error.code}: {error.message}; check the PROMENADE_S3_ settings")
        return Passing(PART, f"answered {error.code}: {error.message}")
