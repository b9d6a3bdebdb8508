"""Connections to Redis or Valkey: reachability, errors in our own words, durability.

Addresses are shown without user and password, always.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from altlas.config.sections import SecuritySection, TransportSection
from altlas.errors import AccessError, ConfigError, ProtocolError, TransientError

log = logging.getLogger(__name__)

_RETRIES = 3
_SOCKET_TIMEOUT_S = 10.0
_ACL_WAY_OUT = "Give the user of transport.redis_url that right (deploy/redis/users.acl), or name another user."
_WAYS_OUT = (
    "Check that it runs and that transport.redis_url (ALTLAS_TRANSPORT__REDIS_URL, --redis-url) names it; "
    "leave the address empty to start an embedded server."
)
# A script's command is checked against its caller's rights, and refused in words of its own.
_REFUSED_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")
# Replies that tell of the server's state, not of a mistake of ours.
_PASSING = ("OOM", "MISCONF", "LOADING", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS")


def redis_address(section: TransportSection) -> str:
    """Return the address to connect to, with the password of its file; empty where none is named. Not to be shown.

    Raises:
        ConfigError: the file cannot be read or is empty, no address goes with it, or the address holds a password too.
    """
    url, path = section.redis_url, section.redis_password_file
    if not path:
        return url
    key = f"transport.redis_password_file = {path}"
    if not url:
        raise ConfigError(f"{key}: transport.redis_url names no server that the password could be for")
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{key} cannot be read: {reason}") from error
    if not password:
        raise ConfigError(f"{key} is empty: write the password into it, or leave the key empty")
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    if ":" in credentials:
        raise ConfigError(f"{key}: transport.redis_url holds a password as well; leave one of them out")
    return urlunsplit(parts._replace(netloc=f"{credentials}:{quote(password, safe='')}@{host}"))


def redacted(url: str) -> str:
    """Return the address without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def address(client: redis.Redis | redis.asyncio.Redis) -> str:
    """Return the client's address without credentials."""
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return f"unix://{settings['path']}"
    return f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}/{settings.get('db', 0)}"


@contextlib.contextmanager
def own_errors(where: str) -> Iterator[None]:
    """Translate the client library's errors; `where` is the address without credentials.

    Raises:
        ConfigError: Redis refuses the user or password.
        AccessError: the user may not give a command, or not on this key; the message names both.
        TransientError: Redis is away, full, loading or cannot write.
        ProtocolError: Redis refuses a command.
    """
    try:
        yield
    except redis.exceptions.NoPermissionError as error:
        raise AccessError(f"Redis at {where} refuses: {error}. {_ACL_WAY_OUT}") from error
    except redis.AuthenticationError as error:
        raise ConfigError(f"Redis at {where} refuses these credentials: {error}. Mend transport.redis_url.") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise TransientError(f"Redis at {where} is not reachable: {error}. {_WAYS_OUT}") from error
    except redis.ResponseError as error:
        if str(error).startswith(_PASSING) or isinstance(error, redis.exceptions.OutOfMemoryError):
            raise TransientError(f"Redis at {where} cannot serve now: {error}. See to the server.") from error
        raise ProtocolError(f"Redis at {where} refused a command: {error}. Redis 7.0 or Valkey is needed.") from error


class _Client(redis.Redis):
    """A client whose refused commands say who gave which."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """See redis.Redis."""
        with _who_gave_what(self, command_name):
            return super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]


class _AsyncClient(redis.asyncio.Redis):
    """A client whose refused commands say who gave which."""

    async def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """See redis.asyncio.Redis."""
        with _who_gave_what(self, command_name):
            return await super().parse_response(connection, command_name, **options)


@contextlib.contextmanager
def _who_gave_what(client: redis.Redis | redis.asyncio.Redis, command: Any) -> Iterator[None]:
    """Put user and command into the server's refusal, which names neither where a key or a script is concerned."""
    try:
        yield
    except redis.ResponseError as error:
        is_refused = isinstance(error, redis.exceptions.NoPermissionError)
        if not is_refused and not any(words in str(error) for words in _REFUSED_IN_SCRIPT):
            raise
        user = client.connection_pool.connection_kwargs.get("username") or "default"
        name = command.decode() if isinstance(command, bytes) else str(command)
        raise redis.exceptions.NoPermissionError(f"user {user} may not do this by {name}: {error}") from error


