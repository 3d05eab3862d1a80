"""Addresses: those that are accepted and refused; no refusal repeats a password."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg.conninfo import conninfo_to_dict

from okane.addresses import check_http, check_postgres, check_redis, redis_of, shown
from streams import connect

SECRET = "hunter2"

POSTGRES = [
    "postgresql://h/d",
    "postgres://u:p%40q@h:5433/d",
    "postgresql:///d",
    "postgresql://[::1]:5432/d",
    "postgresql://a:1,b:2/d?target_session_attrs=read-write",
    "postgresql://u@%2Frun%2Fpostgresql/d",
    "postgresql:///d?host=/run/postgresql&port=5433",
    "postgresql://h/d?options=-c%20search_path%3Dapp&sslmode=verify-full&connect_timeout=3",
    "postgresql://h/d?options=a@b@c",
]
NOT_POSTGRES = [
    (f"'postgres://u:{SECRET}@h/d'", "quotes"),
    (f'"postgres://u:{SECRET}@h/d"', "quotes"),
    (f"`postgres://u:{SECRET}@h/d`", "quotes"),
    (f"jdbc:postgresql://h/d?user=u&password={SECRET}", "jdbc:"),
    (f"postgresql+psycopg://u:{SECRET}@h/d", "must begin with postgresql://"),
    (f"mysql://u:{SECRET}@h/d", "must begin with postgresql://"),
    (f"POSTGRESQL://u:{SECRET}@h/d", "must begin with postgresql://"),
    (f"u:{SECRET}@h/d", "must begin with postgresql://"),
    (f"DATABASE_URL=postgres://u:{SECRET}@h/d", "name=value"),
    (f"host=h password={SECRET}", "name=value"),
    (f"host = h password = '{SECRET} x", "name=value"),
    (f"postgres://u:{SECRET}%zz@h/d", "hexadecimal"),
    (f"postgres://u:{SECRET}%@h/d", "hexadecimal"),
    (f"postgres://u:{SECRET}%00@h/d", "hexadecimal"),
    (f"postgres://u:{SECRET} x@h/d", "space"),
    (f" postgres://u:{SECRET}@h/d", "space"),
    (f"postgres://u:{SECRET}@h/d\n", "space"),
    (f"postgres://u:{SECRET}\x07@h/d", "space"),
    (f"postgres://u:{SECRET}\udc80@h/d", "space"),
    (f"postgres://u:{SECRET}@h:port/d", "port"),
    (f"postgres://u:{SECRET}@h:0/d", "port"),
    (f"postgres://u:{SECRET}@h:70000/d", "port"),
    (f"postgres://u:x/{SECRET}@h/d", "port"),
    (f"postgres://u:x@{SECRET}@h/d", "more than one @"),
    (f"postgres://u:{SECRET}@h,i:1,j:2,k/d?port=1,2", "another number of ports"),
    (f"postgres://u:{SECRET}@[::1/d", "libpq"),
    (f"postgres://u:{SECRET}@[::zz]/d", "host"),
    (f"postgres://u:{SECRET}@h/d?{SECRET}=1", "query parameter"),
    (f"postgres://u:{SECRET}@h/d?sslmode={SECRET}", "sslmode"),
    (f"postgres://u:{SECRET}@h/d?target_session_attrs={SECRET}", "target_session_attrs"),
    (f"postgres://u:{SECRET}@h/d?connect_timeout={SECRET}", "connect_timeout"),
    (f"postgres://u:{SECRET}@h!/d", "host"),
    (f"postgres://u:{SECRET}@{'x' * 300}/d", "host"),
]
REDIS = [
    "redis+sentinel://a/mymaster",
    "redis+sentinel://u:p@a:1,b,[::1]:3/my-master.1/5",
    "rediss+sentinel://a/m/0?ssl_ca_certs=/ca.pem&sentinel_username=s&sentinel_password=p",
    "redis+cluster://a",
    "redis+cluster://u:p@a:1,b,[::1]:3/",
    "rediss+cluster://a:1/0?ssl_ca_certs=/ca.pem&client_name=okane",
    "redis://h",
    "redis://h/",
    "redis://:p%40q@h:6380/3",
    "redis://u:p@[::1]:6379/0",
    "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false",
    "redis://h?db=3&client_name=okane&health_check_interval=5&socket_keepalive=true",
    "unix:///run/redis.sock?db=1",
    "unix://u:p@/run/redis.sock",
]
NOT_REDIS = [
    (f"'redis://:{SECRET}@h'", "quotes"),
    (f"http://:{SECRET}@h", "must begin with redis://"),
    (f"h:6379 password={SECRET}", "must begin with redis://"),
    (f"redis://:{SECRET}@a:1,b:2/0", "several hosts"),
    (f"redis://:{SECRET}@a,b/0", r"several hosts.*redis\+cluster://"),
    (f"redis+cluster://:{SECRET}@a,b/1", "one database"),
    (f"redis+cluster://:{SECRET}@a,b?db=0", "query parameter"),
    (f"redis+cluster://:{SECRET}@a,/0", "no host"),
    (f"redis+cluster://:{SECRET}@a,b:x", "port"),
    (f"redis+cluster://:{SECRET}@x@a", "more than one @"),
    (f"redis+cluster://:{SECRET}@a?ssl_ca_certs=/ca.pem", "rediss\\+cluster"),
    (f"redis+cluster:///{SECRET}", "no host"),
    (f"redis://:{SECRET}@/0", "no host"),
    ("redis:///0", "no host"),
    (f"redis://:{SECRET}@h:port/0", "port"),
    (f"redis://:{SECRET}@h:/0", "port"),
    (f"redis://:{SECRET}@h:99999/0", "port"),
    (f"redis://:{SECRET}/x@h/0", "port"),
    (f"redis://:{SECRET}@x@h/0", "more than one @"),
    (f"redis://:{SECRET}#x@h/0", "#"),
    (f"redis://:{SECRET}%zz@h/0", "hexadecimal"),
    (f"redis://:{SECRET} @h/0", "space"),
    (f"redis://:{SECRET}@h/none", "database number"),
    (f"redis://:{SECRET}@h/-1", "database number"),
    (f"redis://:{SECRET}@[h]/0", "brackets"),
    (f"redis://:{SECRET}@[::1/0", "brackets"),
    (f"redis://:{SECRET}@::1/0", "IPv6|port"),
    (f"redis://:{SECRET}@h/0?{SECRET}=1", "query parameter"),
    (f"redis://:{SECRET}@h/0?protocol=3", "query parameter"),
    (f"redis://:{SECRET}@h/0?decode_responses=true", "query parameter"),
    (f"redis://:{SECRET}@h/0?db={SECRET}", "db"),
    (f"redis://:{SECRET}@h/0?ssl_cert_reqs=none", "rediss://"),
    (f"rediss://:{SECRET}@h/0?ssl_cert_reqs={SECRET}", "ssl_cert_reqs"),
    (f"redis+sentinel://:{SECRET}@h", "primary's name"),
    (f"redis+sentinel://:{SECRET}@h/0/0/0", "primary's name"),
    (f"redis+sentinel://:{SECRET}@h,/m", "no host"),
    (f"redis+sentinel://:{SECRET}@h:x/m", "port"),
    (f"redis+sentinel://:{SECRET}@a@h/m", "more than one @"),
    (f"redis+sentinel://h/m?sentinel_password={SECRET}&ssl_ca_certs=x", r"rediss\+sentinel://"),
    (f"redis+sentinel://h/m?sentinel_pass={SECRET}", "query parameter"),
    (f"redis://:{SECRET}@h/0?sentinel_password={SECRET}", "query parameter"),
    (f"unix://:{SECRET}@run/redis.sock", "socket"),
    (f"unix://:{SECRET}@/", "socket"),
]
HTTP = [
    "http://h",
    "https://h:8443/base/",
    "http://u:p@h",
    "http://[::1]:80",
    "http://h_x.internal",
    "http://münchen.de",
]
NOT_HTTP = [
    (f"'http://u:{SECRET}@h'", "quotes"),
    (f"ftp://u:{SECRET}@h", "must begin with http://"),
    (f"u:{SECRET}@h", "must begin with http://"),
    (f"http:/u:{SECRET}@h", "must begin with http://"),
    ("http://", "no host"),
    (f"http://u:{SECRET}@", "no host"),
    (f"http://u:{SECRET}@h:port", "port"),
    (f"http://u:{SECRET}@h:0", "port"),
    (f"http://u:{SECRET}@h:99999999999999999999", "port"),
    (f"http://u:{SECRET}@h?x={SECRET}", r"\?"),
    (f"http://u:{SECRET}@h#x", "#"),
    (f"http://u:{SECRET}@[::1", "brackets"),
    (f"http://u:{SECRET}@[1.2.3.4]", "brackets"),
    (f"http://u:{SECRET}@a..b", "host"),
    (f"http://u:{SECRET}@h\\x", "host"),
    (f"http://u:{SECRET}@{'x' * 64}", "host"),
    (f"http://u:{SECRET}@h\r\nX: y", "space"),
    (f"http://u:{SECRET}%zz@h", "hexadecimal"),
    (f"http://u:{SECRET}@x@h", "more than one @"),
    (f"http://u:{SECRET}@a:1,b:2", "several hosts"),
]


@pytest.mark.parametrize("url", POSTGRES)
def test_a_postgres_url_that_libpq_reads_is_taken(url: str) -> None:
    assert check_postgres(url) == url
    assert conninfo_to_dict(url)


@pytest.mark.parametrize("url", REDIS)
def test_a_redis_url_that_redis_py_can_connect_by_is_taken(url: str) -> None:
    assert check_redis(url) == url
    connect(url).connection_pool.make_connection()  # type: ignore[no-untyped-call] # raises for an unknown option


@pytest.mark.parametrize("url", HTTP)
def test_an_http_base_url_is_taken(url: str) -> None:
    assert check_http(url) == url.rstrip("/")


def test_an_older_systems_redis_address_becomes_a_url() -> None:
    assert redis_of("localhost:6379") == "redis://localhost:6379"
    assert redis_of("redis://h/1") == "redis://h/1"
    for wrong in ("a:1,b:2", "'h:1'", "::1", ":6379", "h:6379 ", "h:port", "http://h"):
        with pytest.raises(ValueError, match=r"host|quotes|port|space|begin"):
            redis_of(wrong)


@pytest.mark.parametrize(
    ("check", "url", "message"),
    [
        *((check_postgres, url, message) for url, message in NOT_POSTGRES),
        *((check_redis, url, message) for url, message in NOT_REDIS),
        *((check_http, url, message) for url, message in NOT_HTTP),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(
    check: Callable[[str], str], url: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        check(url)
    assert SECRET not in str(refused.value)


def test_a_user_is_refused_where_none_is_sent() -> None:
    with pytest.raises(ValueError, match="user name") as refused:
        check_http(f"http://u:{SECRET}@h", userinfo=False)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (f"postgresql://okane:{SECRET}@h:5432/d", "postgresql://okane@h:5432/d"),
        (f"postgresql://okane@h/d?password={SECRET}", "postgresql://okane@h/d"),
        (f"redis://:{SECRET}@h:6379/0", "redis://h:6379/0"),
        (f"unix://:{SECRET}@/run/redis.sock?db=0", "unix:///run/redis.sock"),
        (f"http://u:{SECRET}@h/base", "http://u@h/base"),
        (f"postgresql://okane:{SECRET}@h:5432,[::1]:5433/d", "postgresql://okane@h:5432,[::1]:5433/d"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, seen: str) -> None:
    assert shown(url) == seen
