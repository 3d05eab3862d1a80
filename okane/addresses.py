"""Parses the addresses that settings and options take: Postgres, Redis and HTTP URLs. Pure.

Guarantee: libpq, redis-py or the HTTP clients can use an address that passes. The message about one that does not pass says
what is wrong and repeats none of it, since addresses hold passwords.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from okane import binding
from streams.url_parts import split_url

_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_PASSWORD_ADVICE = "in a user name or password, @ is written %40, / %2F, ? %3F, # %23 and % %25"  # noqa: S105 - advice

# libpq checks these when it connects, when a wrong value looks like a server that is away.
_LIBPQ_CHOICES: Mapping[str, frozenset[str]] = {
    "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
    "target_session_attrs": frozenset({"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}),
    "gssencmode": frozenset({"disable", "prefer", "require"}),
    "channel_binding": frozenset({"disable", "prefer", "require"}),
    "load_balance_hosts": frozenset({"disable", "random"}),
    "sslnegotiation": frozenset({"postgres", "direct"}),
}
_LIBPQ_NUMBERS = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)

_REDIS_TLS = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_check_hostname",
    }
)
# Others would override what `streams.connect` depends on: its protocol, its time-outs, its pool.
_REDIS_OPTIONS = _REDIS_TLS | {"db", "username", "password", "client_name", "health_check_interval", "socket_keepalive"}
_SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
_CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")
_REDIS_CHOICES: Mapping[str, frozenset[str]] = {
    "ssl_cert_reqs": frozenset({"none", "optional", "required"}),
    "ssl_check_hostname": frozenset({"true", "false", "yes", "no", "1", "0"}),
    "socket_keepalive": frozenset({"true", "false", "yes", "no", "1", "0"}),
}


def check_postgres(text: str) -> str:
    """Return a Postgres URL that libpq can use. Raise ValueError otherwise."""
    _check_text(text, ("postgresql://", "postgres://"), "postgresql://user:password@host:5432/database")
    if re.match(r"[^/?#]*://[^/?#]*@[^/?#]*@", text):
        raise ValueError(f"has more than one @: {_PASSWORD_ADVICE}")
    options = postgres_options(text)
    for name in options.keys() & _LIBPQ_CHOICES.keys():
        if options[name] not in _LIBPQ_CHOICES[name]:
            raise ValueError(f"has a {name} that is none of {', '.join(sorted(_LIBPQ_CHOICES[name]))}")
    for name in options.keys() & _LIBPQ_NUMBERS:
        if not re.fullmatch(r"\d{1,9}", options[name], re.ASCII):
            raise ValueError(f"has a {name} that is no number")
    hosts, ports = options.get("host", "").split(","), options.get("port", "").split(",")
    if len(ports) not in (1, len(hosts)):
        raise ValueError("has another number of ports than of hosts")
    for port in filter(None, ports):
        _check_port(port)
    for host in filter(None, hosts):
        _check_host(host, local="/@")
    return text


def postgres_options(text: str) -> Mapping[str, str]:
    """Return what libpq reads from a Postgres URL, by its names. Raise ValueError if it cannot."""
    from psycopg import Error, pq  # noqa: PLC0415 - `okane --help` does without

    try:
        parsed = pq.Conninfo.parse(text.encode())
    except (Error, UnicodeEncodeError) as error:
        if str(error).startswith("invalid URI query parameter"):
            raise ValueError("has a query parameter that libpq does not support") from None
        raise ValueError(f"is no URL that libpq can read: {_PASSWORD_ADVICE}") from None
    return {one.keyword.decode(): one.val.decode() for one in parsed if one.val is not None}


def check_redis(text: str) -> str:
    """Return a Redis URL that `streams.connect` can use: `redis://`, `rediss://`, `unix://`, with sentinels
    `redis+sentinel://`, `rediss+sentinel://`, or of a cluster `redis+cluster://`, `rediss+cluster://`. Raise ValueError
    otherwise."""
    if text.lstrip().startswith(_SENTINEL_SCHEMES):
        return _check_sentinels(text)
    if text.lstrip().startswith(_CLUSTER_SCHEMES):
        return _check_cluster(text)
    schemes = ("redis://", "rediss://", "unix://", *_SENTINEL_SCHEMES, *_CLUSTER_SCHEMES)
    _check_text(text, schemes, "redis://:password@host:6379/0")
    parts = _split(text)
    _check_no_fragment(parts, text)
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2] or len(parts.path) < 2:
            raise ValueError("must name the socket by its whole path: unix:///run/redis/redis.sock?db=0")
    else:
        if "," in parts.netloc.rpartition("@")[2]:
            advice = "those of a cluster begin with redis+cluster://, sentinels with redis+sentinel://"
            raise ValueError(f"names several hosts: one is taken, which has to lead to the primary; {advice}")
        _check_authority(parts)
        if not re.fullmatch(r"/?(?:\d{1,5}/?)?", unquote(parts.path), re.ASCII):
            raise ValueError("has a path that is no database number: redis://host:6379/0")
    _check_redis_options(parts, _REDIS_OPTIONS)
    return text


def _check_sentinels(text: str) -> str:
    parts = _split_hosts(text, _SENTINEL_SCHEMES, "redis+sentinel://:password@host:26379,host:26379/name/0")
    if not re.fullmatch(r"/[A-Za-z0-9._-]{1,100}(?:/\d{0,5})?/?", unquote(parts.path), re.ASCII):
        raise ValueError(
            "does not end with the primary's name and a database number: redis+sentinel://host:26379/name/0"
        )
    _check_redis_options(parts, _REDIS_OPTIONS | {"sentinel_username", "sentinel_password"})
    return text


def _check_cluster(text: str) -> str:
    parts = _split_hosts(text, _CLUSTER_SCHEMES, "redis+cluster://:password@host:6379,host:6379")
    if not re.fullmatch(r"/?0*/?", unquote(parts.path), re.ASCII):
        raise ValueError(
            "has a database number or another path, but a cluster has one database: redis+cluster://host:6379"
        )
    _check_redis_options(parts, _REDIS_OPTIONS - {"db"})
    return text


def _split_hosts(text: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """Return the parts of a URL of one of these schemes. Refuse all authorities but
    [user[:password]@]host[:port][,host[:port]...]."""
    _check_text(text, schemes, example)
    parts = split_url(text)
    _check_no_fragment(parts, text)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    if userinfo.count("@") > 0:
        raise ValueError(f"has more than one @: {_PASSWORD_ADVICE}")
    for host in hosts.split(","):
        _check_authority(_split(f"//{userinfo}{at}{host}"))
    return parts


def _check_no_fragment(parts: SplitResult, text: str) -> None:
    if parts.fragment or text.endswith("#"):
        raise ValueError(f"has a #: {_PASSWORD_ADVICE}")


def _check_redis_options(parts: SplitResult, options: frozenset[str]) -> None:
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in options:
            raise ValueError(f"has a query parameter that is none of {', '.join(sorted(options))}")
        if name in _REDIS_TLS and not parts.scheme.startswith("rediss"):
            raise ValueError(f"has an ssl_ parameter without TLS: write {parts.scheme.replace('redis', 'rediss')}://")
        if name in _REDIS_CHOICES and value.lower() not in _REDIS_CHOICES[name]:
            raise ValueError(f"has a {name} that is none of {', '.join(sorted(_REDIS_CHOICES[name]))}")
        if name in ("db", "health_check_interval") and not re.fullmatch(r"\d{1,5}", value, re.ASCII):
            raise ValueError(f"has a {name} that is no number")


def redis_of(address: str) -> str:
    """Return the Redis URL of `host:port` (the older systems' `REDIS_ADDR`), or of a URL. Raise ValueError."""
    return check_redis(address if "://" in address or address[:1] in _QUOTES else f"redis://{address}")


def check_http(text: str, *, userinfo: bool = True) -> str:
    """Return an HTTP base URL, without the slash at its end. Raise ValueError for any other text.

    Without `userinfo`, a user name and password in it are refused: the caller authenticates in another way.
    """
    _check_text(text, ("http://", "https://"), "https://host[:port][/path]")
    parts = _split(text)
    if "?" in text or "#" in text:
        raise ValueError("is the base of other URLs: it has no ? and no #")
    if "@" in parts.netloc and not userinfo:
        raise ValueError("has a user name or password in it, which is not sent: leave them out")
    _check_authority(parts)
    return text.rstrip("/")


def shown(url: str) -> str:
    """Return the address for a terminal or a log: without its password and its query."""
    parts = split_url(url)
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{user}{'@' if user else ''}{host}{parts.path}"


def _check_text(text: str, schemes: tuple[str, ...], example: str) -> None:
    if text[:1] in _QUOTES or text[-1:] in _QUOTES:
        raise ValueError("has quotes around it that belong to a shell: leave them out (`docker --env-file` keeps them)")
    if not text.lstrip().startswith(schemes):
        if text.startswith("jdbc:"):
            raise ValueError(f"begins with jdbc:, which is Java's: it must look like {example}")
        if re.match(r"\w+\s*=", text):
            raise ValueError(f"is a list of name=value, not a URL like {example}")
        raise ValueError(f"must begin with {' or '.join(schemes)}, like {example}")
    if re.search(r"\s", text) or not text.isprintable():
        raise ValueError("has a space, a line end or another character in it that no URL has: write it %XX")
    if _BAD_PERCENT.search(text):
        raise ValueError("has a % that is not followed by two hexadecimal digits: % itself is written %25")


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("has brackets that hold no IPv6 address") from None


def _check_authority(parts: SplitResult) -> None:
    """Refuse all but [user[:password]@]host[:port]."""
    if parts.netloc.count("@") > 1:
        raise ValueError(f"has more than one @: {_PASSWORD_ADVICE}")
    address = parts.netloc.rpartition("@")[2]
    if "," in address:
        raise ValueError("names several hosts: one is taken, which has to lead to the primary")
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?", address)
    if match is None:
        raise ValueError(f"has an IPv6 address without brackets, or a host that can be none; {_PASSWORD_ADVICE}")
    host, port = match[1], match[2]
    if port is not None:
        _check_port(port)
    if not host:
        raise ValueError("names no host")
    if host.startswith("["):
        if ":" not in host or not binding.is_host(host[1:-1]):
            raise ValueError("has brackets that hold no IPv6 address")
    else:
        _check_host(host)


def _check_port(port: str) -> None:
    if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise ValueError(f"has a port that is no number from 1 to 65535; {_PASSWORD_ADVICE}")


def _check_host(host: str, *, local: str = "") -> None:
    """Refuse what can be no host; one that begins with a character of `local` is a socket's path."""
    if local and host[0] in local:
        return
    try:
        plain = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        plain = ""
    if not binding.is_host(plain):
        raise ValueError("has a host that can be none")