def _settings(url: str, security: SecuritySection | None) -> dict[str, Any]:
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise ConfigError(f"transport.redis_url is not an address: {error}") from error
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(f"transport.redis_url {redacted(url)!r}: use redis://, rediss:// or unix://")
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5)
    timeouts = {"socket_timeout": _SOCKET_TIMEOUT_S, "socket_connect_timeout": 5.0, "health_check_interval": 30}
    files = {}
    if scheme == "rediss" and security is not None and security.tls_ca:
        files = {
            "ssl_ca_certs": security.tls_ca,
            "ssl_certfile": security.tls_cert or None,
            "ssl_keyfile": security.tls_key or None,
        }
    return {**timeouts, **files, "backoff": backoff}


def connect_blocking(url: str, security: SecuritySection | None = None) -> redis.Redis:
    """Connect the worker's end and check that the server answers; rediss:// with the files of `security`.

    Raises:
        ConfigError: not an address, or the credentials are refused.
        AccessError: the user may not even ask whether the server is there.
        TransientError: the server does not answer.
    """
    settings = _settings(url, security)
    retry = Retry(settings.pop("backoff"), _RETRIES)
    with own_errors(redacted(url)):
        try:
            client = _Client.from_url(url, retry=retry, **settings)
        except ValueError as error:
            raise ConfigError(f"transport.redis_url {redacted(url)!r}: {error}") from error
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
    return client


async def connect(url: str, security: SecuritySection | None = None) -> redis.asyncio.Redis:
    """Connect the coordinator's end, check that the server answers, and warn when it may lose what it acknowledged.

    rediss:// takes the files of `security`.

    Raises:
        ConfigError: not an address, or the credentials are refused.
        AccessError: the user may not ask about the server.
        TransientError: the server does not answer.
    """
    settings = _settings(url, security)
    retry = AsyncRetry(settings.pop("backoff"), _RETRIES)
    with own_errors(redacted(url)):
        try:
            client = _AsyncClient.from_url(url, retry=retry, **settings)
        except ValueError as error:
            raise ConfigError(f"transport.redis_url {redacted(url)!r}: {error}") from error
        try:
            found = _durability(await client.info("server"), await _allowed_config(client))
        except BaseException:
            await client.aclose()
            raise
    for warning in durability_warnings(found):
        log.warning("Redis at %s: %s", redacted(url), warning)
    return client


async def _allowed_config(client: redis.asyncio.Redis) -> Mapping[str, str] | None:
    try:
        return _text(await client.config_get("*"))
    except (redis.ResponseError, redis.exceptions.NoPermissionError):
        return None


def durability(client: redis.Redis) -> dict[str, str]:
    """Return server, version and the settings that decide what a crash of Redis loses; 'unknown' where hidden."""
    with own_errors(address(client)):
        info = client.info("server")
        try:
            config: Mapping[str, str] | None = _text(client.config_get("*"))
        except (redis.ResponseError, redis.exceptions.NoPermissionError):
            config = None
        return _durability(info, config)


def _text(config: Mapping[Any, Any]) -> Mapping[str, str]:
    return {str(key): str(value) for key, value in config.items()}


def _durability(info: Mapping[str, Any], config: Mapping[str, str] | None) -> dict[str, str]:
    server = str(info.get("server_name", "redis"))
    version = info.get(f"{server}_version", info.get("redis_version", "unknown"))
    shown = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
    return {"server": server, "version": str(version)} | {key: (config or {}).get(key, "unknown") for key in shown}


def durability_warnings(settings: Mapping[str, str]) -> list[str]:
    """Return a sentence for each setting under which Redis may lose acknowledged work."""
    warnings = []
    if settings["appendonly"] == "no":
        warnings.append("appendonly is no: a crash loses acknowledged jobs. Set appendonly yes, appendfsync everysec.")
    elif settings["appendfsync"] == "no":
        warnings.append("appendfsync is no: a power cut loses up to 30 s of jobs. Set appendfsync everysec.")
    if settings["maxmemory-policy"] not in ("noeviction", "unknown") and settings["maxmemory"] != "0":
        warnings.append(
            f"maxmemory-policy is {settings['maxmemory-policy']}: a full Redis throws jobs away. Set noeviction."
        )
    return warnings
